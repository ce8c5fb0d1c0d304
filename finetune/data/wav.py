"""The header of a WAV file: where its audio is, and whether its stated size is that of the file."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from finetune.core.errors import DataError

UNKNOWN_SIZE = 0x7FFF_F000  # ffmpeg and sox write at least this data size when they stream a WAV of unknown size


def _chunks(raw: BinaryIO) -> Iterator[tuple[bytes, int]]:
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


def data_chunk(path: str | Path) -> tuple[int, int]:
    """Start and end of the audio in a WAV."""
    with open(path, "rb") as raw:
        return next(((raw.tell(), raw.tell() + size) for name, size in _chunks(raw) if name == b"data"), (0, 0))


def check_wav_size(raw: BinaryIO, path: str | Path) -> None:
    """Compares the stated size of a WAV's data chunk with the file; libsndfile ignores a difference."""
    stated = next((size for name, size in _chunks(raw) if name == b"data"), None)
    if stated is None:
        return
    present = Path(path).stat().st_size - raw.tell()
    if not stated and present > 1024:
        raise DataError(
            f"{path}: the header states 0 samples, but {present} bytes follow: the recorder did not close the file; "
            "repair the header, such as with `ffmpeg -i IN -c copy OUT`"
        )
    if stated < UNKNOWN_SIZE and stated - present > 1024:
        raise DataError(
            f"{path}: truncated: the header states {stated} bytes of audio, "
            f"but the file has {present}; copy or download it again"
        )
    raw.seek(min(stated, present), os.SEEK_CUR)
    if b"RIFF" in raw.read(5):  # after a byte that pads an odd size
        raise DataError(f"{path}: several WAV files that were joined byte by byte; join them with an audio tool")
