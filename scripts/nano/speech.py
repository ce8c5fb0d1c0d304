"""Synthesizes speech with espeak-ng and flite."""

import io
import subprocess
from dataclasses import dataclass

import numpy as np
import soundfile as sf
import soxr

SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class Voice:
    """A voice. `rate` is words per minute (espeak) or a stretch factor (flite), `pitch` is in units of the engine."""

    engine: str
    name: str
    rate: float
    pitch: float


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
