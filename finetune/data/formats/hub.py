"""Reads Hugging Face datasets to rows. Does not need torchcodec, which `datasets` uses to decode audio.

Audio stays encoded (`Audio(decode=False)`). Audio bytes inside a dataset are written to files unchanged, so `audit`
checks them like any other file.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune.core.errors import DataError
from finetune.data.formats.embedded_audio import audio_file, other_values
from finetune.data.problems import Finding
from finetune.data.row import Row

RATE_COLUMNS = ("sampling_rate", "sample_rate", "samplingrate", "samplerate", "sr", "fs", "rate")
SAMPLE_COLUMNS = ("array", "samples", "waveform", "speech", "audio_array", "input_values", "audio", "wav", "signal")


def split_source(source: str) -> list[str]:
    """Name, config if any, and split of `hf:NAME[:CONFIG]:SPLIT`.

    Raises:
        DataError: the source has another form.
    """
    parts = source.split(":")[1:]
    if len(parts) not in (2, 3) or not all(parts):
        raise DataError(f"{source}: write hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT, such as hf:org/corpus:en:train")
    return parts


def read_hub(source: str, media_dir: Path, load_dataset: Callable[..., Any] | None = None) -> Iterator[Row]:
    """Rows of `hf:NAME[:CONFIG]:SPLIT`.

    Args:
        source: name, optional config and split of a dataset.
        media_dir: folder for embedded audio.
        load_dataset: replaces `datasets.load_dataset`.

    Raises:
        DataError: the source has another form; the dataset, config or split cannot be loaded.
    """
    parts = split_source(source)
    datasets = _datasets(source)
    try:
        with _audio_stays_encoded(datasets):
            dataset = (load_dataset or datasets.load_dataset)(parts[0], *parts[1:-1], split=parts[-1])
    except Exception as error:  # the errors of `datasets` have no common base class
        raise DataError(f"{source}: {_reason(error)}\n{_advice(error)}") from error
    return _rows(dataset, source, media_dir)


def is_saved_dataset(folder: Path) -> bool:
    """Whether the folder was written by `save_to_disk`."""
    return (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()


def read_saved(folder: Path, media_dir: Path) -> Iterator[Row]:
    """Rows of one split from `save_to_disk`.

    Raises:
        DataError: the folder has several splits, or is damaged.
    """
    if (folder / "dataset_dict.json").exists():
        splits = sorted(path.parent.name for path in folder.glob("*/state.json"))
        raise DataError(
            f"{folder}: the dataset has the splits {', '.join(splits)}; choose one, such as {folder / splits[0]}"
            if splits
            else f"{folder}: the saved dataset has no splits"
        )
    datasets = _datasets(folder)
    try:
        dataset = datasets.load_from_disk(str(folder))
    except Exception as error:
        raise DataError(f"{folder}: the dataset cannot be loaded: {_reason(error)}") from error
    return _rows(dataset, str(folder), media_dir)


def read_parquet(path: Path, media_dir: Path) -> Iterator[Row]:
    """Rows of a Parquet file. Its audio is a path, or bytes and a path as written by `datasets`.

    Raises:
        DataError: the file is not Parquet.
    """
    datasets = _datasets(path)
    try:
        dataset = datasets.Dataset.from_parquet(str(path), cache_dir=str(media_dir / "arrow"))
    except Exception as error:
        raise DataError(f"{path}: the Parquet file cannot be loaded: {_reason(error)}") from error
    return _rows(dataset, str(path), media_dir)


def _datasets(source: object) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{source}: this source requires the package `datasets`; run `pip install datasets`") from error
    return datasets


def _advice(error: Exception) -> str:
    """What to do about an error of `load_dataset`."""
    text = f"{type(error).__name__} {error}".lower()
    if "script" in text:
        return "Convert a dataset with a loading script to Parquet."
    if any(word in text for word in ("gated", "401", "403", "authenticat", "private")):
        return "For a gated or private dataset, accept its terms on the hub and run `hf auth login`."
    return "Check the name, config and split, and the connection."


def _reason(error: Exception) -> str:
    while isinstance(error.__cause__, Exception):  # `datasets` wraps the reason in a general error
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip()[:300]}"


def _rows(dataset: Any, source: str, media_dir: Path) -> Iterator[Row]:
    """Rows with file paths for audio and names for class labels. Other columns with bytes (images) are left out."""
    import datasets

    features = dataset.features
    labels = {name: feature for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)}
    for name, feature in features.items():
        if isinstance(feature, datasets.Audio):
            dataset = dataset.cast_column(name, datasets.Audio(decode=False))
    audio, rate = _audio_column(features), next((name for name in features if name.lower() in RATE_COLUMNS), None)
    for number, values in enumerate(dataset):
        where = f"{source}: row {number}"
        row = {
            name: (labels[name].int2str(value) if name in labels and value is not None and value >= 0 else value)
            for name, value in values.items()
            if name == audio or not _has_bytes(value)
        }
        row |= {name: None for name in labels if row[name] == -1}  # a row without a label
        fault = None
        if audio is not None:
            value = row.pop(audio)
            if others := other_values(value):
                row[audio] = others  # such as the times of a segment
            try:
                path = audio_file(value, row.get(rate) if rate else None, media_dir)
            except DataError as error:
                path, fault = None, Finding("unreadable audio", f"column {audio!r}: {error}")
            row["audio_filepath"] = path
        yield Row(where, _web_dataset_values(row), fault)


def _audio_column(features: Mapping[str, Any]) -> str | None:
    """The column with embedded audio: one with the feature or a usual name, or else the first; None if none has any."""
    import datasets

    found = []
    for name, feature in features.items():
        is_binary = getattr(feature, "dtype", "") in ("binary", "large_binary")
        is_object = isinstance(feature, dict) and bool(feature.keys() & {"bytes", "array"})
        is_list = isinstance(feature, datasets.List | list) and name.lower() in SAMPLE_COLUMNS
        if isinstance(feature, datasets.Audio) or is_binary or is_object or is_list:
            found.append(name)
    usual = [name for name in found if name.lower() in SAMPLE_COLUMNS or isinstance(features[name], datasets.Audio)]
    return next(iter([*usual, *found]), None)


def _has_bytes(value: object) -> bool:
    return isinstance(value, bytes) or (isinstance(value, dict) and any(isinstance(v, bytes) for v in value.values()))


def _web_dataset_values(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row of a WebDataset: its key as id, and the keys of its JSON file as columns."""
    if "__key__" not in row:
        return row
    values = {name: value for name, value in row.items() if name not in ("__key__", "__url__", "json")}
    content = row.get("json")
    return {"id": row["__key__"]} | (content if isinstance(content, dict) else {}) | values


@contextmanager
def _audio_stays_encoded(datasets: Any) -> Iterator[None]:
    """Builds datasets without torchcodec, which `datasets` imports even to store the names or bytes of audio files."""
    original = datasets.Audio.encode_example

    def encode(feature: Any, value: Any) -> dict[str, Any]:
        if isinstance(value, str | os.PathLike):
            return {"bytes": None, "path": os.fspath(value)}
        if isinstance(value, bytes | bytearray):
            return {"bytes": bytes(value), "path": None}
        if isinstance(value, dict) and "array" not in value:
            return {"bytes": value.get("bytes"), "path": value.get("path")}
        encoded: dict[str, Any] = original(feature, value)
        return encoded

    datasets.Audio.encode_example = encode
    try:
        yield
    finally:
        datasets.Audio.encode_example = original
