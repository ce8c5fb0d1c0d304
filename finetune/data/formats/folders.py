"""Looks into folders of any size without listing all of them, and finds the files that a corpus names."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from finetune.data.audio_paths import expanded
from finetune.data.audio_suffixes import AUDIO_SUFFIXES

# Names of folders and words of file names that are a split of a corpus.
SPLIT_FOLDERS = ("train", "training", "valid", "validation", "val", "dev", "test", "testing", "eval", "evaluation")
FEW = 50  # subfolders that are looked at
MAX_WALKED = 1000  # folders that are searched for audio with a text file
TABLES = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet", "state.json", "dataset_dict.json")


def few_folders(folder: Path) -> Iterator[Path]:
    """The first subfolders of a folder, in no fixed order; none of what is not a folder."""
    try:
        with os.scandir(folder) as entries:
            yield from (Path(entry.path) for entry in islice((entry for entry in entries if entry.is_dir()), FEW))
    except OSError:
        return


def subfolders(folder: Path) -> list[Path]:
    """All subfolders of a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir())


def subfolders_with(folder: Path, name: str) -> list[Path]:
    """The subfolders, of the first ones, that have a file of this name; sorted."""
    return sorted(path for path in few_folders(folder) if (path / name).is_file())


def is_known_folder(folder: Path) -> bool:
    """Whether a folder has a metadata table, is a saved data set, or has audio with text files of the same names.

    It is then read as that, whatever other files it has.
    """
    if any((folder / name).exists() for name in TABLES):
        return True
    for _, _, names in islice(os.walk(folder), MAX_WALKED):
        stems = {os.path.splitext(name)[0] for name in names if name.endswith(".txt")}
        parts = map(os.path.splitext, names) if stems else ()
        if any(stem in stems and suffix.lower() in AUDIO_SUFFIXES for stem, suffix in parts):
            return True
    return False


class FileFinder:
    """Finds files by paths that are relative to a folder, its parents (where recipes run) or the current directory."""

    def __init__(self, folder: Path) -> None:
        folder = folder.absolute()
        self._bases = [folder, folder.parent, folder.parent.parent, folder.parent.parent.parent, Path.cwd()]

    def find(self, path: str) -> str | None:
        """The file, or a URL as it is; None if it does not exist."""
        if "://" in path:
            return path
        name = expanded(path)
        if os.path.isabs(name):
            return name if _exists(name) else None
        for base in self._bases:
            if _exists(candidate := f"{base}/{name}"):
                self._bases = [base, *(other for other in self._bases if other != base)]
                return candidate
        return None


def _exists(path: str) -> bool:
    try:
        return os.path.isfile(path)
    except ValueError:  # a NUL
        return False
