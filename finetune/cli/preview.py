"""`finetune preview`: writes augmented training clips, to listen to what a recipe teaches."""

import argparse
from pathlib import Path

from finetune.cli.arguments import Subparsers, add_recipe_arguments
from finetune.core.errors import RecipeError
from finetune.core.terminal import visible
from finetune.core.wording import count

CLIPS = 10


def add_parser(subparsers: Subparsers) -> None:
    text = "write training clips as WAV after augmentation, with what was done to each"
    parser = subparsers.add_parser(
        "preview",
        help=text,
        description=f"{text}; the first call also runs prepare",
        epilog="example: finetune preview recipes/noise.yaml -o preview",
    )
    add_recipe_arguments(parser)
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, help="where to write (default: preview in the run directory)"
    )
    parser.add_argument("--clips", metavar="N", type=int, default=CLIPS, help=f"number of clips (default: {CLIPS})")
    parser.add_argument("--epoch", metavar="N", type=int, default=1, help="epoch, from 1 (default: 1)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the preview. Raises the errors of `run_recipe` and of `write_preview`."""
    from finetune.core.recipe import load_recipe

    recipe, _ = load_recipe(args.recipe, args.overrides)
    if not 1 <= args.clips <= 99:
        raise RecipeError(f"--clips: must be from 1 to 99, got {args.clips}")
    if not 1 <= args.epoch <= recipe.train.epochs:
        raise RecipeError(f"--epoch: must be from 1 to train.epochs ({recipe.train.epochs}), got {args.epoch}")

    from finetune.pipeline import run_recipe
    from finetune.training.preview import format_preview, write_preview

    run_dir = run_recipe(recipe, "prepare")
    folder = args.output or run_dir.root / "preview"
    rows = write_preview(recipe, run_dir, folder, args.clips, args.epoch - 1)
    print(visible("\n".join([*format_preview(rows), f"{count(len(rows), 'clip')} in {folder}"])))
    return 0
