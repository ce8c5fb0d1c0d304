"""Finds the members of a tar archive, local or remote, from its headers: name, first byte and length of each file.

Formats: ustar, GNU and pax, with long names. Only headers are read, and for a remote archive what lies between small
members. The result can be kept in a binary file, so that an archive is read once.
"""

import hashlib
import logging
import os
import struct
import tarfile
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.core.errors import DataError
from finetune.core.files import write_bytes
from finetune.core.lazy_sequence import LazySequence
from finetune.data.audio_facts import cache_folder
from finetune.data.byte_range import ByteRange, is_url
from finetune.data.range_file import RangeFile
from finetune.data.remote import read_range, remote_state

log = logging.getLogger(__name__)

BLOCK = tarfile.BLOCKSIZE
COMPRESSED = {  # first bytes of what is not a plain tar
    b"\x1f\x8b": "compressed with gzip",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"PK": "a ZIP archive",
}
MAGIC = b"TARINDEX1\n"
HEADER = struct.Struct("<32sQQ")  # digest of the archive's state, number of members, bytes of all names
LARGE = 16 << 20  # bytes of a local archive whose index is kept by default
NEAR = 2 << 20  # bytes; up to this size, what lies between the headers of a remote archive is read too
LONG_READ, SHORT_READ = 4 << 20, 1 << 16  # bytes of a request, if the next header is near, and if it is not

Numbers = NDArray[np.int64]


class TarIndex(LazySequence[ByteRange]):
    """The files in an archive, in their order. It holds names and numbers, no objects.

    Attributes:
        path: the archive.
        starts, lengths: first byte and number of bytes of each file.
    """

    def __init__(self, path: str, names: bytes, name_ends: Numbers, starts: Numbers, lengths: Numbers) -> None:
        self.path, self.starts, self.lengths = path, starts, lengths
        self._names, self._name_ends = names, name_ends

    def __len__(self) -> int:
        return len(self.starts)

    def item(self, index: int) -> ByteRange:
        return ByteRange(self.path, self.name(index), int(self.starts[index]), int(self.lengths[index]))

    def name(self, index: int) -> str:
        start = int(self._name_ends[index - 1]) if index else 0
        return self._names[start : int(self._name_ends[index])].decode("utf-8", "surrogateescape")

    def to_bytes(self, state: bytes) -> bytes:
        """The content of an index file."""
        header = MAGIC + HEADER.pack(state, len(self), len(self._names))
        numbers = np.stack([self._name_ends, self.starts, self.lengths]).astype("<i8")
        return header + numbers.tobytes() + self._names

    @staticmethod
    def from_bytes(content: bytes, path: str, state: bytes) -> "TarIndex | None":
        """The index in the content of a file; None if it is damaged, or of another archive."""
        start = len(MAGIC) + HEADER.size
        if len(content) < start or not content.startswith(MAGIC):
            return None
        recorded, count, size = HEADER.unpack(content[len(MAGIC) : start])
        if recorded != state or len(content) != start + 24 * count + size:
            return None
        numbers = np.frombuffer(content, "<i8", 3 * count, start).reshape(3, count)
        return TarIndex(path, content[start + 24 * count :], *numbers)


def read_tar_index(path: str | Path, cache_dir: Path | None = None) -> TarIndex:
    """The regular files in a tar archive.

    Args:
        path: a file or a URL of fsspec.
        cache_dir: folder for the index, by default that of the user's caches. An index beside a local archive
            (`PATH.index`, from `write_tar_index`) is used too. An index of another size or time is not used.

    Raises:
        DataError: the archive is missing, compressed, damaged, truncated, or has sparse files.
    """
    path = str(path)
    size, state = _state(path)
    if not is_url(path) and (index := _read_cached(index_beside(path), path, state)) is not None:
        return index
    if cache_dir is None and (is_url(path) or size >= LARGE):
        cache_dir = (folder := cache_folder()) and folder / "tar"
    if cache_dir is None:
        return _scan(path, size)
    digest = hashlib.sha256(os.path.abspath(path).encode("utf-8", "surrogateescape")).hexdigest()
    cached = cache_dir / f"{path.rsplit('/', 1)[-1][:80]}-{digest[:12]}.index"
    if (index := _read_cached(cached, path, state)) is None:
        index = _scan(path, size)
        try:
            _write(cached, index, state)
        except OSError as error:
            log.info("%s: the index cannot be kept (%s)", cached, error.strerror)
    return index


def write_tar_index(path: str | Path) -> Path:
    """Writes the index of a local archive beside it. Raises DataError as `read_tar_index`."""
    path = str(path)
    size, state = _state(path)
    return _write(index_beside(path), _scan(path, size), state)


def index_beside(path: str) -> Path:
    return Path(f"{path}.index")


def _write(file: Path, index: TarIndex, state: bytes) -> Path:
    write_bytes(file, index.to_bytes(state))
    return file


def _read_cached(file: Path, path: str, state: bytes) -> TarIndex | None:
    try:
        return TarIndex.from_bytes(file.read_bytes(), path, state)
    except OSError:
        return None


