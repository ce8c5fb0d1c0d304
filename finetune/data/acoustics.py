"""Bandwidth and signal-to-noise ratio of a recording, estimated from its samples."""

import numpy as np
from numpy.typing import NDArray

from finetune.data.audio import SAMPLE_RATE

WINDOW = 512  # samples, 32 ms
FLOOR_DB = 50.0  # below the strongest frequency; a weaker frequency counts as empty
MIN_SNR_DB, MAX_SNR_DB = -10.0, 60.0  # above the maximum, the quiet windows are digital silence


def _power(wave: NDArray[np.float32]) -> NDArray[np.float64]:
    """Power spectra (F, 257) of adjacent windows; the last one is zero-padded."""
    frames = np.pad(wave, (0, -len(wave) % WINDOW)).reshape(-1, WINDOW) * np.hanning(WINDOW)
    return np.abs(np.fft.rfft(frames)) ** 2


def bandwidth(wave: NDArray[np.float32]) -> float:
    """The highest frequency with energy, in Hz. It is below 4000 for 8 kHz telephone speech in a 16 kHz file.

    A frequency has energy if its level is at most 50 dB below the level of the strongest frequency. The level is the
    95th percentile over windows of 32 ms, smoothed over 5 bins (156 Hz). It is a percentile and not the mean, because
    only fricatives reach high frequencies, and they are short.

    Args:
        wave: (N,) samples at 16 kHz.

    Returns:
        Hz; 0 for silence.
    """
    levels = np.convolve(np.percentile(_power(wave), 95, axis=0), np.full(5, 0.2), mode="same")
    if not levels.max() > 1e-9:
        return 0.0
    present = np.flatnonzero(levels > levels.max() * 10 ** (-FLOOR_DB / 10))
    return float(present[-1] * SAMPLE_RATE / WINDOW)


def snr(wave: NDArray[np.float32]) -> float:
    """Signal-to-noise ratio, estimated from the loud and the quiet windows of 32 ms.

    The 10th percentile of the windows' energy counts as noise, the 90th as speech and noise. This is an estimate:
    speech without pauses gets a low value, and audio with a noise gate gets a high one.

    Args:
        wave: (N,) samples at 16 kHz.

    Returns:
        dB, between -10 and 60.
    """
    energy = _power(wave).sum(axis=1)
    quiet, loud = np.percentile(energy, [10, 90])
    if loud <= quiet:
        return MIN_SNR_DB
    return float(np.clip(10 * np.log10((loud - quiet) / max(quiet, loud * 1e-12)), MIN_SNR_DB, MAX_SNR_DB))
