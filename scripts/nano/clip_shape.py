"""Synthetic audio as a clip of the corpus: level, silence at both ends, and what is wrong with it."""

import math

import numpy as np
import soxr
from numpy.typing import NDArray

from finetune.curation.clip_audio import LEVEL, PEAK
from finetune.curation.voices.voice import Sound
from finetune.data.audio import SAMPLE_RATE

EDGES = (0.05, 0.4)  # seconds of silence at each end
FULL_SCALE, MAX_CLIPPED = 0.999, 1e-3  # share of the samples
MAX_SECONDS = 25.0
FASTEST = {"ja": 17.0}  # characters a second; kana are syllables
SLOWEST = {"ja": 2.0}
DEFAULT_FASTEST, DEFAULT_SLOWEST = 32.0, 4.0
SLACK = 2.0  # seconds that a short text may take longer


def to_wave(sound: Sound) -> NDArray[np.float32]:
    """Samples (N,) at 16 kHz between -1 and 1 or a little more; numbers that are none become 0."""
    wave = np.nan_to_num(sound.samples).astype(np.float32)
    if sound.rate != SAMPLE_RATE and len(wave):
        wave = soxr.resample(wave, sound.rate, SAMPLE_RATE).astype(np.float32)
    return wave


def fault(raw: NDArray[np.float32], speech: int, text: str, language: str) -> str:
    """Why a clip cannot be used, or "".

    Args:
        raw: what the voice wrote (N,), full scale 1.
        speech: number of samples between the first and the last sound.
        text: what it should speak.
        language: of the text.
    """
    seconds, characters = speech / SAMPLE_RATE, sum(map(str.isalnum, text))
    if not speech:
        return "empty"
    if np.mean(np.abs(raw) >= FULL_SCALE) > MAX_CLIPPED:
        return "clipped"
    if seconds < characters / FASTEST.get(language, DEFAULT_FASTEST):
        return "too short for its text"
    if seconds > characters / SLOWEST.get(language, DEFAULT_SLOWEST) + SLACK:
        return "too long for its text"
    return "longer than a clip may be" if seconds > MAX_SECONDS else ""


def shape(wave: NDArray[np.float32], bounds: tuple[int, int], rng: np.random.Generator) -> NDArray[np.int16]:
    """The speech at the level of the corpus, with a random length of silence at each end: (N,) to (M,) int16."""
    before, after = (int(seconds * SAMPLE_RATE) for seconds in rng.uniform(*EDGES, 2))
    start, end = bounds
    lead, tail = wave[max(0, start - before) : start], wave[end : end + after]
    speech = wave[start:end]
    gain = min(LEVEL / math.sqrt(float(np.mean(speech**2))), PEAK / float(np.abs(wave).max()))
    padded = np.concatenate(
        [np.zeros(before - len(lead), np.float32), lead, speech, tail, np.zeros(after - len(tail), np.float32)]
    )
    return np.round(padded * gain * 32767.0).astype(np.int16)
