"""Lines of text files of any size, plain or compressed with gzip, one at a time."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from finetune.core.errors import DataError
from finetune.core.files import open_regular, parse_jsonl

MAX_LINE = 64 << 20  # bytes; a longer line is not a row of a corpus
GZIP = b"\x1f\x8b"


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file in UTF-8 with their numbers from 1, without line ends and byte-order mark.

    Raises:
        DataError: the file cannot be read, is not UTF-8 or has a line of more than 64 MB.
    """
    number = 0
    try:
        with open(open_regular(path), "rb") as raw, _unzipped(raw) as file:
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


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON Lines file, plain or compressed with gzip, each with its position `path:line`.

    Raises:
        DataError: see `text_lines`; or lines are not JSON objects (after the last good line).
    """
    return parse_jsonl((text for _, text in text_lines(path)), path)


def first_object(path: Path) -> dict[str, Any] | None:
    """The object in the first line with text of a JSON Lines file; None if there is none."""
    try:
        line = next((text for _, text in text_lines(path) if text.strip()), "")
        row = json.loads(line) if line.lstrip().startswith("{") else None
    except (DataError, ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _unzipped(raw: IO[bytes]) -> IO[bytes]:
    head = raw.read(len(GZIP))
    raw.seek(0)
    return gzip.GzipFile(fileobj=raw) if head == GZIP else raw  # type: ignore[return-value]
