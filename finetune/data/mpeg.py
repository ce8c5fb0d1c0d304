"""Counts the frames of MPEG audio (MP3, MP2), because its length is stated only in an optional tag.

libsndfile believes that tag (Xing, Info or VBRI), and without one estimates the length from the first frames. Both are
wrong for a variable bit rate without a tag, for joined files, and for files with tags between or after the frames.
"""

import functools
import re
import struct
from dataclasses import dataclass, field

from finetune.data.audio_source import AudioSource, Buffer

BIT_RATES = {  # kbit/s by version 1 or 2 (2.5 has the same) and layer; index 0 is a free bit rate
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
SAMPLE_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # by version bits
MIN_RUN = 3  # consecutive frames after which bytes count as audio; two can occur by chance in a picture
MARK = re.compile(rb"\xff[\xe2-\xff]|ID3|TAG|APETAGEX")  # where a frame or a tag can begin
TAG_BYTES = 96  # a frame of this size holds a Xing tag with the number of frames and the delay
DECODER_DELAY = 529  # samples that mpg123 drops in addition to the delay in the tag

Kind = tuple[int, int, int, int]  # version bits, layer, sample rate, channels


@dataclass
class MpegPart:
    """Frames that were encoded together.

    Attributes:
        kind: version bits, layer, sample rate and channels.
        frames: number of frames, without the tag.
        ranges: start and end of the frames in the file, without the tag; several if other bytes are between them.
        tag: the frame with a Xing, Info or VBRI tag; empty without one.
        stated: the number of frames in the tag; None if it has none.
    """

    kind: Kind
    frames: int = 0
    ranges: list[tuple[int, int]] = field(default_factory=list)
    tag: bytes = b""
    stated: int | None = None

    @property
    def samples_per_frame(self) -> int:
        version, layer, _, _ = self.kind
        return 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152

    @property
    def seconds(self) -> float:
        return self.frames * self.samples_per_frame / self.kind[2]

    def add(self, start: int, stop: int) -> None:
        """Adds a frame."""
        self.frames += 1
        if self.ranges and self.ranges[-1][1] == start:
            self.ranges[-1] = self.ranges[-1][0], stop
        else:
            self.ranges.append((start, stop))

    def header(self) -> bytes:
        """A tag that states the number of frames, to put before frames of layer 3, so that a decoder knows the length.

        Without a tag from the encoder, a silent frame follows, which a decoder drops as the delay that the tag states.
        """
        at = _tag_position(self.kind)
        if self.kind[1] != 3:
            return b""
        if self.stated is not None and self.tag[at : at + 4] in (b"Xing", b"Info"):  # keeps the encoder's delay
            frames = max(self.frames, self.stated)  # more than there are: the file is truncated
            return self.tag[: at + 8] + struct.pack(">I", frames) + self.tag[at + 12 :]
        version, layer, rate, channels = self.kind
        fields = 0xE1 | version << 3 | (4 - layer) << 1, SAMPLE_RATES[version].index(rate) << 2, 0xC0 * (channels == 1)
        headers = [bytes((0xFF, fields[0], index << 4 | fields[1], fields[2])) for index in range(1, 15)]
        header = next(item for item in headers if _frame(item)[0] >= TAG_BYTES)
        size = _frame(header)[0]
        delay = (self.samples_per_frame - DECODER_DELAY) << 12
        tag = struct.pack(">4sII9s12x", b"Xing", 1, self.frames + 1, b"LAME3.100") + delay.to_bytes(3, "big")
        return (header + bytes(at - 4) + tag).ljust(size, b"\0") + header.ljust(size, b"\0")


def is_mpeg(head: bytes) -> bool:
    """Whether a file with these first bytes can be MPEG audio; a tag before it is also before other formats."""
    return head[:3] == b"ID3" or bool(_frame(head[:4])[0])


def frame_size(header: bytes) -> int:
    """Bytes of the frame with this header of 4 bytes; 0 if it is not a header, or has a free bit rate."""
    return _frame(header)[0]


def find_parts(source: AudioSource, start: int = 0, stop: int | None = None) -> list[MpegPart]:
    """The frames of MPEG audio, split where a tag starts another encoding, or version, rate or channels change.

    An incomplete last frame does not count. A free bit rate is not supported: its frames are not found.

    Args:
        source: the file.
        start: first byte of the audio, such as the data of a WAV file.
        stop: end of the audio; None is the end of the file.
    """
    with source.buffer() as data:
        return _scan(data, start, min(len(data), stop if stop is not None else len(data)))


def _scan(data: Buffer, position: int, stop: int) -> list[MpegPart]:
    parts: list[MpegPart] = []
    kind: Kind | None = None
    while position + 4 <= stop:
        size, frame_kind = _frame(data[position : position + 4])
        if not size or position + size > stop or (frame_kind != kind and _run(data, position, stop) < MIN_RUN):
            position = _next_frame(data, _after_tag(data, position), stop, kind)
            size, frame_kind = _frame(data[position : position + 4])
            if position == stop:
                break
        tag = data[position : position + size] if _has_tag(data, position, frame_kind) else b""
        if tag or not parts or frame_kind != parts[-1].kind:
            parts.append(MpegPart(frame_kind, tag=tag, stated=_stated(tag, frame_kind) if tag else None))
        if not tag:
            parts[-1].add(position, position + size)
        kind, position = frame_kind, position + size
    return [part for part in parts if part.frames]


def _after_tag(data: Buffer, position: int) -> int:
    """The end of the ID3 or APE tag at this position; the next byte if there is none."""
    head = data[position : position + 32]
    if head[:3] == b"ID3" and len(head) >= 10:
        size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        return position + 10 + size + 10 * bool(head[5] & 0x10)
    if head[:3] == b"TAG":
        return position + 128
    if head[:8] == b"APETAGEX" and len(head) == 32:
        return position + 32 + int.from_bytes(head[12:16], "little")
    return position + 1


def _next_frame(data: Buffer, position: int, stop: int, kind: Kind | None) -> int:
    """The first frame at or after a position: of a run, or the last of the file. `stop` if there is none."""
    while 0 <= position < stop:
        head = data[position : position + 8]
        if head[:3] in (b"ID3", b"TAG") or head == b"APETAGEX":
            position = _after_tag(data, position)
            continue
        size, frame_kind = _frame(head[:4])
        if size and (_run(data, position, stop) >= MIN_RUN or (frame_kind == kind and position + size == stop)):
            return position
        match = MARK.search(data, position + 1, stop)
        position = match.start() if match else stop
    return stop


def _run(data: Buffer, position: int, stop: int) -> int:
    """The number of complete frames of one kind that follow each other here, counted up to MIN_RUN."""
    kind = None
    for number in range(MIN_RUN):
        size, frame_kind = _frame(data[position : position + 4])
        if not size or position + size > stop or (kind and frame_kind != kind):
            return number
        kind, position = frame_kind, position + size
    return MIN_RUN


@functools.lru_cache(1 << 12)
def _frame(header: bytes) -> tuple[int, Kind]:
    """Bytes and kind of the frame with this header; 0 bytes if it is not a header, or has a free bit rate."""
    nothing = 0, (0, 0, 0, 0)
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return nothing
    version, layer, rate_index = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3), header[2] >> 2 & 3
    bit_rate_index, padding = header[2] >> 4, header[2] >> 1 & 1
    if version == 1 or layer == 4 or rate_index == 3 or bit_rate_index in (0, 15) or header[3] & 3 == 2:
        return nothing
    rate = SAMPLE_RATES[version][rate_index]
    bits = 1000 * BIT_RATES[1 if version == 3 else 2, layer][bit_rate_index]
    kind = version, layer, rate, 1 if header[3] >> 6 == 3 else 2
    if layer == 1:
        return (12 * bits // rate + padding) * 4, kind
    return (72 if layer == 3 and version != 3 else 144) * bits // rate + padding, kind


def _tag_position(kind: Kind) -> int:
    """Where a frame has its Xing or Info tag: after the header and the side information."""
    version, _, _, channels = kind
    return 4 + ((32 if channels == 2 else 17) if version == 3 else (17 if channels == 2 else 9))


def _has_tag(data: Buffer, position: int, kind: Kind) -> bool:
    at = position + _tag_position(kind)
    return kind[1] == 3 and (data[at : at + 4] in (b"Xing", b"Info") or data[position + 36 : position + 40] == b"VBRI")


def _stated(tag: bytes, kind: Kind) -> int | None:
    """The number of frames that a tag states."""
    at = _tag_position(kind)
    if tag[at : at + 4] in (b"Xing", b"Info"):
        return int.from_bytes(tag[at + 8 : at + 12], "big") if tag[at + 7] & 1 else None
    return int.from_bytes(tag[50:54], "big") if len(tag) >= 54 else None
