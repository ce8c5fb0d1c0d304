"""`finetune check`: prints model, data, the plan of the training, hints and settings; trains nothing."""

import argparse
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from finetune.cli.arguments import Subparsers, add_recipe_arguments
from finetune.core.terminal import visible

if TYPE_CHECKING:
    from finetune.core.recipe import Setting

DESCRIPTION = (
    "Prints what would be trained, the data, and a plan: steps, padding, time, memory, disk, leaks between splits, and "
    "hints; then the settings with their origins. What a stage would refuse, and what can be known without decoding "
    "audio, is an error."
)


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "check",
        help="print trainable parts, data, and a plan: steps, time, memory, disk, leaks, hints, settings",
        description=DESCRIPTION,
        epilog="example: finetune check recipes/quickstart.yaml --measure",
    )
    add_recipe_arguments(parser)
    parser.add_argument(
        "--measure", action="store_true", help="load the model and time a few training steps; nothing is saved"
    )
    parser.add_argument("--settings", action="store_true", help="list every setting, not only those that differ")
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
        changed = None if args.settings else _changed_keys(settings)
        lines = format_check(result, recipe.train.batch_seconds, recipe.train.batch_tokens, changed)
        print(visible("\n".join(lines)))
        if not recipe.data.train:
            print("\ndata.train is empty: this recipe is for `finetune score`")
    require_no_problems(result)
    return 0


def _changed_keys(settings: "Iterable[Setting]") -> set[str]:
    """The keys of the settings that differ from their default, or have none."""
    from finetune.core.config import Recipe
    from finetune.core.defaults import WITHOUT_DEFAULT
    from finetune.core.recipe import get_setting

    default = Recipe.model_validate(WITHOUT_DEFAULT)
    return {item.key for item in settings if item.value != get_setting(default, item.key)}
