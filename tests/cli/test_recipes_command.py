"""`finetune recipes list`, `show` and `copy`."""

from pathlib import Path

import pytest

from finetune.cli.main import main
from finetune.cli.recipes import FOLDER, add_parser


def test_the_list_has_each_recipe_with_its_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(path.stem for path in FOLDER.glob("*.yaml"))
    assert all(len(line.split()) > 3 and "#" not in line for line in lines)


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml"])
def test_show_prints_the_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "show", name]) == 0
    assert capsys.readouterr().out == (FOLDER / "quickstart.yaml").read_text()


def test_copy_writes_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "copy", "noise", str(tmp_path)]) == 0
    assert (tmp_path / "noise.yaml").read_bytes() == (FOLDER / "noise.yaml").read_bytes()
    assert main(["recipes", "copy", "noise", str(tmp_path)]) == 1
    assert "exists" in capsys.readouterr().err
    assert main(["recipes", "copy", "noise", str(tmp_path / "no" / "x.yaml")]) == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nose", "../README", "", "/etc/passwd"])
def test_another_name_is_an_error_with_the_names(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "show", name]) == 1
    assert "quickstart" in capsys.readouterr().err


def test_without_a_source_tree_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Command:
        @staticmethod
        def add_parser(subparsers: object) -> None:
            add_parser(subparsers, tmp_path)  # type: ignore[arg-type]

    assert main(["recipes", "list"], [Command()]) == 1
    assert "source tree" in capsys.readouterr().err
