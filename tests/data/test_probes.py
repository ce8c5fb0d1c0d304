"""Probes without speech, and the estimates of bandwidth and signal-to-noise ratio."""

from pathlib import Path

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

from finetune.data.acoustics import bandwidth, snr
from finetune.data.audio import load_audio
from finetune.data.probes import SECONDS, write_probes

RATE = 16_000


def test_probes_depend_only_on_the_seed(tmp_path: Path) -> None:
    first, again, other = (write_probes(tmp_path / name, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    waves = [[load_audio(item.audio_filepath) for item in items] for items in (first, again, other)]
    assert len({item.id for item in first}) == len(first) == 8 and all(item.text == "" for item in first)
    assert all(len(wave) == SECONDS * RATE and np.abs(wave).max() <= 1 for wave in waves[0])
    assert all(map(np.array_equal, waves[0], waves[1])) and not all(map(np.array_equal, waves[0], waves[2]))
    assert [item.id for item, wave in zip(first, waves[0], strict=True) if not wave.any()] == ["silence"]


def noise(seconds: float, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)


def test_bandwidth_of_telephone_speech_after_resampling() -> None:
    wide = noise(2, 0)
    narrow = soxr.resample(soxr.resample(wide, RATE, 8000), 8000, RATE).astype(np.float32)
    assert bandwidth(wide) > 7500
    assert 3600 < bandwidth(narrow) < 4300
    assert bandwidth(np.zeros(RATE, np.float32)) == 0


def test_short_fricatives_count_for_the_bandwidth() -> None:
    voice = soxr.resample(noise(3, 0)[::8], 2000, RATE).astype(np.float32)
    with_fricatives = voice.copy()
    with_fricatives[: len(voice) // 10] += 0.05 * noise(3, 1)[: len(voice) // 10]
    assert bandwidth(voice) < 1500 < 7000 < bandwidth(with_fricatives)


@pytest.mark.parametrize("seed", range(3))
def test_a_weak_tone_does_not_change_the_bandwidth(seed: int) -> None:
    """A tone in one bin is 47 dB below the voice, smoothed over five bins 52 dB: too weak. With 6 dB more it counts."""
    voice = soxr.resample(noise(3, seed)[::8], 2000, RATE).astype(np.float32)
    tone = 2.7e-4 * np.sin(2 * np.pi * 6000 * np.arange(len(voice)) / RATE).astype(np.float32)
    assert bandwidth(voice + tone) == bandwidth(voice) < 1500
    assert 6000 <= bandwidth(voice + 2 * tone) < 6100


@pytest.mark.parametrize("decibels", [5, 15, 30])
def test_snr_of_bursts_over_noise(decibels: int) -> None:
    count = 4 * RATE
    speech = noise(4, 3) * (np.arange(count) // (RATE // 2) % 2)  # half a second on, half a second off
    mixed = speech + noise(4, 4) * 10 ** (-decibels / 20)
    assert snr(mixed.astype(np.float32)) == pytest.approx(decibels, abs=3)


def test_snr_has_bounds() -> None:
    assert snr(np.zeros(RATE, np.float32)) == -10
    assert snr(noise(2, 5) * (np.arange(2 * RATE) > RATE)) == 60
