"""The typical duration of the training clips, which extends the limit of the base model."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.core.run_dir import RunDir
from finetune.training.corpus import manifests_of, typical_duration


@pytest.mark.parametrize(
    ("durations", "expected"),
    [
        ([2.0], 2.0),
        ([1.0] * 30 + [20.0], 1.0),  # a single long clip does not count
        ([1.0] * 18 + [20.0], 20.0),
        ([1.0, 2.0, 3.0], 2.0),  # exactly half of the audio
        ([float(second) for second in range(1, 101)], 71.0),
        ([3.14159], 3.14),
    ],
)
def test_half_of_the_audio_is_in_clips_of_at_most_the_typical_duration(durations: list[float], expected: float) -> None:
    assert typical_duration([random.Random(0).sample(durations, len(durations))]) == expected


def test_a_deleted_manifest_is_named_with_what_prepares_it_again(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train.jsonl: missing; delete .*prepare.done.json and rerun"):
        manifests_of(tiny(tmp_path, "x"), RunDir(tmp_path / "x"))
