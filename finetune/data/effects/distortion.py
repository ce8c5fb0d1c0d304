"""Changes of a waveform that need no other audio but the one given: noise at an SNR, the telephone band, clipping."""

import numpy as np
from numpy.typing import NDArray

from finetune.data.audio import SAMPLE_RATE
from finetune.data.effects.generated import fast_length, rms

Wave = NDArray[np.float32]

BAND = (300.0, 3400.0)  # Hz; the band of a telephone line
SLOPE = (100.0, 400.0)  # Hz; how far below and above the band its edges reach
MAX_GAIN = 1e4  # of noise; a recording that is practically silent is not amplified more


def add_noise(wave: Wave, noise: Wave, snr: float) -> Wave:
    """Adds noise (N,) to a waveform (N,) at a signal-to-noise ratio in dB, by the RMS of both."""
    level = rms(wave) * 10.0 ** (-snr / 20.0)
    return (wave + np.float32(min(level / max(rms(noise), 1e-12), MAX_GAIN)) * noise).astype(np.float32)


def telephone_band(wave: Wave) -> Wave:
    """Keeps 300 to 3400 Hz, as a telephone line of 8 kHz does: (N,) -> (N,)."""
    size = fast_length(len(wave))
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    low, high = BAND
    gain = np.clip((hertz - low + SLOPE[0]) / SLOPE[0], 0, 1) * np.clip((high + SLOPE[1] - hertz) / SLOPE[1], 0, 1)
    return np.fft.irfft(np.fft.rfft(wave, size) * gain, size)[: len(wave)].astype(np.float32)


def clip_peaks(wave: Wave, depth: float) -> Wave:
    """Cuts the samples that are less than `depth` dB below the peak, as an overloaded microphone does."""
    limit = np.float32(float(np.abs(wave).max(initial=0.0)) * 10.0 ** (-depth / 20.0))
    return np.clip(wave, -limit, limit)
