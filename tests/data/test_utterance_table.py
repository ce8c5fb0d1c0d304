"""The columnar manifest: every value of the JSONL manifest, without a copy in memory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from utterance_strategies import UTTERANCES

from finetune.core.errors import DataError
from finetune.core.files import sha256_file
from finetune.data.manifest import Utterance, write_manifest
from finetune.data.utterance_table import UtteranceTable, as_table, joined_tables, open_manifest, write_table

ROWS = 40_000  # of the test of memory: several record batches


@given(UTTERANCES)
@settings(deadline=None)
def test_every_value_of_a_manifest_is_kept(tmp_path_factory: pytest.TempPathFactory, items: list[Utterance]) -> None:
    path = tmp_path_factory.getbasetemp() / "all.jsonl"
    write_manifest(path, items)
    table = open_manifest(path)
    assert list(table) == items == [table[number] for number in range(len(table))]
    assert table.durations.tolist() == [item.duration for item in items]
    assert table.offsets.tolist() == [item.offset for item in items]


def write_many(path: Path, count: int) -> list[Utterance]:
    items = [Utterance(f"clip-{n}", f"/audio/{n % 7}.wav", 1 + n / 8, f"text {n}", n / 4) for n in range(count)]
    write_manifest(path, items)
    return items


def test_rows_are_found_across_record_batches(tmp_path: Path) -> None:
    items = write_many(tmp_path / "m.jsonl", 40_000)
    table = open_manifest(tmp_path / "m.jsonl")
    assert len(table.batches) == 3 and len(table) == 40_000
    for number in (0, 16_383, 16_384, 32_768, 39_999, -1, -40_000):
        assert table[number] == items[number]
    assert table[16_380:16_390] == items[16_380:16_390] and table[::-13_000] == items[::-13_000]
    assert list(table.texts("id")) == [item.id for item in items]
    for number in (40_000, -40_001):
        with pytest.raises(IndexError):
            table[number]


def test_an_edited_manifest_gives_a_new_table(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write_many(path, 3)
    open_manifest(path)
    state = os.stat(path)
    path.write_text(path.read_text().replace("text 1", "word 1"))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # the same size and time
    assert open_manifest(path)[1].text == "word 1"


@pytest.mark.parametrize("damage", [b"", b"ARROW1\0\0", None])
def test_a_damaged_table_is_made_again(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "m.jsonl"
    items = write_many(path, 3)
    open_manifest(path)
    columns = path.with_suffix(".arrow")
    columns.write_bytes(columns.read_bytes()[:-40] if damage is None else damage)
    assert list(open_manifest(path)) == items
    assert sorted(item.name for item in tmp_path.iterdir()) == ["m.arrow", "m.jsonl"]


def test_a_folder_that_cannot_be_written_needs_no_table(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    items = write_many(path, 3)
    path.with_suffix(".arrow").mkdir()  # root may write everywhere
    table = open_manifest(path)
    assert list(table) == items and isinstance(table, UtteranceTable)


def test_the_errors_are_those_of_the_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio_filepath": "a.wav", "text": 3}\n')
    with pytest.raises(DataError, match="m.jsonl:1: `text` must be a string"):
        open_manifest(path)
    with pytest.raises(DataError, match=r"none.jsonl: cannot be read"):
        open_manifest(tmp_path / "none.jsonl")
    assert [item.name for item in tmp_path.iterdir()] == ["m.jsonl"]


def test_an_open_table_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write_many(path, ROWS)
    open_manifest(path)
    check = (
        "import sys, tracemalloc; from pathlib import Path; from finetune.data.utterance_table import open_manifest\n"
        "tracemalloc.start(); table = open_manifest(Path(sys.argv[1])); seconds = sum(x.duration for x in table)\n"
        "print(tracemalloc.get_traced_memory()[1])"
    )
    peak = subprocess.run([sys.executable, "-c", check, str(path)], capture_output=True, text=True, check=True).stdout
    assert int(peak) < 3_000_000 + 20 * ROWS  # an Utterance takes some 400 bytes


def test_write_table_leaves_no_temporary_file_after_an_error(tmp_path: Path) -> None:
    def failing() -> "list[Utterance]":
        raise DataError("bad row")

    with pytest.raises(DataError, match="bad row"):
        write_table(tmp_path / "m.arrow", (item for _ in range(1) for item in failing()), "")
    assert not list(tmp_path.iterdir())
    write_table(tmp_path / "m.arrow", [], "")
    assert np.size(open_empty(tmp_path / "m.arrow").durations) == 0


def open_empty(path: Path) -> UtteranceTable:
    import pyarrow as pa

    return UtteranceTable(pa.ipc.open_file(pa.memory_map(str(path))).read_all())


@given(UTTERANCES, st.data())
@settings(deadline=None)
def test_values_of_some_rows_are_exact(items: list[Utterance], data: st.DataObject) -> None:
    table = as_table(items)
    assert list(table) == items and as_table(table) is table
    rows = data.draw(st.lists(st.integers(0, len(items) - 1))) if items else []
    for name in ("id", "text", "language"):
        assert table.pick(name, rows) == [getattr(items[row], name) for row in rows]
    assert table.pick("keywords", rows) == [list(items[row].keywords) for row in rows]
    assert table.has_keywords == any(item.keywords for item in items)
    names = [items[row].id for row in rows]
    assert table.ids_among([*names, "of no row", "\ud800"]) == {*names, "of no row", "\ud800"} & {
        item.id for item in items
    }


def test_tables_are_joined_without_a_copy(tmp_path: Path) -> None:
    items = write_many(tmp_path / "m.jsonl", 20_000)
    one, two = open_manifest(tmp_path / "m.jsonl"), as_table(items[:3])
    table = joined_tables([one, two, as_table([])])
    assert len(table) == 20_003 and table[16_390] == items[16_390] and table[20_002] == items[2]
    rows = [20_001, 0, 16_384, 16_383, 20_001, 19_999]
    assert table.pick("id", rows) == ["clip-1", "clip-0", "clip-16384", "clip-16383", "clip-1", "clip-19999"]
    assert table.durations.tolist() == [item.duration for item in [*items, *items[:3]]]
    assert table.ids_among({"clip-19999", "clip-2", "clip"}) == {"clip-19999", "clip-2"}
    parts = zip(table.batches, one.batches, strict=False)
    assert all(ours.column(2).buffers()[2].address == theirs.column(2).buffers()[2].address for ours, theirs in parts)
    assert len(joined_tables([])) == 0 and list(joined_tables([])) == []


def test_a_table_has_the_hash_of_its_manifest(tmp_path: Path) -> None:
    write_many(tmp_path / "m.jsonl", 3)
    for _ in range(2):
        assert open_manifest(tmp_path / "m.jsonl").manifest_sha256 == sha256_file(tmp_path / "m.jsonl")
    assert as_table([]).manifest_sha256 == ""
