"""The notebooks of docs/notebooks: made from their scripts, with outputs, without paths of a machine."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import notebooks
from notebooks import FOLDER, cells, machine_paths, notebook_of

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


def stored(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def test_there_are_three() -> None:
    assert NAMES == sorted(path.stem for path in FOLDER.glob("*.ipynb")) == ["evaluate", "serve", "vocabulary"]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_the_cells_of_its_script(name: str) -> None:
    made = notebook_of((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    same = [(cell.cell_type, cell.source) for cell in stored(name).cells]
    assert same == [(cell.cell_type, cell.source) for cell in made.cells], f"run python scripts/notebooks.py {name}"


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_stored_without_paths_and_errors(name: str) -> None:
    outputs = [output for cell in stored(name).cells if cell.cell_type == "code" for output in cell.outputs]
    assert len(outputs) >= 3 and all(output.output_type != "error" for output in outputs)
    assert all(output.get("name") != "stderr" for output in outputs)
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert machine_paths(text) == [] and "/tmp/" not in text


def test_cells_of_a_script() -> None:
    script = "# %% [markdown]\n# # Title\n#\n# text\n\n# %%\nx = 1\n# a comment\n\n# %%\nprint(x)\n"
    assert cells(script) == [("markdown", "# Title\n\ntext"), ("code", "x = 1\n# a comment"), ("code", "print(x)")]


def test_a_path_in_an_output_is_refused() -> None:
    assert machine_paths(f"saved to {ROOT}/x") == [str(ROOT)]
    assert machine_paths("saved to x") == []


def test_the_page_of_a_notebook_has_its_texts_code_and_outputs(tmp_path: Path) -> None:
    source = (ROOT / "scripts" / "docs_pages.py").read_text(encoding="utf-8")
    start = source.index("def notebook_page")  # the module needs mkdocs, which is not installed with the package
    names: dict[str, object] = {"json": json, "Path": Path}
    exec(source[start : source.index("\n\n\n", start)], names)
    printed = nbformat.v4.new_output("stream", name="stdout", text="7\n")
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell("print(7)", outputs=[printed])]
    )
    nbformat.write(made, tmp_path / "x.ipynb")
    page = names["notebook_page"](tmp_path / "x.ipynb")  # type: ignore[operator]
    assert page.startswith("# Title\n\n```python\nprint(7)\n```\n\n```text\n7\n```\n")


def test_evaluate_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The shortest one; the others are slow."""
    monkeypatch.chdir(FOLDER)
    runpy.run_path(str(FOLDER / "evaluate.py"))
    printed = capsys.readouterr().out
    assert "system 2: WER" in printed and "difference" in printed and "condition holds" in printed


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_outside_the_project_ends(name: str, tmp_path: Path) -> None:
    """It must not search the folders above for ever."""
    command = [sys.executable, FOLDER / f"{name}.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1 and "run it in the folder of the project or below it" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made = notebooks.run(notebook_of((FOLDER / f"{name}.py").read_text(encoding="utf-8")))
    assert machine_paths(nbformat.writes(made)) == []
