"""Reads Hugging Face datasets to rows. Does not need torchcodec, which `datasets` uses to decode audio.

Audio stays encoded (`Audio(decode=False)`). Audio bytes inside a dataset are written to files unchanged, so `audit`
checks them like any other file.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from finetune.core.errors import DataError
from finetune.data.problems import Finding

MAGIC = {
    b"RIFF": ".wav",
    b"fLaC": ".flac",
    b"OggS": ".ogg",
    b"ID3\x03": ".mp3",
    b"ID3\x04": ".mp3",
    b"\x1aE\xdf\xa3": ".mkv",
    b"0&\xb2u": ".wma",
    b"#!AM": ".amr",
}


@dataclass(frozen=True)
class Row:
    """One row of a corpus: its position (file:line or row number), its values by column, a reason not to use it."""

    where: str
    values: dict[str, object]
    fault: Finding | None = None


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
    load_dataset = load_dataset or _datasets(source).load_dataset
    try:
        dataset = load_dataset(parts[0], *parts[1:-1], split=parts[-1])
    except Exception as error:  # the errors of `datasets` have no common base class
        raise DataError(
            f"{source}: {_reason(error)}\nCheck the name, config and split. For a gated dataset, accept its "
            "terms and run `hf auth login`. Convert a dataset with a loading script to Parquet."
        ) from error
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


def _reason(error: Exception) -> str:
    while isinstance(error.__cause__, Exception):  # `datasets` wraps the reason in a general error
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip()[:300]}"


def _rows(dataset: Any, source: str, media_dir: Path) -> Iterator[Row]:
    """Rows with file paths for audio and names for class labels."""
    import datasets

    labels = {name: feature for name, feature in dataset.features.items() if isinstance(feature, datasets.ClassLabel)}
    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Audio):
            dataset = dataset.cast_column(name, datasets.Audio(decode=False))
    for number, values in enumerate(dataset):
        row = {
            name: labels[name].int2str(value) if name in labels and value is not None else value
            for name, value in values.items()
        }
        for name, value in list(row.items()):
            if isinstance(value, dict) and value.keys() == {"bytes", "path"}:
                row["audio_filepath"] = _audio_file(row.pop(name), media_dir)
        yield Row(f"{source}: row {number}", row)


def _audio_file(audio: dict[str, Any], media_dir: Path) -> str | None:
    """The path of an audio file. Embedded bytes are written to `media_dir`, once."""
    data, path = audio["bytes"], audio["path"]
    if not data:
        return path or None
    name = PurePath(path or "clip")
    stem = re.sub(r"[^\w.-]+", "_", name.stem)[:80]
    suffix = name.suffix if re.fullmatch(r"\.\w{1,5}", name.suffix) else MAGIC.get(data[:4], ".audio")
    target = media_dir / f"{stem}-{hashlib.sha256(data).hexdigest()[:12]}{suffix}"
    if not target.exists():
        media_dir.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(data)
        os.replace(temporary, target)
    return str(target)
