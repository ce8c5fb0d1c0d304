"""Rows of a corpus in blocks: every way to read them gives the same rows in the same order."""

import pytest

from finetune.data.corpus import BLOCK_ROWS, Corpus
from finetune.data.row import Row


@pytest.mark.parametrize("count", [0, 1, BLOCK_ROWS, BLOCK_ROWS + 1, 3 * BLOCK_ROWS - 1])
def test_blocks_iteration_and_positions_give_the_same_rows(count: int) -> None:
    rows = [Row(f"a.csv:{number}", {"text": str(number)}) for number in range(count)]
    corpus = Corpus(rows)
    assert (
        [*corpus] == [*corpus] == [row for number in range(corpus.num_blocks) for row in corpus.block(number)] == rows
    )
    assert len(corpus) == count and corpus[1:-1:2] == rows[1:-1:2]
    assert [corpus[index] for index in (*range(count), *range(-count, 0))] == rows * 2
    for index in (count, -count - 1):
        with pytest.raises(IndexError):
            corpus[index]
