"""`finetune curve`: the WER by amount of training data, and what more data would bring."""

import argparse
import logging

from finetune.cli.arguments import Subparsers, add_options, add_recipe_arguments, chosen_options
from finetune.core.curation_options import CurveOptions
from finetune.core.errors import MissingExtraError
from finetune.core.options import choices
from finetune.core.terminal import visible

log = logging.getLogger(__name__)


def add_parser(subparsers: Subparsers) -> None:
    text = "train on parts of the training data, show the WER of each, and extrapolate it to more data"
    parser = subparsers.add_parser(
        "curve",
        help=text,
        description=f"{text[0].upper()}{text[1:]} (docs/curation.md). Each part is a run below RUN_DIR/curve; rerun to "
        "resume. The whole data is the run of the recipe itself, which `finetune run` completes.",
        epilog="example: finetune curve recipes/quickstart.yaml --shares 25,50,100",
    )
    add_recipe_arguments(parser)
    defaults = CurveOptions()
    shown = ",".join(f"{share:g}" for share in defaults.shares)
    parser.add_argument(
        "--shares", type=_shares, metavar="P,P,...", help=f"parts, in per cent of the audio (default: {shown})"
    )
    for name, what in (
        ("split", "the set that is scored"),
        ("by", "parts of whole speakers or of clips; auto: speakers if there are 20"),
        ("same", "what all trainings have in common"),
    ):
        help_text = f"{what} (default: {getattr(defaults, name)})"
        parser.add_argument(f"--{name}", choices=choices(CurveOptions, name), help=help_text)
    add_options(parser, defaults, ("repeats", "N", "trainings of each part"))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains, scores and prints the curve. Raises the errors of `learning_curve` and of the stages."""
    options = chosen_options(args, CurveOptions)

    from finetune.core.recipe import load_recipe

    recipe, _ = load_recipe(args.recipe, args.overrides)

    from finetune.core.extras import require
    from finetune.core.files import write_text
    from finetune.learning_curve import learning_curve
    from finetune.pipeline import run_recipe
    from finetune.planning.fits import check_training
    from finetune.report.curve_text import curve_text

    result, files = learning_curve(recipe, options, lambda part: run_recipe(part, "train", check=check_training))
    print(visible("\n".join([*curve_text(result), f"result: {files.result}"])))
    try:
        require("matplotlib", extra="report")
    except MissingExtraError as error:
        log.warning("%s: skipped: %s", files.page, error)
        return 0
    from finetune.report.curve_page import curve_page

    write_text(files.page, curve_page(result))
    print(visible(f"chart: {files.page}"))
    return 0


def _shares(text: str) -> tuple[float, ...]:
    """`10,25,100` as numbers. Raises ArgumentTypeError for another form."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers, such as 10,25,50,100") from error
