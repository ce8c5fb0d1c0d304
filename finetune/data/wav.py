"""The header of a WAV file: where its audio is, and whether its stated size is that of the file."""

import os
import re
from collections.abc import Iterator
from contextlib import closing

from finetune.core.errors import DataError
from finetune.data.audio_source import AudioSource, ReadableFile

_CHUNK_NAME = re.compile(rb"[ -~]{4}")
UNKNOWN_SIZE = 0x7FFF_F000  # ffmpeg and sox write at least this data size when they stream a WAV of unknown size


def chunks(raw: ReadableFile) -> Iterator[tuple[bytes, int]]:
    """Name and stated size of each chunk of a WAV; the file is then at the start of its content."""
    raw.seek(0)
    header = raw.read(12)
    if header[:4] != b"RIFF" or header[8:] != b"WAVE":
        return
    while len(chunk := raw.read(8)) == 8:
        size = int.from_bytes(chunk[4:], "little")
        start = raw.tell()
        yield chunk[:4], size
        raw.seek(start + size + size % 2)


def data_chunk(source: AudioSource) -> tuple[int, int]:
    """Start and end of the audio in a WAV."""
    with closing(source.open()) as raw:
        return next(((raw.tell(), raw.tell() + size) for name, size in chunks(raw) if name == b"data"), (0, 0))


def check_wav_size(raw: ReadableFile, source: AudioSource) -> None:
    """Compares the stated size of a WAV's data chunk with the file; libsndfile ignores a difference."""
    stated = next((size for name, size in chunks(raw) if name == b"data"), None)
    if stated is None:
        return
    present = source.size - raw.tell()
    if not stated and present > 1024:
        raise DataError(
            f"{source}: the header states 0 samples, but {present} bytes follow: the recorder did not close the file; "
            "repair the header, such as with `ffmpeg -i IN -c copy OUT`"
        )
    if stated < UNKNOWN_SIZE and stated - present > 1024:
        raise DataError(
            f"{source}: truncated: the header states {stated} bytes of audio, "
            f"but the file has {present}; copy or download it again"
        )
    raw.seek(min(stated, present), os.SEEK_CUR)
    rest = raw.read(1024)
    if len(rest) == 1024 and not any(_CHUNK_NAME.match(rest[start : start + 4]) for start in (0, 1)) and any(rest):
        raise DataError(
            f"{source}: the header states {stated} bytes of audio, but {present - stated} more bytes follow that are "
            "no chunk of a WAV: the recorder did not close the file, or its size is wrong; repair the header, such as "
            "with `ffmpeg -ignore_length 1 -i IN -c copy OUT`"
        )
    if b"RIFF" in rest[:5]:  # after a byte that pads an odd size
        raise DataError(f"{source}: several WAV files that were joined byte by byte; join them with an audio tool")
