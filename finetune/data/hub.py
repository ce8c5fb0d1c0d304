"""Hugging Face datasets -> rows, without the torchcodec that `datasets` wants for decoding audio.

Audio stays undecoded (`Audio(decode=False)`); bytes that lie inside a dataset are written out as they are, so
the audit meets the same faults in them as in any file.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from finetune.core.errors import DataError

MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3\x03": ".mp3", b"ID3\x04": ".mp3"}


@dataclass(frozen=True)
class Row:
    """One row of a corpus as found: `where` it stands (file:line or row number) and its `values` by column."""

    where: str
    values: dict[str, object]


def read_hub(source: str, media_dir: Path) -> Iterator[Row]:
    """Rows of `hf:NAME[:CONFIG]:SPLIT`.

    Raises:
        DataError: a source of another form; the dataset, config or split cannot be had.
    """
    parts = source.split(":")[1:]
    if len(parts) not in (2, 3) or not all(parts):
        raise DataError(f"{source}: write hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT, such as hf:org/corpus:en:train")
    datasets = _datasets(source)
    try:
        dataset = datasets.load_dataset(parts[0], *parts[1:-1], split=parts[-1])
    except Exception as error:  # network, access, scripts, names: `datasets` has no common base for them
        raise DataError(
            f"{source}: {_reason(error)}\nCheck the name, config and split; for a gated dataset accept its "
            "terms and `hf auth login`; one with a loading script must be converted to Parquet"
        ) from error
    return _rows(dataset, source, media_dir)


def is_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()


def read_saved(folder: Path, media_dir: Path) -> Iterator[Row]:
    """Rows of one split that `save_to_disk` wrote.

    Raises:
        DataError: the folder holds several splits, or is damaged.
    """
    if (folder / "dataset_dict.json").exists():
        splits = sorted(path.parent.name for path in folder.glob("*/state.json"))
        raise DataError(
            f"{folder}: holds the splits {', '.join(splits)}; name one, such as {folder / splits[0]}"
            if splits
            else f"{folder}: a saved dataset without splits"
        )
    datasets = _datasets(folder)
    try:
        dataset = datasets.load_from_disk(str(folder))
    except Exception as error:
        raise DataError(f"{folder}: not a dataset that can be loaded: {_reason(error)}") from error
    return _rows(dataset, str(folder), media_dir)


def read_parquet(path: Path, media_dir: Path) -> Iterator[Row]:
    """Rows of a Parquet file; its audio may be a path or the {bytes, path} that `datasets` writes.

    Raises:
        DataError: not a Parquet file.
    """
    datasets = _datasets(path)
    try:
        dataset = datasets.Dataset.from_parquet(str(path), cache_dir=str(media_dir / "arrow"))
    except Exception as error:
        raise DataError(f"{path}: not a Parquet file that can be loaded: {_reason(error)}") from error
    return _rows(dataset, str(path), media_dir)


def _datasets(source: object) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{source}: reading it needs the package `datasets`: pip install datasets") from error
    return datasets


def _reason(error: Exception) -> str:
    while isinstance(error.__cause__, Exception):  # `datasets` hides the reason beneath "an error occurred"
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip()[:300]}"


def _rows(dataset: Any, source: str, media_dir: Path) -> Iterator[Row]:
    """Rows with audio as file paths and class labels as their names."""
    import datasets

    labels = {name: kind for name, kind in dataset.features.items() if isinstance(kind, datasets.ClassLabel)}
    for name, kind in dataset.features.items():
        if isinstance(kind, datasets.Audio):
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
    """The path of a clip; one that is held as bytes is written into `media_dir`, once."""
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
