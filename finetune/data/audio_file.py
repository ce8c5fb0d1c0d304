"""Opens an audio file of any format behind one interface: sample rate, channels, true number of frames, seek, read.

libsndfile reads WAV, FLAC, MP3, Ogg, Opus, AIFF and others; PyAV (`av_file`) reads what libsndfile cannot open. The
suffix does not matter. libsndfile believes an estimated or stated length, so MP3 frames are counted, the links of a
chained Ogg file are found, and the size of a WAV is compared with the file.
"""

import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from finetune.core.errors import DataError
from finetune.data.mpeg import MpegPart, find_parts, is_mpeg
from finetune.data.ogg import find_links

MIN_SOURCE_RATE, MAX_SOURCE_RATE = 4_000, 384_000  # Hz; outside this range the header is damaged
TOLERANCE = 0.1  # seconds by which a segment can exceed its file, or a compressed file can be shorter than its header
UNKNOWN_SIZE = 0x7FFF_F000  # ffmpeg and sox write at least this data size when they stream a WAV of unknown size
UNKNOWN_FRAMES = 1 << 40  # libsndfile returns a huge number for a FLAC without a length
TAG_TOLERANCE = 2  # frames; some encoders count the tag itself or the frame after the last
MIN_MPEG_SHARE = 0.5  # of a file that libsndfile does not recognize; with fewer MPEG frames it is something else
FLAC_HEADER = 26  # bytes up to the end of the number of samples
PREROLL = 0.5  # seconds of MP3 and Vorbis that are decoded before a position: a frame depends on those before it


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
def open_audio(path: str | Path) -> Iterator[AudioFile]:
    """Opens an audio file after checks of its header.

    Raises:
        DataError: the file is missing, not audio, empty or truncated, or its header is damaged.
        MissingExtraError: the file needs PyAV, which is not installed.
    """
    file = _open(path, _first_bytes(path))
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


def count_channels(path: str | Path) -> int:
    """The number of channels in the header of a file. Raises DataError if it cannot be opened."""
    file = _open(path, _first_bytes(path))
    file.close()
    return file.channels


def _first_bytes(path: str | Path) -> bytes:
    """The first bytes of a file that exists and has the size that its header states."""
    try:
        if "://" in str(path):
            raise DataError(f"{path}: this is a URL; download the file first")
        if not Path(path).exists():
            raise DataError(f"{path}: no such file")
        if not Path(path).is_file():
            raise DataError(f"{path}: this is a folder or a device, not a file")
        with open(path, "rb") as raw:
            head = raw.read(64)
            if not head:
                raise DataError(f"{path}: the file is empty (0 bytes)")
            _check_wav_size(raw, path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(f"{path}: cannot be read ({error})") from error
    if head.startswith(b"version https://git-lfs"):
        raise DataError(f"{path}: this is a Git LFS pointer, not the audio; run `git lfs pull`")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"<", b"{", b"["):
        raise DataError(
            f"{path}: this is a web page or JSON, not audio; the download probably failed, download it again"
        )
    return head


def _open(path: str | Path, head: bytes) -> AudioFile:
    if is_mpeg(head):
        parts = _mpeg_parts(path)
        if any(part.stated is not None and part.stated < part.frames - TAG_TOLERANCE for part in parts) or (
            len(parts) > 1 or any(len(part.ranges) > 1 for part in parts)
        ):
            return _open_mpeg(path, parts)
    try:
        file = SequentialSoundFile(path)
    except UnicodeEncodeError as error:
        raise DataError(f"{path}: the file name is not UTF-8; rename the file") from error
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        return _open_unrecognized(path, head, error)
    better = _better_reader(path, file)
    if better:
        file.close()
    return better or SoundFileReader(path, file)


def _better_reader(path: str | Path, file: soundfile.SoundFile) -> AudioFile | None:
    """Another reader of a file, if libsndfile's length is wrong."""
    if file.subtype.startswith("MPEG"):
        parts = _mpeg_parts(path, *(_data_chunk(path) if file.format == "WAV" else ()))
        if sum(part.stated is None for part in parts) == 1:  # the length is an estimate
            frames = parts[0].frames * parts[0].samples_per_frame
            return _open_mpeg(path, parts) if abs(frames - file.frames) > TOLERANCE * file.samplerate else None
    if file.format == "OGG" and len(links := find_links(path)) > 1:
        return _open_pieces(path, [(b"", [link]) for link in links])
    if file.frames > UNKNOWN_FRAMES:
        return _open_flac_without_length(path, SoundFileReader(path, file))
    return None


