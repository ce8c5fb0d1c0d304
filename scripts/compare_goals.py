#!/usr/bin/env python3
"""Trains a recipe unchanged and with the preset of each goal, and prints the scores.

    python scripts/compare_goals.py recipes/quickstart.yaml --set train.epochs=4

A preset replaces the recipe's parts and augmentation. Other settings are those of the recipe, including the learning
rates of `train`, so this compares the trained parts, not tuned settings. The scores are those of training, on valid and
canary; test is not used. Rerun to resume.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from finetune.core.config import AugmentSection, PartsSection, Recipe  # noqa: E402
from finetune.core.contradictions import contradictions  # noqa: E402
from finetune.core.goals import GOALS  # noqa: E402
from finetune.core.recipe import load_recipe  # noqa: E402
from finetune.model.model_config import read_config  # noqa: E402
from finetune.pipeline import run_recipe  # noqa: E402

OWN = "own"  # the unchanged recipe


def with_goal(recipe: Recipe, goal: str, blocks: int) -> Recipe:
    """The recipe with a goal's preset, with at most as many encoder blocks as the base has."""
    content = recipe.model_dump()
    content["name"] = f"{recipe.name}-{goal}"
    if goal != OWN:
        content.update(parts=PartsSection().model_dump(), augment=AugmentSection().model_dump())
        content["train"].update(goal=goal, ctc_weight=0.0)
        for key, value in GOALS[goal].items():
            *sections, last = key.split(".")
            level = content
            for section in sections:
                level = level[section]
            level[last] = value
        encoder = content["parts"]["encoder"]
        encoder["blocks"] = blocks if encoder["blocks"] == "all" else min(blocks, int(encoder["blocks"]))
    result = Recipe.model_validate(content)
    if problems := contradictions(result):
        sys.exit(f"{goal}: {problems[0][0]}: {problems[0][1]}")
    return result


def line(name: str, trained: int, valid: float, canary: float | None, details: str) -> str:
    canary_wer = "-" if canary is None else f"{100 * canary:.1f}"
    return f"{name:12}{trained:12,}{100 * valid:12.1f}{canary_wer:>12}{details}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--goals", default=",".join([OWN, *GOALS]), help="goals to train, and `own` (default: all)")
    arguments = parser.parse_args()
    recipe, _ = load_recipe(arguments.recipe, arguments.overrides)
    blocks = int(read_config(recipe.model.base, recipe.model.revision).encoder_config.num_layers)
    goals = arguments.goals.split(",")
    if unknown := set(goals) - {OWN, *GOALS}:
        parser.error(f"--goals: unknown goal {', '.join(sorted(unknown))}; choose from {OWN}, {', '.join(GOALS)}")
    print(f"{'':12}{'trained':>12}{'valid WER':>12}{'canary WER':>12}{'epoch':>7}{'clips/s':>9}{'seconds':>9}")
    for goal in goals:
        done = run_recipe(with_goal(recipe, goal, blocks), "train").done("train") or {}
        if goal == goals[0]:
            print(line("base", 0, done["base_valid_wer"], done["base_canary_wer"], ""))
        print(
            line(
                goal,
                done["trained_parameters"],
                done["best_valid_wer"],
                done["best_canary_wer"],
                f"{done['best_epoch']:7}{done['clips_per_second']:9.1f}{done['seconds']:9.0f}",
            ),
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
