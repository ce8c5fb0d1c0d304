"""Readers of audio that libsndfile decodes: one file, parts of a file one after another, samples in memory.

All have the interface of `audio_file.AudioFile`.
"""

import io
from collections.abc import Sequence

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from finetune.core.errors import DataError
from finetune.data.audio_source import AudioSource, ReadableFile

TOLERANCE = 0.1  # seconds by which a segment can exceed its file, or a compressed file can be shorter than its header
PREROLL = 0.5  # seconds of MP3 and Vorbis that are decoded before a position: a frame depends on those before it


class SequentialSoundFile(soundfile.SoundFile):  # type: ignore[misc]
    """A file whose reads do not end with a seek, which restarts the decoder of MP3 and Vorbis and changes samples."""

    def seekable(self) -> bool:
        return False


class DecoderFile:
    """An open file for libsndfile, whose callbacks cannot raise: a failed read is the end; `check` raises its error.

    Attributes:
        error: the first failure.
    """

    def __init__(self, file: ReadableFile) -> None:
        self._file = file
        self.error: DataError | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except DataError as error:
            self.error = self.error or error
            return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()

    def check(self) -> None:
        if self.error:
            raise self.error


class SoundFileReader:
    """A file that libsndfile decodes.

    Args:
        source: its bytes.
        pieces: what is decoded in place of the complete source.

    Raises:
        DataError: the bytes cannot be read.
        soundfile.LibsndfileError, RuntimeError, TypeError, UnicodeEncodeError: libsndfile cannot open them.
    """

    def __init__(self, source: AudioSource, pieces: "FilePieces | None" = None) -> None:
        self._source, self._pieces = source, pieces
        file = self._open()
        self.samplerate, self.channels, self.frames = int(file.samplerate), int(file.channels), int(file.frames)
        self.subtype, self.format = str(file.subtype), str(file.format)
        self._preroll = round(PREROLL * file.samplerate) if self.subtype.startswith(("MPEG", "VORBIS")) else 0
        self._can_seek, self._position = soundfile.SoundFile.seekable(file), 0

    def _open(self) -> soundfile.SoundFile:
        local = self._source.local_path if self._pieces is None else None
        raw = None if local else self._pieces or self._source.open()
        self._raw = raw if raw is None or isinstance(raw, io.BytesIO) else DecoderFile(raw)
        try:
            self._file = SequentialSoundFile(local or self._raw)
        except (soundfile.LibsndfileError, RuntimeError, TypeError):
            if self._raw:
                self._raw.close()
            self._check()
            raise
        return self._file

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
            self._check()
            raise damaged(self._source) from error
        self._check()

    def read(self, count: int) -> NDArray[np.float32]:
        try:
            block: NDArray[np.float32] = self._file.read(count, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            self._check()
            raise damaged(self._source) from error
        self._check()
        self._position += len(block)
        return block

    def _check(self) -> None:
        """Raises the error of the file that libsndfile reads, if there is one."""
        if isinstance(self._raw, DecoderFile):
            self._raw.check()

    def _read_up_to(self, frame: int) -> None:
        """Goes to a frame of an encoding without random access, from the start of the file."""
        if frame < self._position:
            self.close()
            self._open()
            self._position = 0
        while self._position < frame and len(self.read(min(frame - self._position, self.samplerate))):
            pass

    def close(self) -> None:
        self._file.close()
        if self._raw:
            self._raw.close()


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

    def __init__(self, source: AudioSource, prefix: bytes, ranges: list[tuple[int, int]]) -> None:
        self._file = source.open()
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


def damaged(source: AudioSource) -> DataError:
    """The error of a file that a decoder refuses after its start. What decoders say about it is in their own words."""
    return DataError(f"{source}: decoding failed: the file is damaged or truncated; copy or download it again")