def _open_flac_without_length(path: str | Path, file: "SoundFileReader") -> AudioFile:
    """A FLAC that was streamed: its samples are counted, and its header is read with this number."""
    frames = 0
    while count := len(file.read(1 << 16)):
        frames += count
    with open(path, "rb") as raw:
        head = raw.read(FLAC_HEADER)
    header = head[:21] + bytes([head[21] & 0xF0 | frames >> 32]) + (frames & 0xFFFF_FFFF).to_bytes(4, "big")
    return _open_pieces(path, [(header, [(FLAC_HEADER, Path(path).stat().st_size)])])


def _open_unrecognized(path: str | Path, head: bytes, error: Exception) -> AudioFile:
    """Opens a file that libsndfile cannot: MPEG audio after other bytes, or a format of PyAV."""
    from finetune.data.av_file import AvFile, is_container

    if is_container(head):
        return AvFile(path, "libsndfile does not read this container")
    return (
        _open_mpeg(path, parts)
        if (parts := _mpeg_parts(path))
        else AvFile(path, f"not audio in a supported format ({error})")
    )


def _mpeg_parts(path: str | Path, *span: int) -> tuple[MpegPart, ...]:
    """The parts of MPEG audio; empty if most of the file is something else."""
    status = Path(path).stat()
    parts = _cached_parts(str(path), status.st_mtime_ns, status.st_size, *span)
    audio = sum(stop - start for part in parts for start, stop in part.ranges)
    return parts if audio > MIN_MPEG_SHARE * status.st_size else ()


@functools.lru_cache(256)
def _cached_parts(path: str, _time: int, _size: int, *span: int) -> tuple[MpegPart, ...]:
    """Time of change and size are part of the key of the cache."""
    return tuple(find_parts(path, *span))


def _open_mpeg(path: str | Path, parts: Sequence[MpegPart]) -> AudioFile:
    return _open_pieces(path, [(part.header(), part.ranges) for part in parts])


def _open_pieces(path: str | Path, pieces: list[tuple[bytes, list[tuple[int, int]]]]) -> AudioFile:
    """Encodings that follow each other in one file, each a prefix and byte ranges, as one file."""
    readers = list[SoundFileReader | ArrayReader]()
    for prefix, ranges in pieces:
        part = FilePieces(path, prefix, ranges)
        try:
            reader = SoundFileReader(path, SequentialSoundFile(part), part)
        except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
            raise DataError(
                f"{path}: a part of the file cannot be decoded ({error}); encode the audio again"
            ) from error
        first = readers[0] if readers else reader
        same = (reader.samplerate, reader.channels) == (first.samplerate, first.channels)
        readers.append(reader if same else ArrayReader(reader, first.samplerate, first.channels))
    return readers[0] if len(readers) == 1 else JoinedReader(readers)


class SequentialSoundFile(soundfile.SoundFile):  # type: ignore[misc]
    """A file whose reads do not end with a seek, which restarts the decoder of MP3 and Vorbis and changes samples."""

    def seekable(self) -> bool:
        return False


