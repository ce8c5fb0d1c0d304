"""The bytes of audio: of a local file, of a member of an archive (`byte_range`), or of a file on another machine.

A member or a remote file of up to WHOLE bytes is read at once into memory; a larger one is read in parts, on demand.
"""

import errno
import hashlib
import io
import mmap
import os
import stat
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Generic, Protocol, TypeVar

from finetune.core.errors import DataError
from finetune.data.byte_range import ByteRange, is_url, local_path, parse_byte_range
from finetune.data.range_file import RangeFile
from finetune.data.remote import read_range, remote_state

WHOLE = 8 << 20  # bytes
LOCAL_BLOCK, REMOTE_BLOCK = 1 << 16, 1 << 18  # bytes that are read from a larger one at least
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EBADF, errno.ELOOP)

Result = TypeVar("Result")
Buffer = bytes | mmap.mmap


class ReadableFile(Protocol):
    """What decoders need of a file."""

    def read(self, size: int = -1, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def tell(self) -> int: ...

    def close(self) -> None: ...


class AudioSource(ABC):
    """The bytes of an audio file.

    Attributes:
        path: its name in `audio_filepath`, which `str` returns for messages.
        size: bytes.
    """

    path: str
    size: int

    def __str__(self) -> str:
        return self.path

    @property
    @abstractmethod
    def key(self) -> Hashable:
        """Changes with the content."""

    @abstractmethod
    def open(self) -> ReadableFile: ...

    @contextmanager
    def buffer(self) -> Iterator[Buffer]:
        """All bytes."""
        yield self.open().read()

    @property
    def local_path(self) -> str | None:
        """The path for decoders that open the file themselves; None if its bytes are elsewhere."""
        return None


class LocalFile(AudioSource):
    """A file on a disk of this machine."""

    def __init__(self, path: str, status: os.stat_result) -> None:
        self.path, self.size, self.time = path, status.st_size, status.st_mtime_ns

    @property
    def key(self) -> Hashable:
        return self.path, self.time, self.size

    def open(self) -> BinaryIO:
        return open(local_path(self.path), "rb")

    @contextmanager
    def buffer(self) -> Iterator[Buffer]:
        with self.open() as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data

    @property
    def local_path(self) -> str:
        return local_path(self.path)


class Content(AudioSource):
    """A member or a remote file in memory."""

    def __init__(self, path: str, content: bytes) -> None:
        self.path, self.size, self.content = path, len(content), content

    @cached_property
    def key(self) -> Hashable:
        return self.path, hashlib.blake2b(self.content, digest_size=16).digest()

    def open(self) -> BinaryIO:
        return io.BytesIO(self.content)  # shares the bytes

    @contextmanager
    def buffer(self) -> Iterator[Buffer]:
        yield self.content


class Parts(AudioSource):
    """A large member or remote file.

    Args:
        path: its name.
        size: bytes.
        version: changes with its content.
        read: returns the bytes from a start to a stop.
        block: bytes that are read at least.
    """

    def __init__(self, path: str, size: int, version: Hashable, read: Callable[[int, int], bytes], block: int) -> None:
        self.path, self.size, self._version, self._read, self._block = path, size, version, read, block

    @property
    def key(self) -> Hashable:
        return self.path, self.size, self._version

    def open(self) -> RangeFile:
        return RangeFile(self._read, self.size, self._block, largest=WHOLE)


class SourceCache(Generic[Result]):
    """Results for the last sources, by their content. Holds no content."""

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, Lock()
        self._results = OrderedDict[Hashable, Result]()

    def get(self, source: AudioSource, make: Callable[[], Result], *more: Hashable) -> Result:
        """The result for a source, and for `more` that it depends on; from `make` if it is new."""
        key = (source.key, *more)
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
        result = make()
        with self._lock:
            self._results[key] = result
            if len(self._results) > self._size:
                self._results.popitem(last=False)
        return result


def audio_source(path: "str | Path | AudioSource") -> AudioSource:
    """The source of a path, a member or a URL. The bytes of a small member or remote file are read here.

    Raises:
        DataError: the file or archive is missing, cannot be read, or ends before the member does.
    """
    if isinstance(path, AudioSource):
        return path
    name = str(path)
    if (member := parse_byte_range(name)) is not None:
        file = local_path(member.file)
        return _remote_member(name, member) if is_url(file) else _local_member(name, member, file)
    return _remote_file(name) if is_url(local_path(name)) else LocalFile(name, local_status(local_path(name), name))


def local_status(file: str, label: str) -> os.stat_result:
    """The status of a local file. Raises DataError if it is missing or is not a file."""
    try:
        status = os.stat(file)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if isinstance(error, ValueError) or error.errno in ABSENT:
            raise DataError(f"{label}: no such file") from error
        raise DataError(f"{label}: cannot be read ({error})") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{label}: this is a folder or a device, not a file")
    return status


def _local_member(name: str, member: ByteRange, file: str) -> AudioSource:
    status = local_status(file, name)
    _check_end(name, member, status.st_size)

    def read(start: int, stop: int) -> bytes:
        try:
            with open(file, "rb", buffering=0) as raw:
                return os.pread(raw.fileno(), stop - start, member.start + start)
        except OSError as error:
            raise DataError(f"{name}: cannot be read ({error.strerror})") from error

    if member.length > WHOLE:
        return Parts(name, member.length, (status.st_mtime_ns, status.st_size), read, LOCAL_BLOCK)
    return _complete(name, member, read(0, member.length))


def _remote_member(name: str, member: ByteRange) -> AudioSource:
    def read(start: int, stop: int) -> bytes:
        return read_range(member.file, member.start + start, member.start + stop, name)

    if member.length <= WHOLE:
        return _complete(name, member, read(0, member.length) if member.length else b"")
    state = remote_state(member.file, name)
    if state.size is not None:
        _check_end(name, member, state.size)
    return Parts(name, member.length, (state.size, state.version), read, REMOTE_BLOCK)


def _remote_file(name: str) -> AudioSource:
    content = read_range(name, 0, WHOLE + 1)
    if len(content) <= WHOLE:
        return Content(name, content)
    state = remote_state(name)
    if state.size is None:
        raise DataError(f"{name}: the server does not state the size of the file; download it")

    def read(start: int, stop: int) -> bytes:
        return content[start:stop] if stop <= len(content) else read_range(name, start, stop)

    return Parts(name, state.size, state.version, read, REMOTE_BLOCK)


def _check_end(name: str, member: ByteRange, size: int) -> None:
    if member.start + member.length > size:
        raise DataError(
            f"{name}: the archive has only {size} bytes: it is truncated, or was written again; copy or download it "
            "again, or read the corpus again"
        )


def _complete(name: str, member: ByteRange, content: bytes) -> Content:
    if len(content) < member.length:
        raise DataError(
            f"{name}: the archive ends after {len(content)} of the {member.length} bytes of the member: it is "
            "truncated, or was written again; copy or download it again, or read the corpus again"
        )
    return Content(name, content)
