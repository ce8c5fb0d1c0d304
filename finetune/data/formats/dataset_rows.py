"""Rows of data sets (Parquet, `save_to_disk`, the hub): files for embedded audio, names for class labels.

Nothing is decoded: torchcodec, which `datasets` uses for that, is not needed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.core.errors import DataError
from finetune.data.formats.embedded_audio import audio_file, other_values
from finetune.data.problems import Finding
from finetune.data.row import Row

if TYPE_CHECKING:
    import pyarrow

RATE_COLUMNS = ("sampling_rate", "sample_rate", "samplingrate", "samplerate", "sr", "fs", "rate")
SAMPLE_COLUMNS = ("array", "samples", "waveform", "speech", "audio_array", "input_values", "audio", "wav", "signal")
NO_AUDIO = ("Image", "Video", "Pdf")  # features of `datasets` that also have bytes


@dataclass(frozen=True)
class DatasetColumns:
    """The column with embedded audio, the one with its sampling rate, and the names of each column of class labels."""

    audio: str | None
    rate: str | None
    labels: Mapping[str, list[str]]


def columns_of_schema(schema: "pyarrow.Schema") -> DatasetColumns:
    """The columns by their types and by the features that `datasets` stores in the metadata of a schema."""
    from pyarrow import types

    features = _features(schema)
    audio_columns = []
    for field in schema:
        feature, kind = features.get(field.name, {}).get("_type"), field.type
        is_binary = types.is_binary(kind) or types.is_large_binary(kind)
        is_object = types.is_struct(kind) and bool({"bytes", "array"} & {inner.name for inner in kind})
        is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        is_samples = is_list and field.name.lower() in SAMPLE_COLUMNS
        if feature == "Audio" or (feature not in NO_AUDIO and (is_binary or is_object or is_samples)):
            audio_columns.append(field.name)
    kinds = {name: item.get("_type") for name, item in features.items()}
    usual = [name for name in audio_columns if name.lower() in SAMPLE_COLUMNS or kinds.get(name) == "Audio"]
    labels = {name: list(features[name].get("names") or []) for name, kind in kinds.items() if kind == "ClassLabel"}
    return DatasetColumns(next(iter([*usual, *audio_columns]), None), _rate_column(schema.names), labels)


def columns_of_values(values: Mapping[str, object]) -> DatasetColumns:
    """The columns by the values of one row, for a data set without stated features."""
    audio_columns = [
        name
        for name, value in values.items()
        if isinstance(value, bytes)
        or (isinstance(value, dict) and value.keys() & {"bytes", "array"})
        or (isinstance(value, list | np.ndarray) and name.lower() in SAMPLE_COLUMNS)
    ]
    usual = [name for name in audio_columns if name.lower() in SAMPLE_COLUMNS]
    return DatasetColumns(next(iter([*usual, *audio_columns]), None), _rate_column(list(values)), {})


def dataset_row(where: str, values: Mapping[str, Any], columns: DatasetColumns, media_dir: Path) -> Row:
    """A row with the path of a file for its audio and names for its labels. Other bytes (images) are left out."""
    row = {
        name: _label(value, columns.labels[name]) if columns.labels.get(name) else value
        for name, value in values.items()
        if name == columns.audio or not _has_bytes(value)
    }
    fault = None
    if columns.audio is not None:
        value = row.pop(columns.audio, None)
        if others := other_values(value):
            row[columns.audio] = others  # such as the times of a segment
        try:
            path = audio_file(value, row.get(columns.rate) if columns.rate else None, media_dir)
        except DataError as error:
            path, fault = None, Finding("unreadable audio", f"column {columns.audio!r}: {error}")
        row["audio_filepath"] = path
    return Row(where, _web_dataset_values(row), fault)


def _features(schema: "pyarrow.Schema") -> dict[str, dict[str, Any]]:
    """The features of `datasets` by column; a column without one, or with a list of features, is left out."""
    try:
        info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = info["info"]["features"]
        return {name: item for name, item in features.items() if isinstance(item, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _rate_column(names: list[str]) -> str | None:
    return next((name for name in names if name.lower() in RATE_COLUMNS), None)


def _label(value: Any, names: list[str]) -> Any:
    """The name of a class; None for a row without a label (-1), and a value that is no number of a class as it is."""
    if isinstance(value, int) and not isinstance(value, bool):
        return names[value] if 0 <= value < len(names) else None if value == -1 else value
    return value


def _has_bytes(value: object) -> bool:
    return isinstance(value, bytes) or (isinstance(value, dict) and any(isinstance(v, bytes) for v in value.values()))


def _web_dataset_values(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row of a WebDataset: its key as id, and the keys of its JSON file as columns."""
    if "__key__" not in row:
        return row
    values = {name: value for name, value in row.items() if name not in ("__key__", "__url__", "json")}
    content = row.get("json")
    return {"id": row["__key__"]} | (content if isinstance(content, dict) else {}) | values