class SoundFileReader:
    """A file that libsndfile decodes."""

    def __init__(self, path: str | Path, file: soundfile.SoundFile, source: "FilePieces | None" = None) -> None:
        self._path, self._file, self._source = path, file, source
        self.samplerate, self.channels, self.frames = int(file.samplerate), int(file.channels), int(file.frames)
        self._preroll = round(PREROLL * file.samplerate) if file.subtype.startswith(("MPEG", "VORBIS")) else 0
        self._can_seek, self._position = soundfile.SoundFile.seekable(file), 0

    def tell(self) -> int:
        return self._position  # libsndfile's tell is a seek, which GSM and G.721 refuse

    def seek(self, frame: int) -> None:
        if not self._can_seek:
            self._read_up_to(frame)
            return
        start, self._position = max(0, frame - self._preroll), frame
        try:
            if self._preroll:  # libsndfile's short way forward in a Vorbis file gives wrong samples
                self._file.seek(0)
            self._file.seek(start)
            if start < frame:
                self._file.read(frame - start, dtype="float32")
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise _damaged(self._path, error) from error

    def read(self, count: int) -> NDArray[np.float32]:
        try:
            block: NDArray[np.float32] = self._file.read(count, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise _damaged(self._path, error) from error
        self._position += len(block)
        return block

    def _read_up_to(self, frame: int) -> None:
        """Goes to a frame of an encoding without random access, from the start of the file."""
        if frame < self._position:
            self._file.close()
            self._file, self._position = SequentialSoundFile(self._path), 0
        while self._position < frame and len(self.read(min(frame - self._position, self.samplerate))):
            pass

    def close(self) -> None:
        self._file.close()
        if self._source:
            self._source.close()


class ArrayReader:
    """A file in memory, converted to a sample rate and a number of channels."""

    def __init__(self, file: SoundFileReader, samplerate: int, channels: int) -> None:
        samples = file.read(file.frames)
        file.close()
        if file.channels != channels:
            samples = np.repeat(samples.mean(axis=1, keepdims=True), channels, axis=1)
        self._samples = soxr.resample(samples, file.samplerate, samplerate, quality="HQ").astype(np.float32, copy=False)
        self._position, self.samplerate, self.channels, self.frames = 0, samplerate, channels, len(self._samples)

    def tell(self) -> int:
        return self._position

    def seek(self, frame: int) -> None:
        self._position = frame

    def read(self, count: int) -> NDArray[np.float32]:
        block = self._samples[self._position : self._position + count]
        self._position += len(block)
        return block

    def close(self) -> None:
        pass


class JoinedReader:
    """Several readers of one sample rate and number of channels, one after another."""

    def __init__(self, readers: "Sequence[SoundFileReader | ArrayReader]") -> None:
        self._readers = readers
        self._starts = [0, *np.cumsum([reader.frames for reader in readers]).tolist()]
        self._position = 0
        self.samplerate, self.channels, self.frames = readers[0].samplerate, readers[0].channels, self._starts[-1]

    def tell(self) -> int:
        return self._position

    def seek(self, frame: int) -> None:
        self._position = frame

    def read(self, count: int) -> NDArray[np.float32]:
        """Frames of one of the readers."""
        index = int(np.searchsorted(self._starts, self._position, "right")) - 1
        if index >= len(self._readers):
            return np.zeros((0, self.channels), np.float32)
        reader, start = self._readers[index], self._position - self._starts[index]
        if reader.tell() != start:
            reader.seek(start)
        count = min(count, reader.frames - start)
        block = reader.read(count)
        if len(block) < count <= len(block) + TOLERANCE * self.samplerate:  # the stated length was an estimate
            block = np.pad(block, ((0, count - len(block)), (0, 0)))
        self._position += len(block)
        return block

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


class FilePieces:
    """A file-like object: a prefix, then byte ranges of a file."""

    def __init__(self, path: str | Path, prefix: bytes, ranges: list[tuple[int, int]]) -> None:
        self._file: BinaryIO = open(path, "rb")  # noqa: SIM115 - closed by `close`
        self._prefix, self._ranges, self._position = prefix, ranges, 0
        self._starts = (len(prefix) + np.cumsum([0, *(stop - start for start, stop in ranges)])).tolist()

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + {0: 0, 1: self._position, 2: self._starts[-1]}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        size = max(0, self._starts[-1] - self._position) if size < 0 else size
        content = self._prefix[self._position : self._position + size] if self._position < len(self._prefix) else b""
        index = max(0, int(np.searchsorted(self._starts, self._position + len(content), "right")) - 1)
        while len(content) < size and index < len(self._ranges):
            start, stop = self._ranges[index]
            start += self._position + len(content) - self._starts[index]
            self._file.seek(start)
            content += self._file.read(min(size - len(content), stop - start))
            index += 1
        self._position += len(content)
        return content

    def close(self) -> None:
        self._file.close()


def _damaged(path: str | Path, error: Exception) -> DataError:
    return DataError(f"{path}: decoding failed: the file is damaged or truncated ({error}); copy or download it again")


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


def _data_chunk(path: str | Path) -> tuple[int, int]:
    """Start and end of the audio in a WAV."""
    with open(path, "rb") as raw:
        return next(((raw.tell(), raw.tell() + size) for name, size in _chunks(raw) if name == b"data"), (0, 0))


def _check_wav_size(raw: BinaryIO, path: str | Path) -> None:
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
