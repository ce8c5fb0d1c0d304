"""`finetune demo`: copies a folder in which the quickstart recipe can run; errors."""

from pathlib import Path

import pytest
from command import Command
from conftest import ROOT

from finetune.cli import demo
from finetune.cli.arguments import Subparsers


class DemoFrom:
    """The command with another source tree."""

    def __init__(self, source_tree: Path) -> None:
        self.source_tree = source_tree

    def add_parser(self, subparsers: Subparsers) -> None:
        demo.add_parser(subparsers, self.source_tree)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_copied_recipe_resolves_with_its_model_and_data(
    finetune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "new" / "demo"
    result = finetune("demo", target)
    assert result == (0, f"copied to {target}; next: cd {target} && finetune run recipes/quickstart.yaml\n", "")
    for name in ("data/granite-speech-nano", "data/vocabulary"):
        assert files(target / name) == files(ROOT / name)
    monkeypatch.chdir(target)
    result = finetune("check", "recipes/quickstart.yaml")
    assert result.code == 0 and "data/vocabulary/terms.txt" in result.out


def test_the_next_command_quotes_a_folder_with_a_space(finetune: Command, tmp_path: Path) -> None:
    for name in demo.CONTENTS:
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text("x")
    result = finetune("demo", tmp_path / "my demo", commands=[DemoFrom(tmp_path / "tree")])
    assert f"next: cd '{tmp_path / 'my demo'}' && finetune run" in result.out


def test_without_a_source_tree_the_error_names_the_repository(finetune: Command, tmp_path: Path) -> None:
    result = finetune("demo", tmp_path / "demo", commands=[DemoFrom(tmp_path)])
    assert result.code == 1 and result.err.startswith(
        f"finetune: {tmp_path}/recipes/quickstart.yaml: no such file or folder; "
    )
    assert result.err.count("\n") == 1 and "pip install -e ." in result.err and not (tmp_path / "demo").exists()


def test_a_folder_with_files_is_not_changed(finetune: Command, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("text")
    result = finetune("demo", tmp_path)
    assert result == (1, "", f"finetune: {tmp_path}: not empty; choose another folder\n")
    assert files(tmp_path) == {"thesis.txt"}
    result = finetune("demo", tmp_path / "thesis.txt")
    assert result == (1, "", f"finetune: {tmp_path / 'thesis.txt'}: cannot be written (Not a directory)\n")
