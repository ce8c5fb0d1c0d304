"""Finds signs that a compressed file lacks its end, although the rest can be decoded: Ogg, MP3 and Matroska (WebM).

Their packets state their size, so a file that ends within a packet lacks its end. A file that was cut between two
packets is found only in Ogg, whose last page is marked, and in an MP3 with a number of frames.
"""

from finetune.data.audio_file import TAG_TOLERANCE, mpeg_parts
from finetune.data.audio_source import AudioSource, Buffer
from finetune.data.mpeg import frame_size, is_mpeg

PAGE_HEADER = 27  # bytes of an Ogg page before its segment table
END_OF_STREAM = 0x04  # flag of the last page of an Ogg stream
EBML = b"\x1aE\xdf\xa3"  # the first bytes of Matroska
SEGMENT, CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"  # elements of Matroska that contain packets


def truncation_sign(source: AudioSource) -> str:
    """Why a file seems to lack its end; "" without a sign. The file can be decoded up to its end."""
    with source.buffer() as data:
        if data[:4] == b"OggS":
            return _ogg_sign(data)
        if data[:4] == EBML:
            return "it ends within an element of Matroska" if _ends_within_element(data) else ""
        return _mpeg_sign(source, data) if is_mpeg(data[:4]) else ""


def _ogg_sign(data: Buffer) -> str:
    position = data.rfind(b"OggS")
    header = data[position : position + PAGE_HEADER]
    table = data[position + PAGE_HEADER : position + PAGE_HEADER + (header[26] if len(header) == PAGE_HEADER else 0)]
    if len(header) < PAGE_HEADER or len(table) < header[26]:
        return "it ends within an Ogg page"
    if position + PAGE_HEADER + len(table) + sum(table) > len(data):
        return "it ends within an Ogg page"
    return "" if header[5] & END_OF_STREAM else "its last Ogg page is not marked as the end"


def _mpeg_sign(source: AudioSource, data: Buffer) -> str:
    parts = mpeg_parts(source)
    for part in parts:
        if part.stated is not None and part.stated > part.frames + TAG_TOLERANCE:
            return f"it states {part.stated} MPEG frames, but has {part.frames}"
    stop = parts[-1].ranges[-1][1] if parts else len(data)
    head = data[stop : stop + 4]
    within = stop + frame_size(head) > len(data) if len(head) == 4 else head[:1] == b"\xff"
    return "it ends within an MPEG frame" if within else ""


def _ends_within_element(data: Buffer) -> bool:
    """Whether Matroska ends within an element. Damaged data ends the search."""
    position, stop = 0, len(data)
    while position < stop:
        start = position + 9 - data[position].bit_length()  # of the size, after the identifier
        name = data[position:start]
        if len(name) > 4:
            return False
        end = start + 9 - data[start].bit_length() if start < stop else stop + 1
        if end > stop:
            return True
        bits = 7 * (end - start)
        size = int.from_bytes(data[start:end], "big") & (1 << bits) - 1
        unknown = size == (1 << bits) - 1
        if bits > 56 or (unknown and name not in (SEGMENT, CLUSTER)):
            return False
        if not unknown and end + size > stop:
            return True
        if name == SEGMENT and not unknown:
            stop = end + size  # something else can follow
        position = end if name in (SEGMENT, CLUSTER) else end + size
    return False
