"""Names a member of an archive, such as a clip in a tar shard, by a string that fits into `audio_filepath`.

The form is `FILE::NAME?bytes=FIRST-LAST`: the archive (a path or a URL), the name of the member, and its first and last
byte as in the Range header of HTTP (RFC 9110). So a reader needs no index of the archive. The archive must not be
compressed as a whole.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from urllib.parse import quote, unquote, urlsplit

_FORM = re.compile(r"(?P<file>.+)::(?P<name>[^:?]*)\?bytes=(?P<first>\d+)-(?P<last>\d+)", re.DOTALL)


@dataclass(frozen=True)
class ByteRange:
    """A member of an archive: its file, its name, its first byte and its length in bytes."""

    file: str
    name: str
    start: int
    length: int

    def __str__(self) -> str:
        safe = " /!#$&'()*+,;=@[]"  # a name with : or ? is still one name, and one that is not UTF-8 too
        name = quote(self.name, safe, errors="surrogateescape")
        return f"{self.file}::{name}?bytes={self.start}-{self.start + self.length - 1}"


def parse_byte_range(path: str) -> ByteRange | None:
    """The member that a path names; None if it names a whole file."""
    match = _FORM.fullmatch(path) if "?bytes=" in path else None
    if match is None or int(match["last"]) < int(match["first"]) - 1:  # an empty member ends before its first byte
        return None
    first, last = int(match["first"]), int(match["last"])
    return ByteRange(match["file"], unquote(match["name"], errors="surrogateescape"), first, last - first + 1)


def is_url(path: str) -> bool:
    """Whether a path is a URL of fsspec, such as `s3://bucket/clip.flac`, also as the archive of a member."""
    return "://" in path and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def local_path(path: str) -> str:
    """The path of a `file://` URL; any other path as it is."""
    return re.sub(r"^(file|local)://", "", path) if "://" in path else path


def file_of(path: str) -> str:
    """The file that has the bytes: the archive of a member, or the file itself."""
    member = parse_byte_range(path)
    return local_path(member.file if member else path)


def pure_path(path: str) -> PurePath:
    """The path of a file, a member or a URL, without what follows it."""
    member = parse_byte_range(path)
    if member is None and is_url(path):
        path = unquote(urlsplit(path).path)
    return PurePath(member.name if member else path)


def stem_of(path: str) -> str:
    """The name of a file or member without folders and suffix."""
    return pure_path(path).stem


def in_folder(folder: Path, path: str) -> str:
    """A path that is relative to a folder, also of a member's archive; a URL or an absolute path stays."""
    if is_url(path):
        return path
    member = parse_byte_range(path)
    return str(replace(member, file=str(folder / member.file)) if member else folder / path)


def is_fetched(path: str) -> bool:
    """Whether the bytes are fetched into memory before they are decoded: those of members and of remote files."""
    return is_url(local_path(path)) or parse_byte_range(path) is not None
