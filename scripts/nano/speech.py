"""Synthesizes speech with espeak-ng and flite, and simulates telephone bands, rooms and noise."""

import io
import subprocess
from dataclasses import dataclass

import numpy as np
import soundfile as sf
import soxr

SAMPLE_RATE = 16_000
ACCENTS = (
    "en-us",
    "en-us",
    "en-us",
    "en-gb",
    "en-gb",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-029",
    "en-us-nyc",
)
VARIANTS = ("f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "klatt2")
FLITE = ("slt", "slt", "rms", "awb", "kal16")


@dataclass(frozen=True)
class Voice:
    """A voice. `rate` is words per minute (espeak) or a stretch factor (flite), `pitch` is in units of the engine."""

    engine: str
    name: str
    rate: float
    pitch: float


def sample_voice(rng: np.random.Generator) -> Voice:
    """A random voice: espeak-ng (accent and variant) in half of the cases, else flite."""
    if rng.random() < 0.5:
        name = f"{rng.choice(ACCENTS)}+{rng.choice(VARIANTS)}"
        return Voice("espeak", name, float(rng.integers(135, 200)), float(rng.integers(35, 65)))
    name = str(rng.choice(FLITE))
    base = {"slt": 175.0, "rms": 95.0, "awb": 125.0, "kal16": 105.0}[name]
    return Voice("flite", name, float(rng.uniform(0.85, 1.2)), base * float(rng.uniform(0.85, 1.2)))


def speak(text: str, voice: Voice) -> np.ndarray:
    """Synthesizes `text`: (N,) float32 at 16 kHz. Raises CalledProcessError if the engine fails."""
    if voice.engine == "espeak":
        command = [
            "espeak-ng",
            "-v",
            voice.name,
            "-s",
            str(int(voice.rate)),
            "-p",
            str(int(voice.pitch)),
            "--stdout",
            text,
        ]
    else:
        command = [
            "flite",
            "-voice",
            voice.name,
            "--setf",
            f"duration_stretch={voice.rate:.3f}",
            "--setf",
            f"int_f0_target_mean={voice.pitch:.1f}",
            "-t",
            text,
            "-o",
            "/dev/stdout",
        ]
    done = subprocess.run(command, check=True, capture_output=True)
    wave, rate = sf.read(io.BytesIO(done.stdout), dtype="float32")
    return wave if rate == SAMPLE_RATE else soxr.resample(wave, rate, SAMPLE_RATE).astype(np.float32)


def degrade(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Applies a random level; at random a telephone band (45 %), a small room (30 %), noise of 15 to 40 dB (60 %)."""
    wave = wave / max(1e-4, float(np.abs(wave).max()))
    if rng.random() < 0.3:
        taps = int(SAMPLE_RATE * rng.uniform(0.05, 0.2))
        room = rng.standard_normal(taps) * np.exp(-np.linspace(0.0, 7.0, taps)) * rng.uniform(0.02, 0.12)
        room[0] = 1.0
        wave = np.convolve(wave, room)[: len(wave)]
    if rng.random() < 0.6:
        level = float(np.sqrt(np.mean(wave**2))) * 10.0 ** (-rng.uniform(15.0, 40.0) / 20.0)
        noise = rng.standard_normal(len(wave))
        if rng.random() < 0.5:  # low-pass: most room noise is at low frequencies
            noise = np.convolve(noise, np.full(8, 0.125), mode="same") * 2.0
        wave = wave + level * noise
    if rng.random() < 0.45:
        narrow = soxr.resample(wave, SAMPLE_RATE, 8000)
        wave = soxr.resample(narrow, 8000, SAMPLE_RATE)
    peak = 10.0 ** (-rng.uniform(1.0, 20.0) / 20.0)
    return (wave * peak / max(1e-4, float(np.abs(wave).max()))).astype(np.float32)
