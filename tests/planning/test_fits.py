"""A step that cannot fit is refused with its arithmetic and the settings that need less."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.planning.fits import cannot_fit, check_fits
from finetune.planning.memory import LessMemory, MemoryPlan

GB = 10**9
LESS = [LessMemory("train.optimizer: adamw-8bit", 23 * GB, 28 * GB)]
PLAN = MemoryPlan("cuda", "bfloat16", 2 * GB, 8 * GB, 8 * GB, 16 * GB, 5 * GB, GB, 0, 41 * GB, 49 * GB, None, LESS)
FULL: dict[str, object] = {"lora": {"rank": 0}, "language_model": {"layers": "all"}, "encoder": {"mode": "full"}}


def test_the_sum_and_the_settings_that_need_less_are_named(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = tiny(tmp_path, "x", parts=FULL)
    with pytest.raises(DataError) as caught:
        check_fits(replace(PLAN, available=40 * GB), recipe)
    first, *settings = str(caught.value).split("\n")
    parts = ["2.0 GB frozen weights", "8.0 GB trained weights", "8.0 GB gradients", "16.0 GB optimizer"]
    total = " + ".join([*parts, "6.0 GB activations", "1.0 GB libraries"])
    assert f"at least 41.0 GB ({total}), and 40.0 GB are here" in first
    assert settings == [
        "  train.optimizer: adamw-8bit: 23.0 GB to 28.0 GB",
        "  LoRA: parts.language_model.layers: 0, parts.lora.rank: 16, parts.encoder.mode: lora",
        "  train.batch: auto, or a smaller train.batch_seconds",
    ]


def test_what_could_fit_is_not_refused(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe, auto = tiny(tmp_path, "x", parts=FULL), tiny(tmp_path, "x", parts=FULL, batch="auto")
    check_fits(PLAN, recipe)  # no such card here
    check_fits(replace(PLAN, available=41 * GB), recipe)
    check_fits(replace(PLAN, available=35 * GB), auto)
    assert cannot_fit(replace(PLAN, available=34 * GB), auto)
    with pytest.raises(DataError, match="35.0 GB .*optimizer . 1.0 GB libraries"):
        check_fits(replace(PLAN, available=34 * GB), auto)
