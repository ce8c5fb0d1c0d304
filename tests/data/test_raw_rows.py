"""Rows of a source are read again block by block: each way gives the rows that were written, also with odd texts."""

import csv
import gc
import io
import json
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from finetune.core.errors import DataError
from finetune.data.formats.json_list import list_items
from finetune.data.formats.tables import read_table
from finetune.data.problems import Finding
from finetune.data.raw_rows import BLOCK_ROWS, IN_MEMORY, RawRows, StoredRows
from finetune.data.row import Row

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
COUNT = BLOCK_ROWS + 7
MANY = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def values(rows: RawRows) -> list[dict[str, object]]:
    """The values of all rows, after a check that blocks and iterations agree."""
    found = [*rows]
    blocks = [row for number in range(-(-len(rows) // BLOCK_ROWS)) for row in rows.block(number)]
    assert found == blocks == [*rows] and len(rows) == len(found)
    return [row.values for row in found]


PAIRS = st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5)
OBJECTS = st.lists(st.dictionaries(CELLS, CELLS | st.integers() | st.none(), max_size=4), min_size=1, max_size=5)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])
LARGEST = BLOCK_ROWS * IN_MEMORY


@MANY
@given(cells=PAIRS, delimiter=st.sampled_from(",;\t|"), data=st.data())
def test_blocks_of_a_table(tmp_path: Path, cells: list[tuple[str, str]], delimiter: str, data: st.DataObject) -> None:
    rows = [("x.wav", *pair) for pair in islice(cycle(cells), COUNT)]
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator=end).writerows(
        [("path", "text", "b"), *rows]
    )
    path = tmp_path / "m.csv"
    path.write_bytes(file.getvalue().encode(data.draw(ENCODINGS)))
    try:
        found = values(read_table(path))
    except DataError as error:  # a text that looks like rows, which is refused
        assert "closes only in a later row" in str(error) and any("\n" in cell for pair in cells for cell in pair)
        return
    assert [tuple(row.values()) for row in found] == rows


@MANY
@given(objects=OBJECTS, data=st.data())
def test_blocks_of_json_lines(tmp_path: Path, objects: list[dict[str, object]], data: st.DataObject) -> None:
    rows = list(islice(cycle(objects), COUNT))
    ascii_only, end = data.draw(st.booleans()), data.draw(st.sampled_from(["\n", "\r\n", "\n\n  \n"]))
    text = end.join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    path = tmp_path / "m.jsonl"
    path.write_bytes(text.encode(data.draw(ENCODINGS)))
    found = read_table(path)
    assert values(found) == rows
    lines = [int(row.where.rsplit(":", 1)[1]) for row in found]
    assert lines == [1 + number * end.count("\n") for number in range(COUNT)]


class SlowFile(io.StringIO):
    """Gives a few characters at a time."""

    def read(self, size: int | None = -1, /) -> str:
        return super().read(7)


SCALARS = st.none() | st.integers() | CELLS
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=6) | st.dictionaries(CELLS, SCALARS)


@settings(max_examples=40, deadline=None)
@given(items=st.lists(JSON, max_size=3), indent=st.sampled_from([None, 1]), cut=st.integers(0, 50))
@example(items=[123456789012, 5], indent=None, cut=3)
def test_items_of_a_json_list(items: list[object], indent: int | None, cut: int) -> None:
    text = json.dumps(items, indent=indent)
    assert list(list_items(SlowFile(text))) == items
    for wrong in (text + "]", text[:-1] + ",]", text[: min(cut, len(text) - 1)], f"{text},", f" 1{text}"):
        with pytest.raises(ValueError):
            list(list_items(SlowFile(wrong)))


@pytest.mark.parametrize("count", [0, 1, LARGEST, LARGEST + 1, LARGEST + 2 * BLOCK_ROWS + 3])
def test_rows_of_a_generator_are_stored_once(count: int, tmp_path: Path) -> None:
    rows = [Row(f"a:{n}", {"n": n, "raw": b"x"}, Finding("k", "d") if n % 3 else None) for n in range(count)]
    reads = list[int]()

    def generator() -> Iterator[Row]:
        reads.append(1)
        yield from rows

    stored = StoredRows(generator(), tmp_path)
    assert values(stored) == [row.values for row in rows] and [*stored] == rows and reads == [1]
    assert len([*tmp_path.iterdir()]) == (count > LARGEST)
    del stored
    gc.collect()
    assert not [*tmp_path.iterdir()]


def test_a_file_that_changes_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"text": "a"}\n' * COUNT)
    rows = read_table(path)
    assert len([*rows]) == COUNT
    path.write_text('{"text": "a"}\n' * (COUNT - 1))
    with pytest.raises(DataError, match=r"m.jsonl: the file was changed while it was read"):
        rows.block(1)


def test_lines_that_end_in_a_carriage_return(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(b"path,text\r" + b"".join(b"%d.wav,w\xc3\xb6rd %d\r" % (n, n) for n in range(COUNT)))
    found = values(read_table(path))
    assert found == [{"path": f"{n}.wav", "text": f"wörd {n}"} for n in range(COUNT)]
