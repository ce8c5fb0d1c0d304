"""Finds the Parquet files of a corpus: a file, or a folder with the shards of one split."""

import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from finetune.core.errors import DataError
from finetune.data.formats.folders import SPLIT_FOLDERS

log = logging.getLogger(__name__)

DEPTH, MAX_LOOKED_AT = 3, 1000  # folders below the named one; entries of each that `matches` looks at
# train-00000-of-00012, also with a hash: train-00000-of-00012-a09b74b3ef9c3b56
SHARD = re.compile(r"(?P<name>.*?)[-_.]?(?P<number>\d+)-of-(?P<total>\d+)(?:-[0-9a-f]{8,})?$")


def matches(path: Path) -> bool:
    """Whether a path is a Parquet file or a folder with Parquet files."""
    if path.is_dir():
        return next(_files(path, DEPTH, MAX_LOOKED_AT), None) is not None
    return path.suffix.lower() == ".parquet"


def parquet_files(path: Path) -> list[Path]:
    """The file, or all Parquet files of a folder in the order of their paths.

    Raises:
        DataError: the folder has several splits or data sets.
    """
    if not path.is_dir():
        return [path]
    files = sorted(_files(path, DEPTH))
    _check_splits(path, files)
    _warn_of_missing_shards(path, files)
    return files


def partition(file: Path, path: Path) -> dict[str, object]:
    """The columns that the folders between a corpus and its file state, as in `lang=en/0.parquet`."""
    folders = file.relative_to(path).parts[:-1] if file != path else ()
    return {name: value for name, sign, value in (part.partition("=") for part in folders) if sign}


def _files(folder: Path, depth: int, limit: int | None = None) -> Iterator[Path]:
    """The Parquet files in a folder and in its folders; hidden ones are left out."""
    folders = []
    for number, path in enumerate(folder.iterdir()):
        if limit is not None and number >= limit:
            break
        if path.name.startswith((".", "_")):
            continue
        if path.suffix.lower() == ".parquet" and path.is_file():
            yield path
        elif depth > 1 and path.is_dir():
            folders.append(path)
    for inner in sorted(folders):
        yield from _files(inner, depth - 1, limit)


def _split_of(file: Path, folder: Path) -> tuple[str, ...]:
    """The split of a file: a folder with the name of a split, and the start of the file's name; () for none."""
    shard = SHARD.match(file.stem)
    name = shard["name"] if shard else re.sub(r"[-_.]*\d+$", "", file.stem)
    is_split = bool(shard) or bool({*re.split(r"[^a-z]+", name.lower())} & {*SPLIT_FOLDERS})
    folders = [part for part in file.relative_to(folder).parts[:-1] if part.lower() in SPLIT_FOLDERS]
    return (*folders[-1:], *((name,) if is_split else ()))


def _check_splits(folder: Path, files: Sequence[Path]) -> None:
    """Raises DataError if the files of a folder are of several splits or data sets."""
    splits, places = defaultdict(list), defaultdict(set)
    for file in files:
        splits[_split_of(file, folder)].append(file)
        places[(_split_of(file, folder), file.name)].add(file.parent)
    if len(splits) > 1:
        names = ["/".join(split) or "(no split)" for split in splits]
        raise DataError(
            f"{folder}: the Parquet files are of the splits {', '.join(sorted(names)[:10])}; give one of them, such as "
            f"{_pattern(next(iter(splits.values())))}"
        )
    several = [sorted(paths) for paths in places.values() if len(paths) > 1]
    copies = [paths for paths in several if not partition(paths[0] / "file", folder)]
    if copies:
        first = copies[0]
        raise DataError(
            f"{folder}: its folders have Parquet files of the same names, so they are several data sets: "
            f"{', '.join(str(path.relative_to(folder)) for path in first[:10])}; give one of them, such as {first[0]}"
        )


def _pattern(files: Sequence[Path]) -> str:
    """A path or pattern that names some files of one split."""
    if len(files) == 1:
        return str(files[0])
    names = [SHARD.match(file.stem) for file in files]
    if len({file.parent for file in files}) > 1 or not all(names):
        return str(files[0].parent)
    return str(files[0].parent / f"{names[0]['name'] if names[0] else ''}-*.parquet")


def _warn_of_missing_shards(folder: Path, files: Sequence[Path]) -> None:
    numbers = defaultdict(set)
    for file in files:
        if match := SHARD.match(file.stem):
            numbers[(file.parent, match["name"], int(match["total"]))].add(int(match["number"]))
    missing = sum(max(0, total - len(present)) for (_, _, total), present in numbers.items())
    if missing:
        log.warning(
            "%s: %d of the shards that the file names count are missing; their rows are not read", folder, missing
        )
