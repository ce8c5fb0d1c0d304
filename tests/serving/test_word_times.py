"""Word times of the server on joined clips, compared with where the speech of each clip starts and ends.

The truth is the sound: the times of the clips in the joined file are known, and in each clip speech starts and ends at
the first and the last 10 ms within 40 dB of its loudest. So it is known for the first and the last word of a clip only.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from conftest import embedded
from numpy.typing import NDArray

from finetune.data.audio import SAMPLE_RATE, load_audio

PAUSES = (0.3, 0.7, 1.5)  # seconds; each longer one starts a window
LIMIT = 0.06  # seconds


def sound(wave: NDArray[np.float32]) -> tuple[float, float]:
    """Seconds where the sound of a clip starts and ends."""
    count = len(wave) // 160
    level = 10 * np.log10(np.square(wave[: count * 160].reshape(count, 160)).mean(1) + 1e-10)
    loud = np.flatnonzero(level > level.max() - 40)
    return loud[0] / 100, (loud[-1] + 1) / 100


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[float, float]]]:
    """A recording of 16 clips at 44.1 kHz, and where the speech of each starts and ends."""
    parts, truth, at = list[NDArray[np.float32]](), list[tuple[float, float]](), 0
    for number, clip in enumerate(embedded("canary", 40)[::3] + embedded("valid", 2)):
        wave = load_audio(clip.audio_filepath)
        start, end = sound(wave)
        truth.append((at / SAMPLE_RATE + start, at / SAMPLE_RATE + end))
        parts += [wave, np.zeros(round(PAUSES[number % 3] * SAMPLE_RATE), np.float32)]
        at += sum(map(len, parts[-2:]))
    path = tmp_path_factory.mktemp("joined") / "joined.wav"
    soundfile.write(path, soxr.resample(np.concatenate(parts), SAMPLE_RATE, 44_100), 44_100)
    return path, truth


def test_word_times_are_within_60_ms_of_the_speech(server: Any, joined: tuple[Path, list[tuple[float, float]]]) -> None:
    path, truth = joined
    result = server.client().audio.transcriptions.create(
        model="nano", file=path, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert len(result.segments) > 4, "the file has several windows"
    starts, ends = list[float](), list[float]()
    for start, end in truth:
        words = [word for word in result.words if start - 0.1 < (word.start + word.end) / 2 < end + 0.1]
        assert words, f"no word from {start:.2f} to {end:.2f} s"
        starts.append(words[0].start - start)
        ends.append(words[-1].end - end)
    assert np.median(np.abs(starts)) <= LIMIT, starts
    assert np.median(np.abs(ends)) <= LIMIT, ends
