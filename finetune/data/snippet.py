"""Encodes a segment of audio as MP3, which is small enough to embed in an HTML page."""

import io
from pathlib import Path

import soundfile

from finetune.data.audio import SAMPLE_RATE, load_audio


def mp3(path: str | Path, offset: float, duration: float | None, channel: int | None = None) -> bytes:
    """The segment as 16 kHz mono MP3, about 4 kB per second.

    Args:
        path: an audio file.
        offset: seconds from the start of the file.
        duration: seconds; None reads to the end of the file.
        channel: number of the channel, from 0; None averages all channels.

    Raises:
        DataError: as `load_audio`.
    """
    out = io.BytesIO()
    soundfile.write(out, load_audio(path, offset, duration, channel).clip(-1, 1), SAMPLE_RATE, format="MP3")
    return out.getvalue()
