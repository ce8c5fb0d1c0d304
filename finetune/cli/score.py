"""`finetune score`: the WER of a model on each test set; trains nothing."""

import argparse

from finetune.cli.arguments import Subparsers, add_array_arguments, add_recipe_arguments
from finetune.core.terminal import visible
from finetune.model.model_source import check_source


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
    add_array_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Scores and prints a table. Raises the errors of `partial_runs.score_recipe`."""
    from finetune.core.array_job import parse_shard
    from finetune.core.recipe import load_recipe

    shard = None if args.shard is None else parse_shard(args.shard)
    recipe, _ = load_recipe(args.recipe, args.overrides)
    if not args.merge:  # which loads no model
        check_source(recipe.model.base, recipe.model.revision)

    from finetune.evaluation.score import score_table
    from finetune.partial_runs import score_recipe, score_shard

    if shard is not None:
        score_shard(recipe, shard)
        return 0
    print(visible("\n".join(score_table(score_recipe(recipe, args.merge)))))
    return 0
