"""The windows of a recording give each frame once, the same for any blocks, and close to the recording in one piece."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from finetune.curation.posteriors import (
    CONTEXT_FRAMES,
    FLOOR,
    FRAME_SAMPLES,
    WINDOW_FRAMES,
    _levels,
    _windows,
    read_posteriors,
)
from finetune.data.audio import MIN_SAMPLES, load_audio
from finetune.data.features import num_frames
from finetune.model.granite import SpeechModel


@pytest.mark.parametrize("extra", [-1, 0, 1, MIN_SAMPLES - 1, MIN_SAMPLES, MIN_SAMPLES + 1, 200_000])
@pytest.mark.parametrize("block", [4001, 100_000, 10_000_000])
def test_windows_have_each_frame_once(extra: int, block: int) -> None:
    samples = np.arange((2 * WINDOW_FRAMES + CONTEXT_FRAMES) * FRAME_SAMPLES + extra, dtype=np.float32)
    windows = list(_windows(samples[at : at + block] for at in range(0, len(samples), block)))
    assert sum(window.last - window.first for window in windows) == num_frames(len(samples))
    frame = 0
    for window in windows:
        assert window.samples[window.first * FRAME_SAMPLES] == frame * FRAME_SAMPLES
        assert window.first == (CONTEXT_FRAMES if frame else 0)
        frame += window.last - window.first
        after = num_frames(len(window.samples)) - window.last
        assert after == (CONTEXT_FRAMES if window is not windows[-1] else 0)


def test_levels_are_those_of_the_frames() -> None:
    samples = np.concatenate([np.full(320, 0.1), np.zeros(320), np.full(160, 1.0)]).astype(np.float32)
    assert _levels(samples) == pytest.approx([-20, -100, -3], abs=0.05)


def test_posteriors_do_not_depend_on_blocks_or_batches(
    model: Callable[[], SpeechModel], recording_27_s: NDArray[np.float32]
) -> None:
    labels = {ord(char) for char in "etaoin"}
    one = read_posteriors(model(), [recording_27_s], labels, batch_seconds=1)
    other = read_posteriors(model(), np.array_split(recording_27_s, 7), labels, batch_seconds=240)
    assert one.scores.shape == (num_frames(len(recording_27_s)), 8) and sorted(one.columns) == [0, 32, *sorted(labels)]
    assert np.array_equal(one.speech > 0.5, other.speech > 0.5) and np.array_equal(one.levels, other.levels)
    assert np.abs(one.scores - other.scores).max() < 0.1
    assert one.scores.max() == 0 and one.scores.min() >= -FLOOR and len(one.levels) == len(one.scores)


@pytest.fixture
def recording_27_s() -> NDArray[np.float32]:
    from conftest import embedded

    waves = [load_audio(item.audio_filepath) for item in embedded("canary", 30)]
    return np.concatenate(waves)[: 27 * 16000 + 123]
