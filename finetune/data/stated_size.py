"""The size that the header of an uncompressed format states, except WAV: AIFF, AU, CAF, W64, RF64 and SPHERE."""

import re

from finetune.core.errors import DataError
from finetune.data.audio_source import AudioSource, ReadableFile

HEAD = 1024  # bytes of the header of a SPHERE file, of which the others need fewer
TOLERANCE = 1024  # bytes, as in `wav`
UNKNOWN = 1 << 62  # a larger difference is the size of a stream in 64 bits
STREAM = 0x7FFF_F000  # a 32-bit size of at least this is that of a stream, whose size was not known
_FIELD = re.compile(rb"^(sample_count|channel_count|sample_n_bytes) -(?:i|s\d+) (\d+)", re.MULTILINE)


def check_size(raw: ReadableFile, source: AudioSource) -> None:
    """Raises DataError if a file is smaller than its header states; libsndfile reads what is there."""
    stated = _stated_size(raw)
    if TOLERANCE < stated - source.size < UNKNOWN:
        raise DataError(
            f"{source}: truncated: the header states {stated} bytes, but the file has {source.size}; copy or download "
            "it again"
        )


def _stated_size(raw: ReadableFile) -> int:
    """Bytes of a file as its header states them; 0 if it does not."""
    raw.seek(0)
    head = raw.read(HEAD)
    if head[:4] == b"FORM" and head[8:11] == b"AIF":
        return _known(int.from_bytes(head[4:8], "big")) + 8
    if head[:4] == b".snd":
        size = _known(int.from_bytes(head[8:12], "big"))
        return int.from_bytes(head[4:8], "big") + size if size else 0
    if head[:4] == b"RF64" and head[12:16] == b"ds64":
        return int.from_bytes(head[20:28], "little") + 8
    if head[:4] == b"riff" and head[24:28] == b"wave":
        return int.from_bytes(head[16:24], "little")
    if head[:7] == b"NIST_1A":
        return _sphere_size(head)
    return _caf_size(raw) if head[:4] == b"caff" else 0


def _known(size: int) -> int:
    return size if size < STREAM else 0


def _sphere_size(head: bytes) -> int:
    fields = {match[1]: int(match[2]) for match in _FIELD.finditer(head)}
    start = head[8:16].strip()
    if len(fields) < 3 or not start.isdigit() or b"embedded" in head:
        return 0
    return int(start) + fields[b"sample_count"] * fields[b"channel_count"] * fields[b"sample_n_bytes"]


def _caf_size(raw: ReadableFile) -> int:
    position = 8
    while True:
        raw.seek(position)
        chunk = raw.read(12)
        size = int.from_bytes(chunk[4:], "big", signed=True)
        if len(chunk) < 12 or size < 0:
            return 0
        position += 12 + size
        if chunk[:4] == b"data":
            return position
