"""`finetune check`: prints settings, model, data, the plan of the training and hints; trains nothing."""

import argparse
import json
from typing import Any

from finetune.cli.arguments import Subparsers, add_recipe_arguments
from finetune.core.terminal import visible

DESCRIPTION = (
    "Prints each setting with its origin, what would be trained, the data, and a plan: steps, padding, time, memory, "
    "disk, leaks between splits, and hints. What a stage would refuse, and what can be known without decoding audio, "
    "is an error."
)


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "check",
        help="print settings, trainable parts, data, and a plan: steps, time, memory, disk, leaks, hints",
        description=DESCRIPTION,
        epilog="example: finetune check recipes/quickstart.yaml --measure",
    )
    add_recipe_arguments(parser)
    parser.add_argument(
        "--measure", action="store_true", help="load the model and time a few training steps; nothing is saved"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object (docs/schemas/check.schema.json)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the check.

    Raises:
        RecipeError: the recipe is invalid.
        DataError: a stage would fail; the message has each reason. What augmentation needs is checked first.
    """
    from finetune.core.recipe import load_recipe
    from finetune.data.effects.sources import check_augmentation

    recipe, settings = load_recipe(args.recipe, args.overrides)
    check_augmentation(recipe.augment)

    from pydantic import TypeAdapter

    from finetune.planning.check import check_recipe, require_no_problems
    from finetune.planning.measure import measure_time
    from finetune.planning.result import CheckResult
    from finetune.planning.text import format_check

    result = check_recipe(recipe, settings, measure_time if args.measure else None)
    if args.json:
        content: Any = TypeAdapter(CheckResult).dump_python(result, mode="json")
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        print(visible("\n".join(format_check(result, recipe.train.batch_seconds, recipe.train.batch_tokens))))
        if not recipe.data.train:
            print("\ndata.train is empty: this recipe is for `finetune score`")
    require_no_problems(result)
    return 0
