"""Looks into folders of any size without listing all of them."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

FEW = 50  # subfolders that are looked at


def few_folders(folder: Path) -> Iterator[Path]:
    """The first subfolders of a folder, in no fixed order; none of what is not a folder."""
    try:
        with os.scandir(folder) as entries:
            yield from (Path(entry.path) for entry in islice((entry for entry in entries if entry.is_dir()), FEW))
    except OSError:
        return


def subfolders_with(folder: Path, name: str) -> list[Path]:
    """The subfolders, of the first ones, that have a file of this name; sorted."""
    return sorted(path for path in few_folders(folder) if (path / name).is_file())


def has_table(folder: Path) -> bool:
    """Whether a folder has a metadata table or is a saved data set, which is then the corpus."""
    names = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet", "state.json", "dataset_dict.json")
    return any((folder / name).exists() for name in names)
