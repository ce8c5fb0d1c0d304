"""Time of a training: from steps that `--measure` has run, or from an earlier run with the same base and parts."""

import math
from dataclasses import dataclass
from pathlib import Path

from finetune.core.config import Recipe
from finetune.core.files import read_json


@dataclass(frozen=True)
class TimePlan:
    """Seconds, None if they are not known.

    Attributes:
        steps: of all optimizer steps.
        validation: of all validations, and of the base's scores before training.
        source: where the figures come from.
    """

    steps: float | None
    validation: float | None
    source: str


def validations(recipe: Recipe) -> int:
    """How often valid and canary are decoded: the base, the epochs, and the interpolated weights."""
    settings = recipe.train
    return 1 + math.ceil(settings.epochs / settings.evaluate_every) + len(settings.interpolate)


def time_from_runs(recipe: Recipe, clips: int) -> TimePlan:
    """The time of all steps, from the speed of the newest finished run with the same base and parts.

    Args:
        recipe: the recipe.
        clips: number of clips in all epochs.
    """
    settings = recipe.model_dump(mode="json", include={"model", "parts"}, exclude_none=True)
    runs = sorted(Path(recipe.runs).glob("*/train.done.json"), key=lambda path: -path.stat().st_mtime)
    for done in runs:
        try:
            speed = float(read_json(done)["clips_per_second"])
            other = read_json(done.with_name("resolved.json"))
            same = all(other[name] == value for name, value in settings.items())
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if same and 0 < speed < math.inf:
            return TimePlan(clips / speed, None, f"{speed:g} clips/s in {done.parent}")
    return TimePlan(None, None, "no run with this base and these parts has finished here; --measure runs a few steps")
