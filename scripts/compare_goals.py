#!/usr/bin/env python3
"""Trains a recipe once with each goal's preset in place of its own parts and augmentation, and prints what came out.

    python scripts/compare_goals.py recipes/quickstart.yaml --set train.epochs=4

Scores are of the valid manifest and the canary, as training itself measures them; test is not touched. Everything
else stays the recipe's own, the learning rates too, so this compares what is trained and not how well it is tuned.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from finetune.config import GOALS, AugmentSection, PartsSection, Recipe  # noqa: E402
from finetune.pipeline import run_recipe  # noqa: E402
from finetune.recipe_file import load_recipe  # noqa: E402


def with_goal(recipe: Recipe, goal: str, blocks: int) -> Recipe:
    """The recipe with a goal's preset; no more encoder blocks than `blocks`."""
    content = recipe.model_dump()
    content.update(name=f"{recipe.name}-{goal}", parts=PartsSection().model_dump(),
                   augment=AugmentSection().model_dump())
    content["train"].update(goal=goal, ctc_weight=0.0)
    for key, value in GOALS[goal].items():
        *sections, last = key.split(".")
        level = content
        for section in sections:
            level = level[section]
        level[last] = value
    content["parts"]["encoder"]["blocks"] = min(blocks, int(content["parts"]["encoder"]["blocks"]))
    return Recipe.model_validate(content)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--goals", default=",".join(GOALS), help="which of them (default: all)")
    parser.add_argument("--blocks", type=int, default=6, help="encoder blocks that the base has (default 6)")
    arguments = parser.parse_args()
    recipe, _ = load_recipe(arguments.recipe, arguments.overrides)
    print(f"{'goal':12}{'trained':>12}{'valid WER':>12}{'canary WER':>12}{'clips/s':>9}{'seconds':>9}")
    for goal in arguments.goals.split(","):
        done = run_recipe(with_goal(recipe, goal, arguments.blocks), "train").done("train") or {}
        canary = done["best_canary_wer"]
        print(f"{goal:12}{done['trained_parameters']:12,}{100 * done['best_valid_wer']:12.1f}"
              f"{'-' if canary is None else f'{100 * canary:.1f}':>12}{done['clips_per_second']:9.1f}"
              f"{done['seconds']:9.0f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
