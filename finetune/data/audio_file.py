"""Opens an audio file of any format behind one interface: sample rate, channels, true number of frames, seek, read.

libsndfile reads WAV, FLAC, MP3, Ogg, Opus, AIFF and others; PyAV (`av_file`) reads what libsndfile cannot open. The
suffix does not matter. libsndfile believes an estimated or stated length, so MP3 frames are counted, the links of a
chained Ogg file and the parts of a joined FLAC, AIFF, AU or CAF are found, and the size of a WAV is compared with the
file.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from finetune.core.errors import DataError
from finetune.data.audio_readers import TOLERANCE, ArrayReader, FilePieces, JoinedReader, SoundFileReader
from finetune.data.audio_source import AudioSource, Parts, SourceCache, audio_source
from finetune.data.mpeg import MpegPart, find_parts, is_mpeg
from finetune.data.ogg import find_links
from finetune.data.stated_size import check_size
from finetune.data.wav import check_wav_size, data_chunk

MIN_SOURCE_RATE, MAX_SOURCE_RATE = 4_000, 384_000  # Hz; outside this range the header is damaged
UNRECOGNIZED = 1  # libsndfile's error for a file of no format that it knows; others are about a part of the file
UNKNOWN_FRAMES = 1 << 40  # libsndfile returns a huge number for a FLAC without a length
TAG_TOLERANCE = 2  # frames; some encoders count the tag itself or the frame after the last
MIN_MPEG_SHARE = 0.5  # of a file that libsndfile does not recognize; with fewer MPEG frames it is something else
FLAC_HEADER = 26  # bytes up to the end of the number of samples
STARTS = {  # by the first bytes of a file, the start of each file that was joined in it
    b"fLaC": re.compile(rb"fLaC[\x00\x80]\x00\x00\x22"),  # and the size of its first block
    b"FORM": re.compile(rb"FORM.{4}AIF[FC]", re.DOTALL),
    b".snd": re.compile(
        rb"\.snd\0\0.{6}\0\0\0[\x01-\x1b]\0.{3}\0\0\0[\x01-\x10]", re.DOTALL
    ),  # encoding, rate, channels
    b"caff": re.compile(rb"caff\0\x01..desc\0{7}\x20", re.DOTALL),
}

_parts_of = SourceCache[tuple[MpegPart, ...]](256)
_starts_of = SourceCache[tuple[int, ...]](1 << 16)  # to find them reads the file, so segments of many need it


class AudioFile(Protocol):
    """An open audio file. A frame is one sample of each channel.

    `frames` is the number of frames. It can differ by TOLERANCE from what can be decoded.
    """

    samplerate: int
    channels: int

    @property
    def frames(self) -> int: ...

    def tell(self) -> int: ...

    def seek(self, frame: int) -> None: ...

    def read(self, count: int) -> NDArray[np.float32]:
        """The next frames (n, C), at most `count`; none at the end. Raises DataError if they cannot be decoded."""
        ...

    def close(self) -> None: ...


@contextmanager
def open_audio(path: str | Path | AudioSource) -> Iterator[AudioFile]:
    """Opens an audio file after checks of its header.

    Args:
        path: a file, a member of an archive (`byte_range`), a URL of fsspec, or the bytes of one of these.

    Raises:
        DataError: the file is missing, not audio, empty or truncated, or its header is damaged;
            or it needs PyAV, which is not installed.
    """
    source = audio_source(path)
    file = _open(source, _first_bytes(source))
    try:
        if not MIN_SOURCE_RATE <= file.samplerate <= MAX_SOURCE_RATE:
            raise DataError(
                f"{path}: the header states {file.samplerate} Hz, outside the range {MIN_SOURCE_RATE} to "
                f"{MAX_SOURCE_RATE} Hz; the header is damaged, encode the audio again"
            )
        if file.frames <= 0:
            raise DataError(f"{path}: the file has a header without samples; replace it")
        yield file
    finally:
        file.close()


def count_channels(path: str | Path | AudioSource) -> int:
    """The number of channels in the header of a file. Raises DataError if it cannot be opened."""
    source = audio_source(path)
    file = _open(source, _first_bytes(source))
    file.close()
    return file.channels


def _first_bytes(source: AudioSource) -> bytes:
    """The first bytes of a file that has the size that its header states."""
    if not source.size:
        raise DataError(f"{source}: the file is empty (0 bytes)")
    try:
        with closing(source.open()) as raw:
            head = raw.read(64)
            check_wav_size(raw, source)
            check_size(raw, source)
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error})") from error
    if head.startswith(b"version https://git-lfs"):
        raise DataError(f"{source}: this is a Git LFS pointer, not the audio; run `git lfs pull`")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"<", b"{", b"["):
        raise DataError(
            f"{source}: this is a web page or JSON, not audio; the download probably failed, download it again"
        )
    return head


def _open(source: AudioSource, head: bytes) -> AudioFile:
    if is_mpeg(head):
        parts = mpeg_parts(source)
        if any(part.stated is not None and part.stated < part.frames - TAG_TOLERANCE for part in parts) or (
            len(parts) > 1 or any(len(part.ranges) > 1 for part in parts)
        ):
            return _open_mpeg(source, parts)
    if head[:4] in STARTS and head[:4] != b"fLaC" and (joined := _open_joined(source, head[:4])):
        return joined
    try:
        file = SoundFileReader(source)
    except UnicodeEncodeError as error:
        raise DataError(f"{source}: the file name is not UTF-8; rename the file") from error
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        return _open_unrecognized(source, head, error)
    better = _better_reader(source, file)
    if better:
        file.close()
    return better or file


def _better_reader(source: AudioSource, file: SoundFileReader) -> AudioFile | None:
    """Another reader of a file, if libsndfile's length is wrong."""
    if file.subtype.startswith("MPEG"):
        parts = mpeg_parts(source, *(data_chunk(source) if file.format == "WAV" else ()))
        if sum(part.stated is None for part in parts) == 1:  # the length is an estimate
            frames = parts[0].frames * parts[0].samples_per_frame
            return _open_mpeg(source, parts) if abs(frames - file.frames) > TOLERANCE * file.samplerate else None
    if file.format == "OGG" and len(links := find_links(source)) > 1:
        return _open_pieces(source, [(b"", [link]) for link in links])
    if file.frames > UNKNOWN_FRAMES:
        return _open_flac_without_length(source, file)
    return _open_joined(source, b"fLaC") if file.format == "FLAC" else None


