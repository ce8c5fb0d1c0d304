"""The columnar form of a manifest: an Arrow file that processes map into memory, so they share one copy of its pages.

The file lies beside the JSONL manifest of a run and is made from it. It holds the hash of the manifest, so an edited
manifest gives a new table. Utterances are made when they are asked for.
"""

import json
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from finetune.core.files import replaced_file, sha256_file
from finetune.core.lazy_sequence import LazySequence
from finetune.data.arrow_columns import number_column, optional_column, text_column, text_list_column
from finetune.data.manifest import PROMPT_COLUMNS, TEXT_KEYS, Utterance, stream_manifest

VERSION_KEY, VERSION = b"table_version", b"2"
MANIFEST_KEY = b"manifest_sha256"
BATCH = 16_384  # rows in a record batch
SUFFIX = ".arrow"
TEXTS = ("id", "audio_filepath", "text", *TEXT_KEYS[1:])
NUMBERS = ("offset", "duration", "sampling_weight")
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in TEXTS),
        *(pa.field(name, pa.float64()) for name in NUMBERS),
        pa.field("channel", pa.int32()),
        pa.field("keywords", pa.list_(pa.string())),
        pa.field("extra", pa.string()),  # JSON; null for an empty one
        pa.field("not_utf8", pa.string()),  # JSON: the exact values of a row that UTF-8 cannot store
    ]
)


class UtteranceTable(LazySequence[Utterance]):
    """Utterances in columns.

    Args:
        table: columns of SCHEMA.
        manifest_sha256: of the JSONL manifest, in hexadecimal; "" without one.

    Attributes:
        durations, offsets: (n,) float64, seconds.
        weights: (n,) float64, `sampling_weight`.
    """

    def __init__(self, table: pa.Table, manifest_sha256: str = "") -> None:
        self.manifest_sha256 = manifest_sha256
        self.batches: list[pa.RecordBatch] = [batch for batch in table.to_batches() if len(batch)]
        self._ends = list(accumulate(map(len, self.batches)))
        self.offsets, self.durations, self.weights = map(self._numbers, NUMBERS)
        self._table = table

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def item(self, index: int) -> Utterance:
        which = bisect_right(self._ends, index)
        batch = self.batches[which]
        place = index - self._ends[which] + len(batch)
        return _utterance({name: batch.column(i)[place].as_py() for i, name in enumerate(SCHEMA.names)})

    def __iter__(self) -> Iterator[Utterance]:
        for batch in self.batches:
            for start in range(0, len(batch), 1024):
                yield from map(_utterance, batch.slice(start, 1024).to_pylist())

    def _numbers(self, name: str) -> NDArray[np.float64]:
        index = SCHEMA.get_field_index(name)  # ChunkedArray.to_numpy would import pandas
        columns = [batch.column(index) for batch in self.batches]
        parts = [np.frombuffer(part.buffers()[1], np.float64)[part.offset :][: len(part)] for part in columns]
        return np.concatenate([np.zeros(0), *parts])

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of SCHEMA. Texts that are not valid Unicode have replacement characters here."""
        return self._table.column(name)

    def texts(self, name: str) -> Iterator[str]:
        """The values of a column of text, row by row."""
        for batch in self.batches:
            yield from batch.column(SCHEMA.get_field_index(name)).to_pylist()

    def pick(self, name: str, rows: ArrayLike) -> list[Any]:
        """The values of a column in some rows, in their order, exactly as in the manifest.

        Args:
            name: a column of TEXTS or `keywords`.
            rows: numbers of rows, in any order; a number can occur several times.
        """
        numbers = np.asarray(rows, np.int64)
        order = np.argsort(numbers, kind="stable")
        bounds = np.searchsorted(numbers[order], [0, *self._ends])
        values: list[Any] = [None] * len(numbers)
        for which, batch in enumerate(self.batches):
            places = order[bounds[which] : bounds[which + 1]]
            if not len(places):
                continue
            local = number_column(numbers[places] - self._ends[which] + len(batch))
            picked = batch.column(SCHEMA.get_field_index(name)).take(local).to_pylist()
            exact = batch.column(SCHEMA.get_field_index("not_utf8"))
            if exact.null_count < len(batch):
                rest = [json.loads(text) if text else {} for text in exact.take(local).to_pylist()]
                picked = [changed.get(name, value) for changed, value in zip(rest, picked, strict=True)]
            for place, value in zip(places.tolist(), picked, strict=True):
                values[place] = value
        return values

    def ids_among(self, names: Collection[str]) -> set[str]:
        """Those of `names` that are the id of a row."""
        if not names:
            return set()
        ids = text_column(sorted({str(_replaced(name)) for name in names}))
        rows, start = list[int](), 0
        for batch in self.batches:
            mask = pc.is_in(batch.column(SCHEMA.get_field_index("id")), value_set=ids)
            rows += [start + number for number in pc.indices_nonzero(mask).to_pylist()]
            start += len(batch)
        return {*names} & {*self.pick("id", rows)}

    @cached_property
    def has_prompts(self) -> bool:
        """Whether a row has a prompt of its own: a task, a style or an instruction."""
        columns = (self._table.column(name) for name in PROMPT_COLUMNS)
        return any(pc.sum(pc.binary_length(column)).as_py() for column in columns)

    @cached_property
    def has_keywords(self) -> bool:
        """Whether a row has keywords."""
        index = SCHEMA.get_field_index("keywords")
        return any(len(batch.column(index).flatten()) for batch in self.batches)


def open_manifest(path: Path) -> UtteranceTable:
    """The utterances of a JSONL manifest, from the table beside it. A missing or outdated table is made.

    Raises:
        DataError: the manifest cannot be read, or a line is not an utterance.
    """
    digest = sha256_file(path) if path.is_file() else ""
    target = path.with_suffix(SUFFIX)
    if table := _mapped(target, digest):
        return UtteranceTable(table, digest)
    with suppress(OSError):  # a folder without permission to write, or a full disk
        write_table(target, stream_manifest(path), digest)
        if table := _mapped(target, digest):
            return UtteranceTable(table, digest)
    return UtteranceTable(pa.Table.from_batches(_record_batches(stream_manifest(path)), SCHEMA), digest)


def as_table(utterances: Iterable[Utterance]) -> UtteranceTable:
    """Utterances in columns in memory; a table is returned as it is."""
    if isinstance(utterances, UtteranceTable):
        return utterances
    return UtteranceTable(pa.Table.from_batches(_record_batches(utterances), SCHEMA))


def joined_tables(tables: Sequence[UtteranceTable]) -> UtteranceTable:
    """The rows of several tables, one table after another, without a copy of their pages."""
    batches = [batch.replace_schema_metadata(None) for table in tables for batch in table.batches]
    return UtteranceTable(pa.Table.from_batches(batches, SCHEMA))


def write_table(path: Path, utterances: Iterable[Utterance], manifest_sha256: str) -> None:
    """Writes the columnar form of a manifest atomically. One record batch is in memory.

    Args:
        path: the file to write, the manifest's name with SUFFIX.
        utterances: the utterances of the manifest, in order.
        manifest_sha256: SHA-256 of the JSONL manifest, in hexadecimal.

    Raises:
        OSError: the file cannot be written.
    """
    schema = SCHEMA.with_metadata({MANIFEST_KEY: manifest_sha256.encode(), VERSION_KEY: VERSION})
    with (
        replaced_file(path) as temporary,
        pa.OSFile(str(temporary), "wb") as file,
        pa.ipc.new_file(file, schema) as writer,
    ):
        for batch in _record_batches(utterances):
            writer.write_batch(batch)


def _mapped(path: Path, manifest_sha256: str) -> pa.Table | None:
    """The table in a file, mapped into memory; None if it is missing, damaged, or of another manifest or version."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        metadata = reader.schema.metadata or {}
        if metadata.get(VERSION_KEY) != VERSION or metadata.get(MANIFEST_KEY) != manifest_sha256.encode():
            return None
        return reader.read_all() if reader.schema.equals(SCHEMA) else None
    except (OSError, pa.ArrowInvalid):
        return None


