"""`finetune report`: writes the report of an evaluated run again."""

import argparse
import difflib
from pathlib import Path

from finetune.cli.arguments import Subparsers
from finetune.core.errors import DataError


def add_parser(subparsers: Subparsers) -> None:
    text = "write the report of an evaluated run again"
    parser = subparsers.add_parser(
        "report", help=text, description=text, epilog="example: finetune report runs/quickstart"
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="a run directory, such as runs/quickstart")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes `report.html` and `summary.md`.

    Raises:
        DataError: the path is not a run directory.
        CheckpointError: the run has not been evaluated, an earlier version made it, or another process uses it.
    """
    from finetune.core.run_dir import RunDir

    run_dir = RunDir(args.run_dir)
    if not _is_run(run_dir.root):  # before `locked`, which would leave a lock in a folder of something else
        raise DataError(_not_a_run(run_dir.root))
    run_dir.check_version()

    from finetune.report.write_report import write_report

    with run_dir.locked():
        write_report(run_dir)
    return 0


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in ("recipe.json", "resolved.json"))


def _not_a_run(path: Path) -> str:
    """What a path is that is not a run directory, and what to give instead."""
    if path.suffix in (".yaml", ".yml"):
        return f"{path}: a recipe; pass its run directory, such as {Path('runs', path.stem)}"
    if _is_run(path.parent):
        return f"{path}: not a run directory; did you mean {path.parent}?"
    if path.exists():
        return f"{path}: not a run directory; pass one, such as {Path('runs', 'quickstart')}"
    names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    similar = difflib.get_close_matches(path.name, names, 1)
    return f"{path}: no such run directory" + (f"; did you mean {path.parent / similar[0]}?" if similar else "")