def _open_joined(source: AudioSource, kind: bytes) -> AudioFile | None:
    """The files that were joined in one; None if there is only one. `kind` is a key of STARTS."""
    starts = _starts_of.get(source, lambda: _starts(source, STARTS[kind]))
    if len(starts) < 2:
        return None
    return _open_pieces(source, [(b"", [span]) for span in pairwise((0, *starts[1:], source.size))])


def _starts(source: AudioSource, start: re.Pattern[bytes]) -> tuple[int, ...]:
    """Where the files begin that were joined in one. A large file that is not on this machine is not searched."""
    if isinstance(source, Parts):
        return ()
    with source.buffer() as data:
        return tuple(match.start() for match in start.finditer(data))


def _open_flac_without_length(source: AudioSource, file: SoundFileReader) -> AudioFile:
    """A FLAC that was streamed: its samples are counted, and its header is read with this number."""
    frames = 0
    while count := len(file.read(1 << 16)):
        frames += count
    with closing(source.open()) as raw:
        head = raw.read(FLAC_HEADER)
    header = head[:21] + bytes([head[21] & 0xF0 | frames >> 32]) + (frames & 0xFFFF_FFFF).to_bytes(4, "big")
    return _open_pieces(source, [(header, [(FLAC_HEADER, source.size)])])


def _open_unrecognized(source: AudioSource, head: bytes, error: Exception) -> AudioFile:
    """Opens a file that libsndfile cannot: MPEG audio after other bytes, or a format of PyAV."""
    from finetune.data.av_file import AvFile, is_container

    if not is_container(head):
        if parts := mpeg_parts(source):
            return _open_mpeg(source, parts)
        if getattr(error, "code", UNRECOGNIZED) == UNRECOGNIZED:
            return AvFile(source, "not audio in a supported format")
    return AvFile(source, "the file is damaged or truncated, or its encoding is not supported")


def mpeg_parts(source: AudioSource, *span: int) -> tuple[MpegPart, ...]:
    """The parts of MPEG audio; empty if most of the file is something else."""
    parts = _parts_of.get(source, lambda: tuple(find_parts(source, *span)), *span)
    audio = sum(stop - start for part in parts for start, stop in part.ranges)
    return parts if audio > MIN_MPEG_SHARE * source.size else ()


def _open_mpeg(source: AudioSource, parts: Sequence[MpegPart]) -> AudioFile:
    return _open_pieces(source, [(part.header(), part.ranges) for part in parts])


def _open_pieces(source: AudioSource, pieces: list[tuple[bytes, list[tuple[int, int]]]]) -> AudioFile:
    """Encodings that follow each other in one file, each a prefix and byte ranges, as one file."""
    readers = list[SoundFileReader | ArrayReader]()
    for prefix, ranges in pieces:
        try:
            reader = SoundFileReader(source, FilePieces(source, prefix, ranges))
        except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
            raise DataError(f"{source}: a part of the file cannot be decoded; encode the audio again") from error
        first = readers[0] if readers else reader
        same = (reader.samplerate, reader.channels) == (first.samplerate, first.channels)
        readers.append(reader if same else ArrayReader(reader, first.samplerate, first.channels))
    return readers[0] if len(readers) == 1 else JoinedReader(readers)
