"""The columns are those of pyarrow, and pandas is not imported."""

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from finetune.data.arrow_columns import list_column, number_column, optional_column, text_column, text_list_column

TEXTS: list[Sequence[str | None]] = [[], ["a"], ["", "ä ハ", None, "x" * 300], [None, None], ["a"] * 9 + [None] * 9]


@pytest.mark.parametrize("values", TEXTS)
def test_texts_are_those_of_pyarrow(values: Sequence[str | None]) -> None:
    column = text_column(values)
    column.validate(full=True)
    assert column.equals(pa.array(values, pa.string())) and column.null_count == values.count(None)


@pytest.mark.parametrize("values", [[], [[]], [["a", "b"], [], ["ä"]]])
def test_lists_are_those_of_pyarrow(values: list[list[str]]) -> None:
    column = text_list_column(values)
    column.validate(full=True)
    assert column.equals(pa.array(values, pa.list_(pa.string())))
    sizes, items = [len(value) for value in values], number_column(np.arange(sum(map(len, values)), dtype=np.int32))
    assert [len(value) for value in list_column(sizes, items).to_pylist()] == sizes


def test_numbers_are_those_of_pyarrow() -> None:
    for dtype in (np.int32, np.float64):
        values = np.arange(20, dtype=dtype)
        assert number_column(values).equals(pa.array(values)) and number_column(values[::3]).equals(
            pa.array(values[::3])
        )
    assert optional_column([1, None, 0]).equals(pa.array([1, None, 0], pa.int32()))


def test_a_table_of_utterances_needs_no_pandas() -> None:
    script = (
        "import sys; from finetune.data.manifest import Utterance; from finetune.data.utterance_table import as_table;"
        "table = as_table([Utterance('u', 'a.wav', 1.0, 'x', keywords=('k',), channel=1, extra={'e': 1})] * 3);"
        "assert table[2].keywords == ('k',) and table.pick('text', [1, 2]) == ['x', 'x'];"
        "table.ids_among({'u'}); table.has_prompts; print('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "False"
