"""Windows over long audio, and subtitles."""

from itertools import pairwise

import numpy as np
import pytest

from finetune.decoding.longform import Segment, cut, srt

RATE = 16_000


def speech(seconds: float, pauses: list[float]) -> np.ndarray:
    """Noise with a quiet half second around each of `pauses`."""
    wave = np.random.default_rng(0).standard_normal(int(seconds * RATE)).astype(np.float32)
    for pause in pauses:
        wave[int((pause - 0.25) * RATE) : int((pause + 0.25) * RATE)] *= 0.001
    return wave


@pytest.mark.parametrize("seconds", [0.5, 29.9, 30.0, 30.1, 95.0])
def test_windows_cover_everything_once_and_none_is_too_long(seconds: float) -> None:
    windows = cut(speech(seconds, []), RATE, 30.0)
    assert windows[0][0] == 0.0
    assert windows[-1][1] == pytest.approx(seconds)
    assert all(a[1] == b[0] for a, b in pairwise(windows))
    assert all(0 < end - start <= 30.0 for start, end in windows)


def test_a_window_ends_in_a_pause() -> None:
    windows = cut(speech(50.0, [26.5, 40.0]), RATE, 30.0)
    assert len(windows) == 2
    assert windows[0][1] == pytest.approx(26.5, abs=0.3)


def test_srt_numbers_only_cues_with_text_and_counts_hours() -> None:
    text = srt([Segment(0.0, 1.5, "hello"), Segment(1.5, 2.0, ""), Segment(3661.0004, 3725.9996, "late")])
    assert text == "1\n00:00:00,000 --> 00:00:01,500\nhello\n\n2\n01:01:01,000 --> 01:02:06,000\nlate\n"
