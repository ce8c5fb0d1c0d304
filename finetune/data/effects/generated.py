"""Generated sounds without speech: noise of several colours, mains hum, clicks and music."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from finetune.data.audio import SAMPLE_RATE

Wave = NDArray[np.float32]

LOWEST = 50.0  # Hz; below it, the spectrum of pink and brown noise is flat
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9))  # major, minor, pentatonic: semitones
TABLE = 2048  # samples in one period of an instrument


def rms(wave: NDArray[np.floating]) -> float:
    """The root mean square of a waveform."""
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) if len(wave) else 0.0


def generate(kind: str, count: int, rng: np.random.Generator) -> Wave:
    """A sound of a kind of GENERATED: (count,) at 16 kHz with RMS 1; the same random numbers give the same samples."""
    wave = GENERATED[kind](count, rng)
    return (wave / max(rms(wave), 1e-9)).astype(np.float32)


def fast_length(count: int) -> int:
    """The smallest power of two that is at least `count`, for a fast Fourier transform."""
    return 1 << max(1, count - 1).bit_length()


def _coloured(exponent: float) -> Callable[[int, np.random.Generator], Wave]:
    """Noise whose amplitude falls with frequency ** exponent; half of it swells and fades."""

    def wave(count: int, rng: np.random.Generator) -> Wave:
        size = fast_length(count)
        noise: NDArray[np.floating] = rng.standard_normal(size, np.float32)
        if exponent:
            hertz = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), LOWEST)
            noise = np.fft.irfft(np.fft.rfft(noise) * (hertz / LOWEST) ** exponent, size)
        noise = noise[:count]
        if rng.random() < 0.5:
            rate, depth, phase = rng.uniform(0.1, 5.0), rng.uniform(0.2, 0.9), rng.uniform(0, 2 * np.pi)
            noise = noise * (1 + depth * np.sin(2 * np.pi * rate / SAMPLE_RATE * np.arange(count) + phase))
        return np.asarray(noise, np.float32)

    return wave


def _hum(count: int, rng: np.random.Generator) -> Wave:
    """Mains hum of 50 or 60 Hz with harmonics of random strength, above faint noise."""
    time = np.arange(count) / SAMPLE_RATE
    base = rng.choice((50.0, 60.0)) * rng.uniform(0.99, 1.01)
    wave = 0.02 * rng.standard_normal(count)
    for harmonic in range(1, 13):
        strength = rng.uniform(0, 1) / harmonic
        wave += strength * np.sin(2 * np.pi * base * harmonic * time + rng.uniform(0, 2 * np.pi))
    return np.asarray(wave, np.float32)


def _clicks(count: int, rng: np.random.Generator) -> Wave:
    """Clicks at random times, each a short decaying noise."""
    wave = 0.001 * rng.standard_normal(count)
    for start in rng.integers(0, count, size=max(1, int(rng.uniform(1, 6) * count / SAMPLE_RATE))):
        length = min(int(rng.uniform(20, 600)), count - start)
        decay = np.exp(-5 * np.arange(length) / length)
        wave[start : start + length] += rng.uniform(0.1, 1) * decay * rng.standard_normal(length)
    return np.asarray(wave, np.float32)


def _music(count: int, rng: np.random.Generator) -> Wave:
    """A melody, chords, a bass and drums over a random key, tempo and instruments; parts can be absent."""
    wave = np.zeros(count)
    beat = max(1, int(SAMPLE_RATE * 60 / rng.uniform(60, 170)))
    root, scale = 110 * 2 ** (rng.integers(12) / 12), SCALES[rng.integers(len(SCALES))]

    def pitch(step: int) -> float:
        octave, place = divmod(step, len(scale))
        return float(root * 2 ** (octave + scale[place] / 12))

    parts = rng.permutation(("melody", "chords", "bass", "drums"))[: rng.integers(1, 5)]
    for part in sorted(parts):
        loudness, instrument = rng.uniform(0.3, 1), _instrument(rng)
        length = max(1, int(beat * {"melody": rng.choice((0.5, 1)), "chords": 4, "bass": 1, "drums": 0.5}[part]))
        decay = rng.uniform(0.5, 6)
        for start in range(0, count, length):
            size = min(length, count - start)
            envelope = loudness * np.exp(-decay * np.arange(size) / length)
            if part == "drums":
                sound = rng.standard_normal(size) * np.exp(-20 * np.arange(size) / length) * (rng.random() < 0.7)
            else:
                step = int(rng.integers(7, 15)) if part == "melody" else int(rng.integers(0, 5))
                steps = (step, step + 2, step + 4) if part == "chords" else (step,)
                sound = np.sum([_note(instrument, pitch(item), size) for item in steps], axis=0)
            wave[start : start + size] += envelope * sound
    return np.asarray(wave, np.float32)


def _instrument(rng: np.random.Generator) -> NDArray[np.float64]:
    """One period (TABLE,) of a tone with harmonics of random strength."""
    phase = 2 * np.pi * np.arange(TABLE) / TABLE
    harmonics = np.arange(1, rng.integers(2, 10))
    strengths = rng.uniform(0, 1, len(harmonics)) / harmonics ** rng.uniform(0.5, 2)
    strengths[0] += 0.2
    return np.asarray((strengths[:, None] * np.sin(harmonics[:, None] * phase)).sum(0) / strengths.sum())


def _note(instrument: NDArray[np.float64], hertz: float, count: int) -> NDArray[np.float64]:
    places = (np.arange(count) * (hertz * TABLE / SAMPLE_RATE)).astype(np.int64) % TABLE
    return instrument[places]


GENERATED: dict[str, Callable[[int, np.random.Generator], Wave]] = {
    "white": _coloured(0.0),
    "pink": _coloured(-0.5),
    "brown": _coloured(-1.0),
    "hum": _hum,
    "clicks": _clicks,
    "music": _music,
}
