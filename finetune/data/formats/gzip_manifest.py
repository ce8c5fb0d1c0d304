"""Reads a manifest (JSON Lines) that is compressed with gzip."""

from collections.abc import Iterator
from pathlib import Path

from finetune.data.formats.lines import json_objects
from finetune.data.row import Row


def matches(path: Path) -> bool:
    """Whether a file is named .jsonl.gz or .json.gz."""
    return path.name.lower().endswith((".jsonl.gz", ".json.gz")) and path.is_file()


def read(path: Path, media_dir: Path) -> Iterator[Row]:
    """One row for each line. Raises DataError if the file cannot be read or has other lines."""
    return (Row(where, dict(values)) for where, values in json_objects(path))
