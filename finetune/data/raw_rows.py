"""The rows of a source as they are, in blocks that can be read again: lines of a text file, or a temporary file.

A source is iterated once from its start, which finds where its blocks begin. Memory does not grow with its rows.
"""

import os
import pickle
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Protocol

from finetune.core.errors import DataError
from finetune.data.row import Row
from finetune.data.text_lines import START, LinePosition, TextLines

BLOCK_ROWS = 512  # prepare checks, caches and repeats work in blocks of this size
IN_MEMORY = 8  # blocks of a generator that are not written to a file


class Blocks(Protocol):
    """Rows in blocks of BLOCK_ROWS; the last one can be shorter."""

    def __len__(self) -> int:
        """The number of rows."""
        ...

    def block(self, number: int) -> list[Row]: ...


class RawRows(ABC):
    """The rows of a source with its own columns. After one complete iteration it has a length and blocks."""

    @abstractmethod
    def __iter__(self) -> Iterator[Row]: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def block(self, number: int) -> list[Row]: ...


class LineRows(RawRows):
    """The rows of a text file with one or more lines for each row.

    Args:
        path: the file.
        start: the line of the first row.
        carriage_returns: see `TextLines`.
    """

    def __init__(self, path: Path, start: LinePosition = START, carriage_returns: bool = False) -> None:
        self.path, self._carriage_returns = path, carriage_returns
        self._positions, self._count = [start], 0

    @abstractmethod
    def read(self, lines: TextLines) -> Iterator[Row]:
        """The rows of lines. At each row, `lines` has been read to the end of the row and no further."""

    def __iter__(self) -> Iterator[Row]:
        lines = TextLines(self.path, self._positions[0], self._carriage_returns)
        positions, count = [lines.position], 0
        for count, row in enumerate(self.read(lines), 1):
            yield row
            if count % BLOCK_ROWS == 0:
                positions.append(lines.position)
        self._positions, self._count = positions, count

    def __len__(self) -> int:
        return self._count

    def block(self, number: int) -> list[Row]:
        lines = TextLines(self.path, self._positions[number], self._carriage_returns)
        rows = list(islice(self.read(lines), BLOCK_ROWS))
        if len(rows) != min(BLOCK_ROWS, self._count - number * BLOCK_ROWS):
            raise DataError(f"{self.path}: the file was changed while it was read; start again")
        return rows


class StoredRows(RawRows):
    """The rows of a generator. More than IN_MEMORY blocks are in a file, which is deleted with this object.

    Args:
        rows: the rows; they are iterated once, here.
        folder: where the file is written, instead of the folder for temporary files (TMPDIR).
    """

    def __init__(self, rows: Iterable[Row], folder: Path | None = None) -> None:
        self._blocks, self._starts, self._path, self._count = list[list[Row]](), [0], "", 0
        iterator = iter(rows)
        for _ in range(IN_MEMORY):
            self._blocks += [block] if (block := list(islice(iterator, BLOCK_ROWS))) else []
        self._count = sum(map(len, self._blocks))
        if block := list(islice(iterator, BLOCK_ROWS)):
            self._store(block, iterator, folder)

    def _store(self, block: list[Row], rest: Iterator[Row], folder: Path | None) -> None:
        descriptor, self._path = tempfile.mkstemp(".rows", "finetune-", folder)
        weakref.finalize(self, _remove, self._path, os.getpid())
        with open(descriptor, "wb") as file:
            while block:
                content = [(row.where, row.values, row.fault) for row in block]
                file.write(pickle.dumps(content, pickle.HIGHEST_PROTOCOL))
                self._starts.append(file.tell())
                self._count += len(block)
                block = list(islice(rest, BLOCK_ROWS))

    def __iter__(self) -> Iterator[Row]:
        for number in range(-(-self._count // BLOCK_ROWS)):
            yield from self.block(number)

    def __len__(self) -> int:
        return self._count

    def block(self, number: int) -> list[Row]:
        if number < len(self._blocks):
            return self._blocks[number]
        start, stop = self._starts[number - IN_MEMORY : number - IN_MEMORY + 2]
        with open(self._path, "rb") as file:
            file.seek(start)
            return [Row(*content) for content in pickle.loads(file.read(stop - start))]


def _remove(path: str, process: int) -> None:
    if os.getpid() == process:  # a forked process has a copy of the object
        Path(path).unlink(missing_ok=True)