def _state(path: str) -> tuple[int, bytes]:
    """The size of an archive, and a digest of what changes with its content."""
    if is_url(path):
        remote = remote_state(path)
        if remote.size is None:
            raise DataError(f"{path}: the server does not state the size of the archive; download it")
        size, version = remote.size, remote.version
    else:
        try:
            status = os.stat(path)
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file") from error
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
        size, version = status.st_size, str(status.st_mtime_ns)
    return size, hashlib.sha256(f"{size} {version}".encode()).digest()


def _scan(path: str, size: int) -> TarIndex:
    names, ends, starts, lengths = list[bytes](), list[int](), list[int](), list[int]()
    for member in _members(path, size):
        names.append(member.name.encode("utf-8", "surrogateescape"))
        ends.append(len(names[-1]) + (ends[-1] if ends else 0))
        starts.append(member.start)
        lengths.append(member.length)
    return TarIndex(path, b"".join(names), *(np.array(values, np.int64) for values in (ends, starts, lengths)))


def _members(path: str, size: int) -> Iterator[ByteRange]:
    """The files of an archive. An archive after the end of another one (`cat a.tar b.tar`) is read too."""
    raw = _open(path, size)
    try:
        _check_first_bytes(path, raw)
        position = 0
        while position < size:
            position = _next_archive(path, raw, (yield from _files(path, raw, position)))
    except (tarfile.TarError, UnicodeError, ValueError) as error:
        raise DataError(f"{path}: not a tar archive, or damaged ({error}); make or download it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    finally:
        raw.close()


def _files(path: str, raw: RangeFile, position: int) -> Generator[ByteRange, None, int]:
    """The files of the archive at a position; returns its end. A hard link has the bytes of the file that it names."""
    by_name, others = dict[str, ByteRange](), 0
    while True:
        raw.seek(position)
        if plain := _plain_file(raw.read(BLOCK)):
            member = ByteRange(path, plain[0], position + BLOCK, plain[1])
            position += BLOCK + -(-member.length // BLOCK) * BLOCK
        else:
            raw.seek(position)
            archive = tarfile.TarFile(fileobj=raw, mode="r", errorlevel=2)  # type: ignore[arg-type]
            info, position = archive.next(), archive.offset
            if info is None:
                break
            if info.type == tarfile.GNUTYPE_SPARSE or info.sparse is not None:
                raise DataError(f"{path}: {info.name} is a sparse file; write the archive without --sparse")
            if info.isreg():
                member = ByteRange(path, info.name, info.offset_data, info.size)
            elif info.islnk() and info.linkname in by_name:
                member = replace(by_name[info.linkname], name=info.name)
            else:
                others += not info.isdir()
                continue
        if member.start + member.length > raw.size:
            raise DataError(
                f"{path}: truncated: {member.name} ends at byte {member.start + member.length}, but the archive has "
                f"{raw.size} bytes; make or download it again"
            )
        if is_url(path):
            raw.block = LONG_READ if member.length <= NEAR else SHORT_READ
        by_name[member.name] = member
        yield replace(member, name=member.name.removeprefix("./"))
    if others:
        log.warning("%s: %d members are not files (such as symbolic links) and are left out", path, others)
    return position


def _plain_file(block: bytes) -> tuple[str, int] | None:
    """Name and size in the header of a file with a short name; None if it is another header. `tarfile` is slower."""
    if len(block) < BLOCK or block[156:157] not in (b"0", b"\0") or block[257:262] != b"ustar":
        return None
    size, checksum = block[124:136].rstrip(b"\0 "), block[148:156].rstrip(b"\0 ")
    if not size.isdigit() or not checksum.strip().isdigit():
        return None
    if int(checksum, 8) != sum(block[:148]) + 8 * 32 + sum(block[156:]):  # the checksum itself counts as spaces
        return None
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and (prefix := block[345:500].partition(b"\0")[0]):
        name = prefix + b"/" + name
    return None if name.endswith(b"/") or not name else (name.decode("utf-8", "surrogateescape"), int(size, 8))


def _open(path: str, size: int) -> RangeFile:
    if is_url(path):
        return RangeFile(lambda start, stop: read_range(path, start, stop), size, SHORT_READ)
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by the RangeFile
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return RangeFile(lambda start, stop: os.pread(file.fileno(), stop - start, start), size, 2 * BLOCK, file.close)


def _check_first_bytes(path: str, raw: RangeFile) -> None:
    head = raw.read(BLOCK)
    if not head:
        raise DataError(f"{path}: the file is empty (0 bytes)")
    if head.startswith(b"version https://git-lfs"):
        raise DataError(f"{path}: this is a Git LFS pointer, not the archive; run `git lfs pull`")
    for mark, what in COMPRESSED.items():
        if head.startswith(mark) and head[257:262] != b"ustar":
            raise DataError(f"{path}: {what}, so its members cannot be read in place; write an uncompressed tar")


def _next_archive(path: str, raw: RangeFile, position: int) -> int:
    """Where the next archive starts after the end of one at `position`; the size of the file if there is none."""
    raw.seek(position)
    first = True
    while block := raw.read(BLOCK):
        if block.count(0) != len(block):
            if first:
                raise DataError(
                    f"{path}: damaged or truncated at byte {position}: no header of a member; make or download the "
                    "archive again"
                )
            if _is_header(block):
                return position
            log.warning("%s: the bytes after the end of the archive (from byte %d) are ignored", path, position)
            break
        first = False
        position += len(block)
    return raw.size


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True
