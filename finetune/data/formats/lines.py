"""Lines of text files and URLs of any size, plain or compressed with gzip, one at a time."""

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from finetune.core.errors import DataError
from finetune.core.files import open_regular, parse_jsonl
from finetune.data.byte_range import is_url
from finetune.data.formats.json_list import RepeatedKeyError, list_items
from finetune.data.range_file import RangeFile
from finetune.data.remote import read_range, remote_state

MAX_LINE = 64 << 20  # bytes; a longer line is not a row of a corpus
PART = 1 << 16  # bytes in which the first character is looked for
BLOCK = 4 << 20  # bytes of a request
GZIP = b"\x1f\x8b"


def text_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file in UTF-8, or of a URL, with their numbers from 1, without line ends and byte-order mark.

    Raises:
        DataError: the file cannot be read, is not UTF-8 or has a line of more than 64 MB.
    """
    number = 0
    try:
        with _opened(path) as raw, _unzipped(raw) as file:
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise DataError(f"{path}:{number}: a line of more than {MAX_LINE >> 20} MB, so not a text file")
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if "\0" in text:
                    raise DataError(f"{path}:{number}: a binary file, not text; export it as UTF-8 text")
                yield number, text.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{number}: not UTF-8 text ({error.reason}); save the file as UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged or truncated after line {number} ({error}); make or copy it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def json_objects(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of JSON Lines or of a JSON list, plain or compressed with gzip, each with its position.

    Raises:
        DataError: see `text_lines`; or there is anything else than objects (after the last good one).
    """
    if _first_character(path) == b"[":
        return _list_objects(path)
    return parse_jsonl((text for _, text in text_lines(path)), path)


def _list_objects(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    number, wrong = 0, ""
    try:
        with _opened(path) as raw, io.TextIOWrapper(_unzipped(raw), "utf-8-sig") as file:
            for number, item in enumerate(list_items(file, MAX_LINE), 1):
                where = f"{path}: item {number}"
                if isinstance(item, dict):
                    yield where, item
                wrong = wrong or ("" if isinstance(item, dict) else where)
    except RepeatedKeyError as error:
        raise DataError(f"{path}: item {number + 1}: {error}") from error
    except (ValueError, RecursionError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path}: neither JSON Lines nor a JSON list ({error})") from error
    if wrong:
        raise DataError(f"{wrong}: not a JSON object")


def first_object(path: Path) -> dict[str, Any] | None:
    """The first object of a JSON Lines file or a JSON list; None if it begins with anything else."""
    try:
        if (first := _first_character(path)) == b"[":
            return next((item for _, item in _list_objects(path)), None)
        line = next((text for _, text in text_lines(path) if text.strip()), "") if first == b"{" else ""
        row = json.loads(line) if line else None
    except (DataError, ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _first_character(path: str | Path) -> bytes:
    """The first character that is not white space; b"" if there is none in the first part of a file."""
    try:
        with _opened(path) as raw, _unzipped(raw) as file:
            return file.read(PART).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    except (OSError, EOFError, zlib.error):  # reported when the file is read
        return b""


def _opened(path: str | Path) -> IO[bytes]:
    if not is_url(str(path)):
        return open(open_regular(path), "rb")
    url = str(path)
    size = remote_state(url).size
    if size is None:
        raise DataError(f"{url}: the server does not state the size of the file; download it")
    return io.BufferedReader(_RemoteFile(RangeFile(lambda start, stop: read_range(url, start, stop), size, BLOCK)))


class _RemoteFile(io.RawIOBase):
    """A remote file for the buffers of Python."""

    def __init__(self, file: RangeFile) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _unzipped(raw: IO[bytes]) -> IO[bytes]:
    head = raw.read(len(GZIP))
    raw.seek(0)
    return gzip.GzipFile(fileobj=raw) if head == GZIP else raw  # type: ignore[return-value]
