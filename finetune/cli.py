"""The `finetune` command. Nothing heavy is imported before a subcommand is known.

Exit codes: 0 done, 1 failed, 2 wrong usage (arguments or recipe), 128 and the signal's number when stopped.
"""

import argparse
import logging
import os
import sys
import warnings
from pathlib import Path

from finetune import __version__
from finetune.errors import DataError, FinetuneError, Interrupted, RecipeError
from finetune.runs import CHILD

STAGES = {
    "prepare": "read and audit the corpora, write manifests",
    "train": "prepare, then adapt the model and keep the best adapter",
    "evaluate": "... then score base and adapted model on test and canary",
    "export": "... then merge, save in hub layout and check the export",
    "run": "all stages and a summary; what is done already is skipped",
}
FORMATS = ("text", "json", "srt")


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    first = os.environ.get("RANK", "0") == "0"  # of several processes one speaks, unless it is of an error
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(message)s", stream=sys.stdout)
    for noisy in ("httpx", "huggingface_hub", "transformers", "accelerate", "datasets"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries about each other; no user can heed them
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "check":
            return _check(arguments)
        if arguments.command == "transcribe":
            return _transcribe(arguments)
        return _stage(arguments)
    except RecipeError as error:
        print(f"finetune: {error}", file=sys.stderr)
        return 2
    except Interrupted as error:
        if first and CHILD not in os.environ:  # the process that has started this one says it
            print(f"finetune: {error}", file=sys.stderr)
        return 128 + error.signum
    except FinetuneError as error:
        print(f"finetune: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("finetune: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="finetune", description="Adapt IBM Granite Speech to your words, voices and channels.",
        epilog="example: finetune run recipes/quickstart.yaml --set train.epochs=2")
    parser.add_argument("--version", action="version", version=f"finetune {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="print every setting with its origin, and what would be trained",
                                epilog="example: finetune check recipes/quickstart.yaml")
    _recipe_arguments(check)
    for name, text in STAGES.items():
        stage = commands.add_parser(name, help=text, description=text,
                                    epilog=f"example: finetune {name} recipes/quickstart.yaml --set train.epochs=2")
        _recipe_arguments(stage)
    transcribe = commands.add_parser(
        "transcribe", help="audio files to text with a base or exported model",
        epilog="example: finetune transcribe call.wav --model runs/quickstart/export --format srt")
    transcribe.add_argument("files", nargs="+", metavar="FILE")
    transcribe.add_argument("--model", required=True, metavar="DIR", help="exported folder, base model or hub name")
    transcribe.add_argument("--format", choices=FORMATS, help="text (default), json (one object a line) or srt")
    transcribe.add_argument("--output", metavar="DIR", help="write one file for each input instead of printing")
    transcribe.add_argument("--decoder", choices=("greedy", "speculative"),
                            help="speculative drafts with the CTC head; both write the same tokens")
    transcribe.add_argument("--keywords", metavar="A,B", help="words to expect, put into the prompt")
    transcribe.add_argument("--batch-seconds", type=float, metavar="S", help="padded audio decoded at once")
    transcribe.add_argument("--max-new-tokens", type=int, metavar="N", help="for each window of audio")
    return parser


def _recipe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file; see recipes/")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="override a setting, such as train.learning_rate=1e-4; may be repeated")


def _check(arguments: argparse.Namespace) -> int:
    from finetune.recipe_file import load_recipe

    recipe, settings = load_recipe(arguments.recipe, arguments.overrides)
    width = max(len(setting.key) for setting in settings)
    for setting in settings:
        print(f"{setting.key:{width}}  {setting.value!s:48} {setting.origin}")
    from finetune.model.outline import outline
    from finetune.train import parts_of

    print()
    for line in outline(recipe.model.base, recipe.model.revision, parts_of(recipe)):
        print(line)
    return 0


def _stage(arguments: argparse.Namespace) -> int:
    from finetune.recipe_file import load_recipe

    recipe, _ = load_recipe(arguments.recipe, arguments.overrides)
    from finetune.pipeline import run_recipe, summarize
    from finetune.summary import newcomer_table

    whole = arguments.command == "run"
    run = run_recipe(recipe, "export" if whole else arguments.command)
    if whole:
        print(newcomer_table(run, summarize(run)))
    return 0


def _transcribe(arguments: argparse.Namespace) -> int:
    from pydantic import ValidationError

    from finetune.config import DataSection, DecodeSection, ModelSection

    # Defaults and ranges of the recipe's fields; this command has no recipe.
    given = {name: getattr(arguments, name) for name in ("decoder", "batch_seconds", "max_new_tokens")}
    try:
        decode = DecodeSection.model_validate({key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        problem = error.errors()[0]
        raise RecipeError(f"--{str(problem['loc'][0]).replace('_', '-')}: {problem['msg']}") from error
    longest = float(DataSection.model_fields["max_duration"].default)
    missing = [path for path in arguments.files if not Path(path).exists()]
    if len(missing) == len(arguments.files):
        raise DataError("\n".join(f"{path}: no such file" for path in missing))
    from finetune.decoding.recognize import DecodeOptions
    from finetune.transcribe import output_path, render_transcript, transcribe

    options = DecodeOptions(ModelSection().instruction, decode.decoder == "speculative", decode.batch_seconds,
                            decode.max_new_tokens)
    keywords = tuple(word.strip() for word in (arguments.keywords or "").split(",") if word.strip())
    form, bad, done = arguments.format or FORMATS[0], [], []
    if arguments.output:
        sources: dict[Path, str] = {}
        for path in arguments.files:
            target = output_path(path, form, Path(arguments.output))
            if sources.setdefault(target, path) != path:
                raise DataError(f"{path}: {target} is already the output of {sources[target]}; rename one of them")

    def failed(path: str, error: DataError) -> None:
        bad.append(path)
        print(f"finetune: {error}", file=sys.stderr)

    for item in transcribe(arguments.files, arguments.model, options, longest, keywords, failed):
        done.append(item)
        text = render_transcript(item, form)
        if arguments.output:
            target = output_path(item.path, form, Path(arguments.output))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text + "\n", encoding="utf-8")
            print(f"{item.path} -> {target}")
        else:
            print(f"{item.path}: {text}" if form == "text" and len(arguments.files) > 1 else text)
        if item.truncated:
            print(f"finetune: {item.path}: cut at --max-new-tokens {options.max_new_tokens}", file=sys.stderr)
    if done:
        audio, seconds = sum(item.duration for item in done), sum(item.seconds for item in done)
        accepted = [item.acceptance for item in done if item.acceptance is not None]
        share = f", {100 * sum(accepted) / len(accepted):.0f} % of the draft accepted" if accepted else ""
        print(f"{audio:.1f} s of audio in {seconds:.1f} s (real-time factor {seconds / audio:.3f}{share})",
              file=sys.stderr)
    return 1 if bad else 0
