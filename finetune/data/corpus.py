"""The rows of a corpus in blocks of a fixed size, so that they can be read in parts and more than once."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import overload

from finetune.data.row import Row

BLOCK_ROWS = 512  # prepare checks, caches and repeats work in blocks of this size


class Corpus(Sequence[Row]):
    """The rows of a corpus in a fixed order, with the manifest's keys.

    Iterating yields the rows block by block. `block(i)` is cheap for any `i` and gives the same rows in every process
    that reads the same source.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def num_blocks(self) -> int:
        return -(-len(self) // BLOCK_ROWS)

    def block(self, number: int) -> list[Row]:
        """The rows from number * BLOCK_ROWS on: BLOCK_ROWS of them, or fewer in the last block."""
        return list(self._rows[number * BLOCK_ROWS : (number + 1) * BLOCK_ROWS])

    def __iter__(self) -> Iterator[Row]:
        for number in range(self.num_blocks):
            yield from self.block(number)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = index + len(self) * (index < 0)
        if not 0 <= position < len(self):
            raise IndexError(index)
        return self.block(position // BLOCK_ROWS)[position % BLOCK_ROWS]


class JoinedRows(Sequence[Row]):
    """The rows of several corpora, one corpus after another, for a `Corpus`."""

    def __init__(self, corpora: Sequence[Corpus]) -> None:
        self._corpora = corpora
        self._ends = list(accumulate(map(len, corpora)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        number = bisect_right(self._ends, index)
        corpus = self._corpora[number]
        return corpus[index - self._ends[number] + len(corpus)]
