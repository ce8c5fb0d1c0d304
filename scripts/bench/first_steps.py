"""Trains the first steps of a run directory, and prints a line after each step. Runs with older versions of the code.

    python first_steps.py RECIPE.json RUN [--steps N] [--go-to STEP]

With `--go-to`, the last step writes a checkpoint whose state says that STEP steps are done, so that the next call
resumes there.
"""

import argparse
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

from finetune.core.config import Recipe
from finetune.core.run_dir import RunDir
from finetune.training.callbacks import StepRecord, TrainerCallback
from finetune.training.selection import Scores
from finetune.training.trainer import Trainer


class Report(TrainerCallback):
    """Prints a line for each step; ends the process after some steps."""

    def __init__(self, steps: int, go_to: int) -> None:
        self.steps, self.go_to, self.done = steps, go_to, 0
        self.trainer: Any = None

    def on_step(self, record: StepRecord) -> None:
        self.done += 1
        print(f"step {record.step}", flush=True)
        if self.done < self.steps:
            return
        if self.go_to:
            state = self.trainer.state
            state.step = remaining = self.go_to
            for epoch, steps in enumerate(steps_of_epochs(self.trainer)):
                if remaining < steps:
                    state.epoch, state.steps_in_epoch = epoch, remaining
                    break
                remaining -= steps
            self.trainer.save()
        for worker in multiprocessing.active_children():
            worker.kill()
        os._exit(0)


def steps_of_epochs(trainer: Any) -> list[int]:
    if hasattr(trainer, "plans"):  # before commit 4db1627
        return [len(plan) for plan in trainer.plans]
    context = getattr(trainer, "context", trainer)  # older versions have no context
    steps: list[int] = context.corpus.outline(context.batch_seconds, context.group).steps
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--go-to", type=int, default=0)
    args = parser.parse_args()
    report = Report(args.steps, args.go_to)
    recipe = Recipe.model_validate(json.loads(args.recipe.read_text()))
    report.trainer = Trainer(recipe, RunDir(args.run), [report], measure=lambda *_: Scores(1.0, None))
    print("ready", flush=True)
    report.trainer.fit()
    sys.exit("the training ended before these steps")


if __name__ == "__main__":
    main()
