"""The rows of a corpus in blocks of a fixed size, so that they can be read in parts and more than once."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from finetune.core.lazy_sequence import LazySequence
from finetune.data.raw_rows import BLOCK_ROWS, Blocks
from finetune.data.row import Row


@dataclass(frozen=True)
class CorpusFacts:
    """What the first pass over a corpus counts, so that `finetune check` needs no other one.

    Attributes:
        num_missing: rows without an audio file.
        num_faults: rows with a fault.
        first_fault: the number of the first of these rows.
        has_keywords: whether a row has keywords.
        splits: columns of SPLIT_COLUMNS and the splits that they state, "" for another value.
    """

    num_missing: int = 0
    num_faults: int = 0
    first_fault: int = 0
    has_keywords: bool = False
    splits: frozenset[tuple[str, str]] = frozenset()


class Corpus(LazySequence[Row]):
    """The rows of a corpus in a fixed order, with the manifest's keys. Memory does not grow with their number.

    Iterating yields the rows block by block; each time they are read again. `block(i)` is cheap for any `i` and gives
    the same rows in every process that reads the same source.

    Args:
        rows: the rows.
        facts: counts of these rows.
    """

    def __init__(self, rows: Blocks | list[Row], facts: CorpusFacts = CorpusFacts()) -> None:
        self._rows, self.facts = ListRows(rows) if isinstance(rows, list) else rows, facts

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def num_blocks(self) -> int:
        return -(-len(self) // BLOCK_ROWS)

    def block(self, number: int) -> list[Row]:
        """The rows from number * BLOCK_ROWS on: BLOCK_ROWS of them, or fewer in the last block."""
        return self._rows.block(number)

    def __iter__(self) -> Iterator[Row]:
        for number in range(self.num_blocks):
            yield from self.block(number)

    def item(self, index: int) -> Row:
        return self.block(index // BLOCK_ROWS)[index % BLOCK_ROWS]


class ListRows:
    """The rows of a list, for a `Corpus`."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def block(self, number: int) -> list[Row]:
        return self._rows[number * BLOCK_ROWS : (number + 1) * BLOCK_ROWS]


class JoinedRows:
    """The rows of several corpora, one corpus after another, for a `Corpus`."""

    def __init__(self, corpora: Sequence[Corpus]) -> None:
        self._corpora = corpora
        self._ends = list(accumulate(map(len, corpora)))
        self.starts = [end - len(corpus) for end, corpus in zip(self._ends, corpora, strict=True)]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def block(self, number: int) -> list[Row]:
        start, stop = number * BLOCK_ROWS, min((number + 1) * BLOCK_ROWS, len(self))
        rows = list[Row]()
        while start < stop:
            which = bisect_right(self._ends, start)
            corpus = self._corpora[which]
            block, skipped = divmod(start - self.starts[which], BLOCK_ROWS)
            rows += corpus.block(block)[skipped : skipped + stop - start]
            start = number * BLOCK_ROWS + len(rows)
        return rows


def joined(corpora: Sequence[Corpus]) -> Corpus:
    """The rows of several corpora, one corpus after another."""
    rows, facts = JoinedRows(corpora), [corpus.facts for corpus in corpora]
    faults = [start + fact.first_fault for start, fact in zip(rows.starts, facts, strict=True) if fact.num_faults]
    return Corpus(
        rows,
        CorpusFacts(
            sum(fact.num_missing for fact in facts),
            sum(fact.num_faults for fact in facts),
            min(faults, default=0),
            any(fact.has_keywords for fact in facts),
            frozenset().union(*(fact.splits for fact in facts)),
        ),
    )
