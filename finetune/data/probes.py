"""Synthetic audio without speech: every word that a model transcribes from it is a hallucination."""

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from finetune.data.audio import SAMPLE_RATE
from finetune.data.manifest import Utterance

SECONDS = 3.0
GUARD_LEVELS = (-60, -45, -30, -18)  # dB relative to full scale
Wave = NDArray[np.float64]


def probe_waves(seed: int) -> dict[str, Wave]:
    """Waveforms (48000,) at 16 kHz by kind, full scale 1. The same seed gives the same samples."""
    rng = np.random.default_rng(seed)
    count = int(SECONDS * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    noise = rng.normal(size=(3, count))
    spectrum = np.fft.rfft(noise[2])
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), count)
    hum = sum(np.sin(2 * np.pi * 50 * harmonic * time) / harmonic for harmonic in (1, 2, 3, 5))
    clicks = np.zeros(count)
    clicks[rng.integers(count, size=9)] = rng.uniform(-1, 1, 9)
    return {
        "silence": np.zeros(count),
        "faint noise": 0.001 * noise[0],
        "white noise": 0.05 * noise[1],
        "pink noise": 0.1 * pink / pink.std(),
        "mains hum": 0.1 * hum,
        "dial tone": 0.1 * (np.sin(2 * np.pi * 350 * time) + np.sin(2 * np.pi * 440 * time)),
        "beeps": 0.2 * np.sin(2 * np.pi * 1000 * time) * (time % 0.5 < 0.2),
        "clicks": 0.8 * clicks,
    }


def guard_probes(seed: int) -> dict[str, Wave]:
    """Waveforms (48000,) at 16 kHz to calibrate the guard against words without speech, by kind and level.

    Noise of several colours, steady, pulsed or swelling, hum, melodies, chords and clicks, each at four levels.
    """
    rng = np.random.default_rng((seed, 2))
    count = int(SECONDS * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE

    def noise(exponent: float) -> Wave:
        spectrum = np.fft.rfft(rng.normal(size=count))
        return np.fft.irfft(spectrum * np.maximum(np.arange(len(spectrum)), 1.0) ** exponent, count)

    def tones(seconds: float, intervals: tuple[float, ...], harmonics: int) -> Wave:
        """Random notes of `seconds`, each with its intervals and harmonics."""
        notes = 220 * 2 ** (rng.integers(-12, 24, size=int(SECONDS / seconds) + 1) / 12)
        phase = 2 * np.pi * np.cumsum(np.repeat(notes, int(seconds * SAMPLE_RATE))[:count]) / SAMPLE_RATE
        return np.sum([np.sin(r * h * phase) / h for r in intervals for h in range(1, harmonics + 1)], axis=0)

    clicks = np.zeros(count)
    clicks[rng.integers(count, size=15)] = rng.uniform(-1, 1, 15)
    waves = {
        **{name: noise(power) for name, power in (("white", 0.0), ("pink", -0.5), ("brown", -1.0), ("blue", 0.5))},
        "pulsed noise": noise(-0.3) * (time % 0.8 < 0.3),
        "swelling noise": noise(-0.5) * (1 + np.sin(2 * np.pi * 4 * time)),
        "hum": np.sum([np.sin(2 * np.pi * 50 * h * time) / h for h in (1, 2, 3, 5, 7)], axis=0),
        "melody": tones(0.25, (1.0,), 5) * np.exp(-12 * (time % 0.25)),
        "chords": tones(0.75, (1.0, 1.26, 1.5), 4),
        "beeps": np.sin(2 * np.pi * 1000 * time) * (time % 0.5 < 0.2),
        "clicks": np.convolve(clicks, np.exp(-np.arange(160) / 20), "same"),
    }
    return {
        f"{name} {level} dB": (10 ** (level / 20) * wave / np.sqrt((wave**2).mean())).clip(-1, 1)
        for name, wave in waves.items()
        for level in GUARD_LEVELS
    }


def write_probes(folder: Path, seed: int) -> list[Utterance]:
    """Writes each probe as a WAV file in `folder`. The utterances have empty texts; an id is the kind of probe."""
    folder.mkdir(parents=True, exist_ok=True)
    utterances = []
    for kind, wave in probe_waves(seed).items():
        path = folder / f"{kind.replace(' ', '_')}.wav"
        soundfile.write(path, wave.clip(-1, 1), SAMPLE_RATE, subtype="PCM_16")
        utterances.append(Utterance(kind, str(path.resolve()), SECONDS, ""))
    return utterances
