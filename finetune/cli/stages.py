"""`finetune prepare`, `train`, `evaluate`, `export` and `run`: the stages of a recipe, up to the named stage."""

import argparse

from finetune.cli.arguments import Subparsers, add_recipe_arguments
from finetune.core.terminal import visible

HELP = {
    "prepare": "read and audit the corpora, write manifests",
    "train": "prepare, then fine-tune the model and keep the best adapter",
    "evaluate": "train, then score the base and the adapted model on test and canary, and write the report",
    "export": "evaluate, then merge the adapter, save the model in hub layout and verify it",
    "run": "run all stages and print a summary; completed stages are skipped",
}
LAST_STAGE = {"prepare": "prepare", "train": "train", "evaluate": "report", "export": "export", "run": "export"}


def add_parser(subparsers: Subparsers) -> None:
    for name, text in HELP.items():
        example = f"example: finetune {name} recipes/quickstart.yaml --set train.epochs=2"
        parser = subparsers.add_parser(name, help=text, description=text, epilog=example)
        add_recipe_arguments(parser)
        parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the stages. Raises the errors of `pipeline.run_recipe` and of the stages."""
    from finetune.core.recipe import load_recipe
    from finetune.core.run_dir import damage_is_an_error

    recipe, _ = load_recipe(args.recipe, args.overrides)

    from finetune.pipeline import run_recipe, summarize
    from finetune.report.summary import format_summary

    run_dir = run_recipe(recipe, LAST_STAGE[args.command])
    if args.command == "run":
        with damage_is_an_error(run_dir.root, "delete the markers (*.done.json), then rerun"):
            print(visible(format_summary(run_dir, summarize(run_dir))))
    return 0
