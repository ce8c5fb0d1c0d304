"""The lines of a text file in UTF-8 or UTF-16, one by one and from any position."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from finetune.core.errors import DataError
from finetune.core.files import open_regular, read_bytes

BOM, UTF16 = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
ELAN = ".eaf"  # XML, with a check of its own
DOCUMENTS = {"{\\rtf": "an RTF document", "%PDF-": "a PDF document", "<!doctype html": "HTML", "<html": "HTML"}


@dataclass(frozen=True)
class LinePosition:
    """The start of a line: its byte (of the text in UTF-8, after a byte-order mark) and its number."""

    byte: int = 0
    line: int = 1


START = LinePosition()


class TextLines:
    """The lines of a file with their line feeds; a line ends only there. One line is in memory.

    A file in UTF-16 is in memory as a whole. An error is raised at its line.

    Args:
        path: the file.
        start: the first line.
        carriage_returns: a line also ends at a carriage return alone, as in tables of old programs.

    Attributes:
        byte, line: the position of the next line.
    """

    def __init__(self, path: Path, start: LinePosition = START, carriage_returns: bool = False) -> None:
        self.path, self.byte, self.line, self._splits = path, start.byte, start.line, carriage_returns

    @property
    def position(self) -> LinePosition:
        return LinePosition(self.byte, self.line)

    def __iter__(self) -> Iterator[str]:
        try:
            with self._open() as file:
                yield from self._decoded(file)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror})") from error

    def _open(self) -> BinaryIO:
        file: BinaryIO = open(open_regular(self.path), "rb")  # noqa: SIM115 (closed by the caller)
        head = file.read(3)
        if head.startswith(UTF16):
            file.close()
            file = io.BytesIO(_from_utf16(self.path))
            file.seek(self.byte)
        else:
            file.seek(self.byte + (len(BOM) if head == BOM else 0))
        return file

    def _decoded(self, file: BinaryIO) -> Iterator[str]:
        for line in file:
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                reason = f"not UTF-8 text ({error.reason}); save the file as UTF-8"
                raise DataError(f"{self.path}:{self.line}: {reason}") from error
            if "\0" in text:
                raise DataError(f"{self.path}: a binary file, not text; export it as UTF-8 text")
            if self.line == 1 and self.path.suffix.lower() != ELAN and (kind := document_kind(text)):
                raise DataError(f"{self.path}: {kind}, not plain text; save it as plain text in UTF-8")
            if self._splits and "\r" in text and "\r" in text.removesuffix("\r\n"):
                for part in io.StringIO(text, newline=""):
                    self.byte += len(part.encode())
                    self.line += 1
                    yield part
            else:
                self.byte += len(line)
                self.line += 1
                yield text


def document_kind(text: str) -> str:
    """What a file is that begins with a text, if it is a document with markup; "" for plain text."""
    start = text[:100].lstrip("\ufeff \t").lower()
    return next((kind for head, kind in DOCUMENTS.items() if start.startswith(head.lower())), "")


def text_encoding(path: Path) -> str:
    """The encoding of a text file by its first bytes.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with open(open_regular(path), "rb") as file:
            return "utf-16" if file.read(2) in UTF16 else "utf-8-sig"
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def read_text(path: Path) -> str:
    """The content of a text file in UTF-8 or UTF-16.

    Raises:
        DataError: the file cannot be read, or is not text in UTF-8 or UTF-16.
    """
    return "".join(TextLines(path))


def _from_utf16(path: Path) -> bytes:
    try:
        return read_bytes(path).decode("utf-16").encode()
    except UnicodeError as error:
        raise DataError(f"{path}: not UTF-16 text ({error}); save the file as UTF-8") from error
