"""The `finetune` command: parses the arguments, runs one command, maps errors to exit codes.

Exit codes: 0 done, 1 failed, 2 wrong usage (arguments or recipe), 128 + n stopped by signal n. No heavy library is
imported before the command is known.
"""

import argparse
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TextIO

from finetune.cli import (
    bench_serve,
    calibrate,
    check,
    compare,
    completion,
    convert,
    curve,
    demo,
    doctor,
    init,
    preview,
    pseudo_label,
    push,
    recipes,
    report,
    score,
    segment,
    serve,
    stages,
    suggest,
    synthesize,
    transcribe_command,
    verify,
)
from finetune.cli.arguments import Parser, Subparsers
from finetune.core.errors import FinetuneError, Interrupted, RecipeError
from finetune.core.terminal import LogHandler, prepare_streams, shortened, visible
from finetune.core.unexpected import explain
from finetune.version import __version__

RESUMABLE = (
    "curve",
    "suggest",
    "pseudo-label",
    "synthesize",
)  # commands beside the stages that go on where they stopped
NOISY_LOGGERS = ("gguf", "httpx", "httpx2", "huggingface_hub", "transformers", "accelerate", "datasets")


class Command(Protocol):
    """A module of this package; its parsers set `run`, a function of the parsed arguments that returns an exit code."""

    def add_parser(self, subparsers: Subparsers) -> None: ...


COMMANDS: tuple[Command, ...] = (
    check,
    preview,
    stages,
    report,
    score,
    calibrate,
    compare,
    curve,
    segment,
    pseudo_label,
    suggest,
    synthesize,
    transcribe_command,
    serve,
    verify,
    bench_serve,
    push,
    convert,
    demo,
    doctor,
    init,
    recipes,
    completion,
)


def main(argv: list[str] | None = None, commands: Sequence[Command] = COMMANDS) -> int:
    """Runs one command and returns its exit code.

    Args:
        argv: the arguments after the program's name; None is `sys.argv[1:]`.
        commands: what can be run.
    """
    prepare_streams()
    # The other processes of a training report only errors.
    main_process = os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1"
    with _logging(logging.INFO if main_process else logging.ERROR):
        args = _parser(commands).parse_args(argv)
        try:
            code: int = args.run(args)
            sys.stdout.flush()
            return code
        except Interrupted as error:
            from finetune.core.run_dir import CHILD

            if main_process and CHILD not in os.environ:  # otherwise the parent process prints it
                _print_error(error)
            return 128 + error.signum
        except FinetuneError as error:
            _print_error(error)
            return 2 if isinstance(error, RecipeError) else 1
        except KeyboardInterrupt:
            place = " from the last checkpoint" * (args.command in stages.HELP and args.command != "prepare")
            resumes = args.command in (*stages.HELP, *RESUMABLE)
            _print_error("stopped" + (f"; rerun to resume{place}" if resumes else ""))
            return 128 + signal.SIGINT
        except BrokenPipeError:  # the reader of a pipe has closed it, such as `head`; no message is needed
            _discard_output(sys.stdout)
            return 128 + signal.SIGPIPE
        except Exception as error:
            text = explain(error)
            if "Run: pip install" in text:
                text += "\nOther packages that do not fit are named by: finetune doctor"
            _print_error(text)
            return 1


def _discard_output(stream: TextIO) -> None:
    """Drops what is not yet written; otherwise the exit of the interpreter fails."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _print_error(error: Any) -> None:
    try:
        sys.stdout.flush()
    except OSError:  # such as a full disk behind a redirection
        _discard_output(sys.stdout)
    try:
        print(visible(shortened(f"finetune: {error}")), file=sys.stderr, flush=True)
    except OSError:
        _discard_output(sys.stderr)


def _parser(commands: Sequence[Command]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = Parser(
        prog="finetune",
        description="Fine-tune IBM Granite Speech for a vocabulary, an accent, a domain or a language.",
        epilog="example: finetune run recipes/quickstart.yaml --set train.epochs=2",
    )
    parser.add_argument("--version", action="version", version=f"finetune {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in commands:
        command.add_parser(subparsers)
    return parser


@contextmanager
def _logging(level: int) -> Iterator[None]:
    """Prints log messages to standard output, and silences libraries; the handler is removed at the end."""
    handler = LogHandler()
    root, previous_level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(level)
    logging.raiseExceptions = False  # a closed standard output must not end a run
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings(
        "ignore", category=FutureWarning
    )  # libraries warn about each other; a user cannot act on it
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(previous_level)
