"""The `finetune` command. Nothing heavy is imported before a subcommand is known.

Exit codes: 0 done, 1 failed, 2 wrong usage (arguments or recipe), 128 and the signal's number when stopped.
"""

import argparse
import errno
import logging
import math
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune.cli import compare as compare_cli
from finetune.cli import transcribe as transcribe_cli
from finetune.core.errors import DataError, FinetuneError, Interrupted, ModelError, RecipeError
from finetune.core.run_dir import CHILD, RunDir
from finetune.core.terminal import VisibleFormatter, visible
from finetune.version import __version__

STAGES = {
    "prepare": "read and audit the corpora, write manifests",
    "train": "prepare, then adapt the model and keep the best adapter",
    "evaluate": "... then score base and adapted model on test and canary, and write the report",
    "export": "... then merge, save in hub layout and check the export",
    "run": "all stages and a summary; what is done already is skipped",
}
LONG = 60.0  # seconds of audio for which progress is shown


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    first = os.environ.get("RANK", "0") == "0"  # of several processes one speaks, unless it is of an error
    log = logging.StreamHandler(sys.stdout)
    log.setFormatter(VisibleFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, handlers=[log])
    logging.raiseExceptions = False  # a run outlives whoever read its log
    for noisy in ("httpx", "huggingface_hub", "transformers", "accelerate", "datasets"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries about each other; no user can heed them
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "check":
            return _check(arguments)
        if arguments.command == "calibrate":
            return _calibrate(arguments)
        if arguments.command == "report":
            return _report(arguments)
        if arguments.command == "score":
            return _score(arguments)
        if arguments.command == "compare":
            return compare_cli.run(arguments)
        if arguments.command == "transcribe":
            return _transcribe(arguments)
        return _stage(arguments)
    except RecipeError as error:
        print(visible(f"finetune: {error}"), file=sys.stderr)
        return 2
    except Interrupted as error:
        if first and CHILD not in os.environ:  # the process that has started this one says it
            print(visible(f"finetune: {error}"), file=sys.stderr)
        return 128 + error.signum
    except FinetuneError as error:
        print(visible(f"finetune: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        onward = "; the same command goes on from the last checkpoint" if arguments.command in STAGES else ""
        print(f"finetune: stopped{onward}", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # as of `| head`, which needs no word
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"finetune: {error}; make room, and run the same command again", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="finetune",
        description="Adapt IBM Granite Speech to your words, voices and channels.",
        epilog="example: finetune run recipes/quickstart.yaml --set train.epochs=2",
    )
    parser.add_argument("--version", action="version", version=f"finetune {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="print each setting with its origin, what would be trained, and the data",
        epilog="example: finetune check recipes/quickstart.yaml",
    )
    _recipe_arguments(check)
    for name, text in STAGES.items():
        stage = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example: finetune {name} recipes/quickstart.yaml --set train.epochs=2",
        )
        _recipe_arguments(stage)
    report = commands.add_parser(
        "report", help="write the report of an evaluated run again", epilog="example: finetune report runs/quickstart"
    )
    report.add_argument("run", metavar="RUN_DIR", help="a run directory, such as runs/quickstart")
    score = commands.add_parser(
        "score",
        help="the base model as it is on each test set by itself: WER, their mean, speed",
        description="Scores model.base on each corpus of data.test, as leaderboards do; nothing is trained. A clip "
        "whose normalized reference is empty is left out and counted; any other that cannot be used stops it.",
        epilog="example: finetune score recipes/openasr.yaml --set model.base=runs/my/export",
    )
    _recipe_arguments(score)
    calibrate = commands.add_parser(
        "calibrate",
        help="find the thresholds of relaxed decoding for a model, and keep them beside it",
        epilog="example: finetune calibrate --model runs/quickstart/export --manifest valid.jsonl --max-wer-loss 0.2",
    )
    calibrate.add_argument("--model", required=True, metavar="DIR", help="exported folder or local base model")
    calibrate.add_argument("--manifest", required=True, metavar="FILE", help="clips with transcripts, never the test's")
    calibrate.add_argument(
        "--max-wer-loss",
        required=True,
        type=float,
        metavar="POINTS",
        help="WER that may be lost against lossless decoding; 0.2 is 0.2 points in 100",
    )
    compare = commands.add_parser(
        "compare",
        help="runs, models, other recognizers and their files on the same clips, tested against the first",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=compare_cli.DESCRIPTION,
        epilog="example: finetune compare runs/quickstart:base runs/quickstart other.jsonl --fail-if 'wer > base'",
    )
    compare_cli.add_arguments(compare)
    transcribe = commands.add_parser(
        "transcribe",
        help="audio files to text with a base or exported model",
        epilog="example: finetune transcribe call.wav --model runs/quickstart/export --format srt",
    )
    transcribe.add_argument("--model", required=True, metavar="DIR", help="exported folder, base model or hub name")
    transcribe_cli.add_arguments(transcribe)
    return parser


def _recipe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file; see recipes/")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override a setting, such as train.learning_rate=1e-4; may be repeated",
    )


def _check(arguments: argparse.Namespace) -> int:
    from finetune.core.recipe import load_recipe

    recipe, settings = load_recipe(arguments.recipe, arguments.overrides)
    width = max(len(setting.key) for setting in settings)
    for setting in settings:
        print(f"{setting.key:{width}}  {setting.value!s:48} {setting.origin}")
    from finetune.data.prepare import preview_corpora
    from finetune.model.model_summary import summarize_model
    from finetune.training.trainer import trainable_parts

    print()
    faults = []
    try:
        if recipe.data.train:
            print("\n".join(summarize_model(recipe.model.base, recipe.model.revision, trainable_parts(recipe))))
        else:
            print("nothing to train on: this recipe is for finetune score")
    except ModelError as error:
        faults.append(str(error))
    print("\ndata:")
    try:
        for line in preview_corpora(recipe):
            print(visible(line))
    except DataError as error:
        faults.append(str(error))
    if faults:
        raise DataError("\n".join(faults))
    return 0


def _stage(arguments: argparse.Namespace) -> int:
    from finetune.core.recipe import load_recipe

    recipe, _ = load_recipe(arguments.recipe, arguments.overrides)
    from finetune.pipeline import run_recipe, summarize
    from finetune.report.summary import format_summary

    whole = arguments.command == "run"
    last = {"run": "export", "evaluate": "report"}.get(arguments.command, arguments.command)
    run = run_recipe(recipe, last)
    if whole:
        print(visible(format_summary(run, summarize(run))))
    return 0


def _score(arguments: argparse.Namespace) -> int:
    from finetune.core.recipe import load_recipe

    recipe, _ = load_recipe(arguments.recipe, arguments.overrides)
    from finetune.evaluation.score import score_table
    from finetune.pipeline import score_recipe

    print(visible("\n".join(score_table(score_recipe(recipe)))))
    return 0


def _report(arguments: argparse.Namespace) -> int:
    run = RunDir(arguments.run)
    if not run.root.is_dir():
        raise DataError(f"{arguments.run}: no such run directory")
    from finetune.report.write_report import write_report

    with run.locked():
        write_report(run)
    return 0


def _calibrate(arguments: argparse.Namespace) -> int:
    if not Path(arguments.model).is_dir():
        raise DataError(f"{arguments.model}: the calibration is kept in the model's folder, and this is none")
    if not os.access(arguments.model, os.W_OK):
        raise DataError(
            f"{arguments.model}: the calibration is kept in the model's folder, which cannot be written; "
            "calibrate a copy"
        )
    if not 0 <= arguments.max_wer_loss < math.inf:
        raise RecipeError(f"--max-wer-loss {arguments.max_wer_loss:g}: points of WER, 0 or more")
    from finetune.core.config import DecodeSection, EvaluateSection
    from finetune.evaluation.calibrate import calibrate, frontier_table
    from finetune.inference.settings import settings_of

    result = calibrate(
        arguments.model,
        arguments.manifest,
        arguments.max_wer_loss,
        settings_of(arguments.model).instruction,
        DecodeSection(),
        EvaluateSection().normalizer,
    )
    print("\n".join(frontier_table(result)))
    return 0


def _transcribe(arguments: argparse.Namespace) -> int:
    from finetune.inference.settings import settings_of

    with _bar() as watch:
        return transcribe_cli.run(arguments, settings_of(arguments.model), arguments.model, watch)


@contextmanager
def _bar() -> Iterator[transcribe_cli.Watch | None]:
    """A bar on standard error for audio of some length, if a person sits there."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    # What is printed meanwhile goes above the bar, unless it goes into a file.
    bar = Progress(console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty())
    task = bar.add_task("listening")

    def watch(heard: float, found: float) -> None:
        if found > LONG:
            bar.start()
        bar.update(task, completed=heard, total=found)

    try:
        yield watch
    finally:
        bar.stop()
