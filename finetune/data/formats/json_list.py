"""Parses the items of a JSON list one by one, so that a list of any length fits into memory."""

import json
import re
import sys
from collections.abc import Iterator
from typing import TextIO

from finetune.core.files import repeated_key

CHUNK = 1 << 16  # characters that are read at once
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")


def list_items(file: TextIO, limit: int = sys.maxsize) -> Iterator[object]:
    """The items of a file with one JSON list.

    Raises:
        ValueError: the file has anything else, or an item of more than `limit` characters.
    """
    text = _Pieces(file, limit)
    text.skip("[")
    while text.next_character() != "]":
        yield text.value()
        if text.next_character() != ",":
            break
        text.skip(",")
        if text.next_character() == "]":
            raise ValueError("a comma before the end of the list")
    text.skip("]")
    if text.next_character():
        raise ValueError("the file goes on after the list")


class RepeatedKeyError(ValueError):
    """An object has a key twice."""


class _Pieces:
    """The text of a file; only the part that is not yet parsed is in memory."""

    def __init__(self, file: TextIO, limit: int) -> None:
        self._file, self._text, self._position, self._ended = file, "", 0, False
        self._limit = limit

    def next_character(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            if match := _SPACE.match(self._text, self._position):
                self._position = match.end()
            if self._position < len(self._text) or self._ended:
                return self._text[self._position : self._position + 1]
            self._read_more()

    def skip(self, character: str) -> None:
        if self.next_character() != character:
            raise ValueError(f"{character!r} is missing")
        self._position += 1

    def value(self) -> object:
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._position)
            except ValueError:
                if self._ended:
                    raise
            else:
                if end < len(self._text) or self._ended:  # a number at the end of the text can have more digits
                    if isinstance(value, dict) and (key := repeated_key(self._text[self._position : end], value)):
                        raise RepeatedKeyError(f"an object has the key {key!r} twice, with different values")
                    self._position = end
                    return value
            self._read_more()

    def _read_more(self) -> None:
        rest = self._text[self._position :]
        if len(rest) > self._limit:
            raise ValueError(f"an item of more than {self._limit} characters")
        piece = self._file.read(max(CHUNK, len(rest)))
        self._text, self._position, self._ended = rest + piece, 0, not piece
