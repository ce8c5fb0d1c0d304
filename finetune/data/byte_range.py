"""Names a member of an archive, such as a clip in a tar shard, by a string that fits into `audio_filepath`.

The form is `FILE::NAME?bytes=FIRST-LAST`: the archive (a path or a URL), the name of the member, and its first and last
byte as in the Range header of HTTP (RFC 9110). So a reader needs no index of the archive. The archive must not be
compressed as a whole.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

_FORM = re.compile(r"(?P<file>.+)::(?P<name>[^:?]*)\?bytes=(?P<first>\d+)-(?P<last>\d+)", re.DOTALL)


@dataclass(frozen=True)
class ByteRange:
    """A member of an archive: its file, its name, its first byte and its length in bytes."""

    file: str
    name: str
    start: int
    length: int

    def __str__(self) -> str:
        name = quote(self.name, safe=" /!#$&'()*+,;=@[]")  # a name with : or ? is still one name
        return f"{self.file}::{name}?bytes={self.start}-{self.start + self.length - 1}"


def parse_byte_range(path: str) -> ByteRange | None:
    """The member that a path names; None if it names a whole file."""
    match = _FORM.fullmatch(path)
    if match is None or int(match["last"]) < int(match["first"]) - 1:  # an empty member ends before its first byte
        return None
    first, last = int(match["first"]), int(match["last"])
    return ByteRange(match["file"], unquote(match["name"]), first, last - first + 1)


def is_url(path: str) -> bool:
    """Whether a path is a URL of fsspec, such as `s3://bucket/clip.flac`, also as the archive of a member."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None