def _record_batches(utterances: Iterable[Utterance]) -> Iterator[pa.RecordBatch]:
    rows = iter(utterances)
    while block := list(islice(rows, BATCH)):
        yield _record_batch([_row(item) for item in block])


def _record_batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    makers: dict[Any, Callable[[list[Any]], Any]] = {
        pa.string(): text_column,
        pa.float64(): lambda values: number_column(np.array(values, np.float64)),
        pa.int32(): optional_column,
        pa.list_(pa.string()): text_list_column,
    }
    columns = [makers[field.type]([row.get(field.name) for row in rows]) for field in SCHEMA]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _row(item: Utterance) -> dict[str, object]:
    """The columns of an utterance."""
    row: dict[str, object] = {name: getattr(item, name) for name in (*TEXTS, *NUMBERS, "channel")}
    row |= {"keywords": list(item.keywords), "extra": json.dumps(item.extra) if item.extra else None}
    names = [name for name in (*TEXTS, "keywords") if not _is_utf8(row[name])]
    if names:  # a lone surrogate, such as a file name that is not UTF-8
        row["not_utf8"] = json.dumps({name: row[name] for name in names})
        row |= {name: _replaced(row[name]) for name in names}
    return row


def _is_utf8(value: object) -> bool:
    try:
        for text in value if isinstance(value, list) else [value]:
            str(text).encode()
    except UnicodeEncodeError:
        return False
    return True


def _replaced(value: object) -> object:
    if isinstance(value, list):
        return [_replaced(item) for item in value]
    return str(value).encode(errors="replace").decode()


def _utterance(row: dict[str, Any]) -> Utterance:
    exact = json.loads(row["not_utf8"]) if row["not_utf8"] else {}
    values = {name: row[name] for name in SCHEMA.names if name != "not_utf8"} | exact
    extra = json.loads(values["extra"]) if values["extra"] else {}
    return Utterance(**values | {"keywords": tuple(values["keywords"]), "extra": extra})
