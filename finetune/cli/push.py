"""`finetune push`: sends an export to a repository of the Hugging Face Hub."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.arguments import Subparsers
from finetune.core.errors import CheckpointError, ModelError, RecipeError
from finetune.core.terminal import visible
from finetune.core.wording import count

if TYPE_CHECKING:
    from finetune.core.run_dir import RunDir
    from finetune.exporting.publish.contents import Contents

DESCRIPTION = """Sends a folder that finetune export has written to the Hugging Face Hub, in one commit.

A new repository is private. Before anything is sent, the files are listed with their sizes, and every file is checked:
a push is refused if one has an access token or password, an absolute path, a transcript of the run's data, a pickle, or
is a link. After an interruption, run the same command again. docs/publish.md has the details.

Exit codes: 0 sent (or --dry-run found nothing), 1 refused or failed, 2 wrong usage."""


def add_parser(subparsers: Subparsers, ask: Callable[[str], str] | None = None) -> None:
    """`ask` returns the answer of the user; None asks on the terminal, if there is one."""
    parser = subparsers.add_parser(
        "push",
        help="send an export to the Hugging Face Hub; private by default",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=DESCRIPTION,
        epilog="example: finetune push runs/quickstart/export my-org/my-model --dry-run",
    )
    parser.add_argument("export", type=Path, metavar="EXPORT", help="a folder written by finetune export")
    parser.add_argument("repository", metavar="REPO", help="OWNER/NAME on the hub")
    parser.add_argument("--dry-run", action="store_true", help="list and check the files, send nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask before sending")
    parser.add_argument("--public", action="store_true", help="make a new repository public")
    parser.add_argument("--update", action="store_true", help="replace the files of a repository that has files")
    parser.add_argument(
        "--run",
        dest="run_dir",
        type=Path,
        metavar="DIR",
        help="the run directory whose transcripts must not be sent; the default is the parent of EXPORT",
    )
    parser.add_argument(
        "--benchmark",
        metavar="OWNER/DATASET:TASK",
        help="the test set is this benchmark of the hub: also send its result as .eval_results/*.yaml",
    )
    parser.add_argument("--message", default="Model of finetune export", help="of the commit (default: %(default)s)")
    parser.set_defaults(run=partial(run, ask=ask))


def run(args: argparse.Namespace, ask: Callable[[str], str] | None) -> int:
    """Checks, lists, asks and sends.

    Raises:
        RecipeError: a wrong name, or nobody to ask and no --yes.
        ModelError: a file must not be sent.
        HubError: the hub cannot be reached or refuses.
    """
    from finetune.exporting.publish.contents import public_contents
    from finetune.exporting.publish.push import check_repository, push

    check_repository(args.repository)
    ask = ask or (input if sys.stdin.isatty() else None)
    if not args.dry_run and not args.yes and ask is None:
        raise RecipeError("there is no terminal to ask on; add --yes to send, or --dry-run to see the files")
    run_dir = _run_of(args)
    result_file = _result_file(args.export, args.benchmark) if args.benchmark else None
    contents = public_contents(args.export, run_dir, result_file)
    where = f"{args.repository} ({'public' if args.public else 'private'})"
    print(visible("\n".join(format_contents(contents))))
    if args.dry_run:
        print(visible(f"dry run: nothing was sent to {where}"))
        return 0
    if (
        not args.yes
        and ask is not None
        and ask(f"send these files to {where}? [y/N] ").strip().lower() not in ("y", "yes")
    ):
        print("nothing was sent")
        return 1
    result = push(contents.files, args.repository, args.public, args.update, _say, args.message)
    removed = f"; deleted {', '.join(result.deleted)}" if result.deleted else ""
    print(visible(f"sent {count(result.sent, 'file')} to {args.repository}{removed}: {result.url}"))
    return 0


def format_contents(contents: "Contents") -> list[str]:
    """A line for each file with its size, their sum, and what is not sent."""
    lines = [f"{item.size:>15,}  {item.name}" for item in contents.files]
    total = sum(item.size for item in contents.files)
    lines.append(f"{total:>15,}  bytes in {count(len(contents.files), 'file')}")
    lines += [f"not sent: {name} ({reason})" for name, reason in contents.left_out.items()]
    return [*lines, *(f"note: {note}" for note in contents.notes)]


def _run_of(args: argparse.Namespace) -> "RunDir | None":
    """The run whose transcripts are compared; None if the export is in no run directory."""
    from finetune.core.run_dir import RunDir

    run = RunDir(args.run_dir or args.export.resolve().parent)
    if run.manifests.is_dir():
        return run
    if args.run_dir:
        raise CheckpointError(f"--run {args.run_dir}: not a run directory with manifests")
    return None


def _result_file(export: Path, text: str) -> tuple[str, str]:
    """Name and text of the file with the result of a benchmark."""
    from pydantic import TypeAdapter

    from finetune.core.files import read_json
    from finetune.core.model_limits import ADAPTATION
    from finetune.exporting.eval_results import eval_result, parse_benchmark
    from finetune.metrics.scores import Scores

    benchmark = parse_benchmark(text)
    try:
        adaptation = read_json(export / ADAPTATION)
        scores = TypeAdapter(Scores).validate_python(adaptation["scores"]["test"]["adapted"])
        terms = adaptation.get("recipe", {}).get("decode", {}).get("terms")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{export / ADAPTATION}: has no scores of a test set, so --benchmark has no result; the run was not "
            "evaluated before its export"
        ) from error
    if scores.without_words:
        raise ModelError(
            f"{export / ADAPTATION}: the references of the test set have no words, so --benchmark has no result"
        )
    return eval_result(benchmark, scores, with_terms=bool(terms))


def _say(text: str) -> None:
    print(visible(text), flush=True)
