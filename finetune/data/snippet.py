"""A clip as a few kilobytes that a browser plays."""

import io
from pathlib import Path

import soundfile

from finetune.data.audio import SAMPLE_RATE, load_audio


def mp3(path: str | Path, offset: float, duration: float | None) -> bytes:
    """The segment as mono MP3 of 16 kHz, about 4 kB a second.

    Raises:
        DataError: as `load_audio` does.
    """
    out = io.BytesIO()
    soundfile.write(out, load_audio(path, offset, duration).clip(-1, 1), SAMPLE_RATE, format="MP3")
    return out.getvalue()
