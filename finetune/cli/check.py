"""`finetune check`: prints each setting with its origin, the trainable parts and the corpora; trains nothing."""

import argparse

from finetune.cli.arguments import Subparsers, add_recipe_arguments
from finetune.core.errors import DataError, MissingExtraError, ModelError, RecipeError
from finetune.core.terminal import visible


def add_parser(subparsers: Subparsers) -> None:
    text = "print each setting with its origin, what would be trained, the data, steps and time"
    parser = subparsers.add_parser(
        "check", help=text, description=text, epilog="example: finetune check recipes/quickstart.yaml"
    )
    add_recipe_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the resolved recipe, then the model, the data and the training.

    Raises:
        RecipeError: the recipe is invalid.
        DataError: the model or a corpus cannot be read, or training would fail; the message has each reason.
    """
    from finetune.core.recipe import load_recipe

    recipe, settings = load_recipe(args.recipe, args.overrides)
    width = max(len(setting.key) for setting in settings)
    for setting in settings:
        print(f"{setting.key:{width}}  {setting.value!s:48} {setting.origin}")

    from finetune.data.corpus_preview import preview_corpora
    from finetune.model.model_summary import summarize_model
    from finetune.training.parts import trainable_parts
    from finetune.training.preview import preview_training

    print()
    problems = []
    try:
        if recipe.data.train:
            print("\n".join(summarize_model(recipe.model.base, recipe.model.revision, trainable_parts(recipe))))
        else:
            print("data.train is empty: this recipe is for `finetune score`")
    except ModelError as error:
        problems.append(str(error))
    print("\ndata:")
    try:
        for line in preview_corpora(recipe):
            print(visible(line))
    except DataError as error:
        problems.append(str(error))
    if recipe.data.train and not problems:
        try:
            lines = preview_training(recipe)
            print("\ntraining:", *map(visible, lines), sep="\n")
        except (RecipeError, ModelError, DataError, MissingExtraError) as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    return 0
