"""Synthetic audio as training clips: 16 kHz mono, silence trimmed, one level."""

import io
import math

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from finetune.curation.voices.voice import Sound
from finetune.data.audio import SAMPLE_RATE

LEVEL, PEAK = 10 ** (-23 / 20), 10 ** (-1 / 20)  # dB below full scale: root mean square, and highest sample
FRAME = SAMPLE_RATE // 100
SILENCE = 10 ** (-40 / 20)  # of the loudest 10 ms
MARGIN = 0.1  # seconds of silence that stay at both ends
AUDIBLE = 1e-4  # root mean square of the loudest 10 ms


def to_clip(sound: Sound) -> NDArray[np.float32]:
    """Samples (N,) at 16 kHz. Empty if there is no sound."""
    wave = np.nan_to_num(sound.samples)
    if sound.rate != SAMPLE_RATE and len(wave):
        wave = soxr.resample(wave, sound.rate, SAMPLE_RATE)
    start, end = speech_bounds(wave)
    if not end:
        return np.zeros(0, np.float32)
    margin = int(MARGIN * SAMPLE_RATE)
    wave = wave[max(0, start - margin) : end + margin]
    gain = min(LEVEL / math.sqrt(float(np.mean(wave**2))), PEAK / float(np.abs(wave).max()))
    return np.asarray(wave * gain, dtype=np.float32)


def speech_bounds(wave: NDArray[np.float32]) -> tuple[int, int]:
    """The first sample of the speech in (N,), and the one after its last; (0, 0) if there is none."""
    frames = wave[: len(wave) // FRAME * FRAME].reshape(-1, FRAME)
    levels = np.sqrt(np.mean(frames**2, axis=1)) if len(frames) else np.zeros(1)
    if levels.max() < AUDIBLE:
        return 0, 0
    loud = np.flatnonzero(levels > SILENCE * levels.max())
    return int(loud[0]) * FRAME, (int(loud[-1]) + 1) * FRAME


def flac_bytes(wave: NDArray[np.float32]) -> bytes:
    """The samples as a FLAC file of 16 bits; an empty file for no samples, which FLAC cannot hold."""
    if not len(wave):
        return b""
    file = io.BytesIO()
    soundfile.write(file, wave, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()
