"""Reads a folder of tar shards of `finetune convert` or `prepare --shards` by its manifest, which names every clip."""

from collections.abc import Iterable
from pathlib import Path

from finetune.data.formats.tables import read_table
from finetune.data.row import Row

MANIFEST, FIRST_SHARD = "manifest.jsonl", "shard-000000.tar"


def matches(path: Path) -> bool:
    """Whether a folder has the manifest and the first shard, or its index if the shard is missing."""
    return (path / MANIFEST).is_file() and any((path / f"{FIRST_SHARD}{end}").is_file() for end in ("", ".index"))


def read(folder: Path, media_dir: Path) -> Iterable[Row]:
    """The rows of the manifest. A missing shard is a fault of each of its rows."""
    return read_table(folder / MANIFEST)
