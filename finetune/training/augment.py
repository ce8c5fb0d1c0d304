"""Augments waveforms and features; the random numbers depend only on seed, epoch and utterance id."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import soxr
from torch import Tensor

from finetune.data.audio import SAMPLE_RATE


@dataclass(frozen=True)
class WaveAugment:
    """Ranges of the augmentation; 0 means off.

    Attributes:
        speed: largest change, a fraction.
        gain_db: largest change, in dB.
        noise_db: lowest signal-to-noise ratio, in dB.
    """

    speed: float
    gain_db: float
    noise_db: float


@dataclass(frozen=True)
class Applied:
    """An effect on a clip and its values, as `finetune preview` shows them."""

    effect: str
    details: Mapping[str, str | float]


def sample_rng(seed: int, epoch: int, utterance_id: str) -> np.random.Generator:
    """A random generator for an utterance, the same on any worker and rank and in any order."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{utterance_id}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def change_speed(wave: np.ndarray, ranges: WaveAugment, rng: np.random.Generator, applied: list[Applied]) -> np.ndarray:
    """Changes speed, with pitch: (N,) float32 -> (N',) float32. What was done is appended to `applied`."""
    if ranges.speed:
        factor = float(rng.uniform(1.0 - ranges.speed, 1.0 + ranges.speed))
        wave = soxr.resample(wave, SAMPLE_RATE * factor, SAMPLE_RATE).astype(np.float32)
        applied.append(Applied("speed", {"factor": round(factor, 3)}))
    return wave


def change_level(wave: np.ndarray, ranges: WaveAugment, rng: np.random.Generator, applied: list[Applied]) -> np.ndarray:
    """Adds white noise and changes the gain: (N,) float32 -> (N,). What was done is appended to `applied`."""
    if ranges.noise_db and rng.random() < 0.5:
        ratio = rng.uniform(ranges.noise_db, ranges.noise_db + 30.0)
        level = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) * 10.0 ** (-ratio / 20.0)
        wave = wave + (level * rng.standard_normal(len(wave))).astype(np.float32)
        applied.append(Applied("white noise", {"snr_db": round(float(ratio), 1)}))
    if ranges.gain_db:
        gain = rng.uniform(-ranges.gain_db, ranges.gain_db)
        wave = wave * np.float32(10.0 ** (gain / 20.0))
        applied.append(Applied("gain", {"db": round(float(gain), 1)}))
    return wave


def mask_features(features: Tensor, mel_mask: int, time_mask: int, rng: np.random.Generator) -> Tensor:
    """SpecAugment (arXiv 1904.08779): two masks over mels and two over frames of (T, 160), filled with the mean.

    A time mask covers at most an eighth of the clip.
    """
    mean, mels = features.mean(), features.clone().view(len(features), 2, -1)
    for _ in range(2):
        if mel_mask:
            width = int(rng.integers(0, mel_mask + 1))
            start = int(rng.integers(0, mels.shape[2] - width + 1))
            mels[:, :, start : start + width] = mean
        if time_mask:
            width = int(rng.integers(0, min(time_mask, len(features) // 8) + 1))
            start = int(rng.integers(0, len(features) - width + 1))
            mels[start : start + width] = mean
    return mels.view(len(features), -1)
