"""`finetune score`: the WER of a model on each test set; trains nothing."""

import argparse

from finetune.cli.arguments import Subparsers, add_recipe_arguments
from finetune.core.terminal import visible


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "score",
        help="score model.base on each test set: WER, their mean, speed",
        description="Scores model.base on each corpus of data.test; trains nothing. Words on a clip with an empty "
        "reference are errors; openasr and whisper-en leave such clips out, as the leaderboard does, and their number "
        "is printed. A clip that cannot be used is an error.",
        epilog="example: finetune score recipes/openasr.yaml --set model.base=runs/my/export",
    )
    add_recipe_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Scores and prints a table. Raises the errors of `pipeline.score_recipe`."""
    from finetune.core.recipe import load_recipe

    recipe, _ = load_recipe(args.recipe, args.overrides)

    from finetune.evaluation.score import score_table
    from finetune.pipeline import score_recipe

    print(visible("\n".join(score_table(score_recipe(recipe)))))
    return 0
