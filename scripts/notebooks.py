"""Makes the notebooks of docs/notebooks from their scripts, and runs them, so that they have outputs.

    python scripts/notebooks.py              # all; a minute each
    python scripts/notebooks.py evaluate     # some

A script has cells that start with `# %%`, or `# %% [markdown]` for text. Paths of this machine are refused in outputs.
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "notebooks"
MARK = re.compile(r"^# %%(?P<kind> \[markdown\])?$", re.M)
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
SECONDS = 600  # of a cell


def cells(script: str) -> list[tuple[str, str]]:
    """The cells of a script: `markdown` or `code`, and the source without the comment signs of text."""
    marks = list(MARK.finditer(script))
    ends = [*(mark.start() for mark in marks[1:]), len(script)]
    found = list[tuple[str, str]]()
    for mark, end in zip(marks, ends, strict=True):
        source = script[mark.end() : end].strip()
        if mark["kind"]:
            found.append(
                ("markdown", "\n".join(line.removeprefix("#").removeprefix(" ") for line in source.split("\n")))
            )
        else:
            found.append(("code", source))
    return found


def notebook_of(script: str) -> nbformat.NotebookNode:
    """A notebook without outputs. The ids of its cells are numbers, so that it is the same each time."""
    made = nbformat.v4.new_notebook(metadata=KERNEL)
    for number, (kind, source) in enumerate(cells(script)):
        new = nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell
        made.cells.append(new(source, id=f"cell-{number}"))
    return made


def run(notebook: nbformat.NotebookNode, folder: Path = FOLDER) -> nbformat.NotebookNode:
    """Runs a notebook in `folder`, and removes times and standard error from its outputs."""
    NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}}).execute()
    notebook.metadata = nbformat.from_dict(KERNEL)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def machine_paths(text: str) -> list[str]:
    """Paths of this machine in a text: of the project, of the user, of temporary files."""
    return sorted({place for place in (str(ROOT), str(Path.home()), tempfile.gettempdir(), "/home/") if place in text})


def build(name: str) -> Path:
    """Writes docs/notebooks/NAME.ipynb. Raises SystemExit if an output has a path of this machine."""
    notebook = run(notebook_of((FOLDER / f"{name}.py").read_text(encoding="utf-8")))
    text = nbformat.writes(notebook)
    if found := machine_paths(text):
        raise SystemExit(f"{name}: the outputs have {', '.join(found)}; do not print paths in the script")
    path = FOLDER / f"{name}.ipynb"
    path.write_text(text + "\n", encoding="utf-8")
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = sorted(path.stem for path in FOLDER.glob("*.py"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"(default: {', '.join(names)})")
    args = parser.parse_args(arguments)
    if unknown := set(args.names) - set(names):
        parser.error(f"unknown notebook {', '.join(sorted(unknown))}; choose from {', '.join(names)}")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["PYTHONPATH"] = str(ROOT)
    for name in args.names or names:
        print(build(name), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
