"""Synthetic audio without speech: every word that a model transcribes from it is a hallucination."""

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from finetune.data.audio import SAMPLE_RATE
from finetune.data.manifest import Utterance

SECONDS = 3.0
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


def write_probes(folder: Path, seed: int) -> list[Utterance]:
    """Writes each probe as a WAV file in `folder`. The utterances have empty texts; an id is the kind of probe."""
    folder.mkdir(parents=True, exist_ok=True)
    utterances = []
    for kind, wave in probe_waves(seed).items():
        path = folder / f"{kind.replace(' ', '_')}.wav"
        soundfile.write(path, wave.clip(-1, 1), SAMPLE_RATE, subtype="PCM_16")
        utterances.append(Utterance(kind, str(path.resolve()), SECONDS, ""))
    return utterances
