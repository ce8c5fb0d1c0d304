"""`finetune report`: writes the report of an evaluated run again."""

import argparse

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
        DataError: there is no such directory.
        CheckpointError: the run has not been evaluated, an earlier version made it, or another process uses it.
    """
    from finetune.core.run_dir import RunDir

    run_dir = RunDir(args.run_dir)
    if not run_dir.root.is_dir():
        raise DataError(f"{args.run_dir}: no such run directory")
    run_dir.check_version()

    from finetune.report.write_report import write_report

    with run_dir.locked():
        write_report(run_dir)
    return 0
