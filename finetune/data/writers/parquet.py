"""Writes a Hugging Face data set as Parquet files with the audio inside, in the layout of the hub.

`datasets.load_dataset(FOLDER)` reads it, and `hf upload` publishes it. Source of the layout and of the metadata: the
documentation of `datasets`.
"""

import glob
import json
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from finetune.data.byte_range import stem_of
from finetune.data.manifest import PROMPT_COLUMNS, Utterance
from finetune.data.writers.clip_audio import ClipAudio
from finetune.data.writers.task_columns import task_columns

SHARD = "{split}-{number:05d}-of-{total:05d}.parquet"
ROWS_IN_GROUP = 100  # `datasets` and the viewer of the hub read whole row groups
AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
METADATA = {"huggingface": json.dumps({"info": {"features": {"audio": {"_type": "Audio"}}}})}
FIXED = {"audio": AUDIO, "id": pa.string(), "text": pa.string(), "duration": pa.float64()}
OPTIONAL = {
    "language": pa.string(),
    "speaker": pa.string(),
    "keywords": pa.list_(pa.string()),
    **dict.fromkeys(PROMPT_COLUMNS, pa.string()),
    "sampling_weight": pa.float64(),
}
TYPES = {
    frozenset[str](): pa.string(),
    frozenset({"bool"}): pa.bool_(),
    frozenset({"int"}): pa.int64(),
    frozenset({"float"}): pa.float64(),
    frozenset({"float", "int"}): pa.float64(),
    frozenset({"texts"}): pa.list_(pa.string()),
}


def schema_of(utterances: Iterable[Utterance]) -> pa.Schema:
    """The columns of utterances. A column of `extra` with values of several types, or of other types, is JSON text."""
    used, kinds = set[str](), dict[str, set[str]]()
    for item in utterances:
        used |= {name for name in ("language", "speaker", "keywords") if getattr(item, name)}
        used |= task_columns(item).keys()
        for name, value in item.extra.items():
            kinds.setdefault(name, set()).update([] if value is None else [_kind(value)])
    fields = FIXED | {name: OPTIONAL[name] for name in OPTIONAL if name in used}
    fields |= {
        name: TYPES.get(frozenset(cell_kinds), pa.string()) for name, cell_kinds in kinds.items() if name not in fields
    }
    return pa.schema(list(fields.items()), metadata=METADATA)


def _kind(value: object) -> str:
    """The type of a value, for TYPES."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "texts"
    return "other" if isinstance(value, int) and not -(2**63) <= value < 2**63 else type(value).__name__


def write_parquet(
    folder: Path, clips: Iterable[tuple[Utterance, ClipAudio]], schema: pa.Schema, shard_bytes: int, split: str
) -> list[Path]:
    """Writes `data/SPLIT-00000-of-0000N.parquet`.

    Args:
        folder: the folder of the data set.
        clips: utterances and their audio.
        schema: from `schema_of`.
        shard_bytes: a file that has this many bytes of audio is closed.
        split: name of the split, such as train.

    Returns:
        The files.

    Raises:
        OSError: a file cannot be written.
    """
    target = folder / "data"
    target.mkdir(parents=True, exist_ok=True)
    temporary, rows = list[Path](), iter(clips)
    try:
        while first := next(rows, None):
            temporary.append(target / f".{split}-{len(temporary):05d}.{os.getpid()}.tmp")
            _write(temporary[-1], chain([first], rows), schema, shard_bytes)
        for old in target.glob(f"{glob.escape(split)}-{5 * '[0-9]'}-of-*.parquet"):
            old.unlink()
        names = [SHARD.format(split=split, number=number, total=len(temporary)) for number in range(len(temporary))]
        for file, name in zip(temporary, names, strict=True):
            os.replace(file, target / name)
        return [target / name for name in names]
    finally:
        for file in temporary:
            file.unlink(missing_ok=True)


def _write(path: Path, clips: Iterator[tuple[Utterance, ClipAudio]], schema: pa.Schema, shard_bytes: int) -> None:
    """Writes one file: clips until it has `shard_bytes` of audio."""
    size, group = 0, list[dict[str, object]]()
    with pq.ParquetWriter(path, schema) as writer:
        for item, audio in clips:
            group.append(_row(item, audio, schema))
            size += len(audio.data)
            if len(group) == ROWS_IN_GROUP or size >= shard_bytes:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group.clear()
            if size >= shard_bytes:
                return
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))


def _row(item: Utterance, audio: ClipAudio, schema: pa.Schema) -> dict[str, object]:
    name = f"{stem_of(item.audio_filepath)}{audio.suffix}"
    row: dict[str, object] = {key: _value(value, schema.field(key).type) for key, value in item.extra.items()}
    row |= {key: getattr(item, key) for key in (*FIXED, *OPTIONAL) if key in schema.names and key != "audio"}
    return row | {"keywords": list(item.keywords), "audio": {"bytes": audio.data, "path": name}}


def _value(value: object, kind: pa.DataType) -> object:
    if value is None or isinstance(value, str) or kind != pa.string():
        return value
    return json.dumps(value, ensure_ascii=False)
