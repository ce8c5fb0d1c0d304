"""Reads folders of audio with a table: metadata.csv of an audio folder, in the folder or in the folders below it."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from finetune.core.errors import DataError
from finetune.data.formats import parquet
from finetune.data.formats.audio_names import is_audio
from finetune.data.formats.folders import SPLIT_FOLDERS, subfolders
from finetune.data.formats.headerless import missing_header
from finetune.data.formats.relative_paths import with_paths
from finetune.data.formats.tables import JSON, TABLES, read_table
from finetune.data.row import Row

log = logging.getLogger(__name__)

METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")


def matches(path: Path) -> bool:
    """Whether a folder, or a folder below it, has a metadata table."""
    return path.is_dir() and bool(_tables(path))


def read(folder: Path, media_dir: Path) -> Iterable[Row]:
    """The rows of the table of a folder, or of the tables in its folders, with the paths of their audio.

    Raises:
        DataError: several folders have a table, and one is a split, such as train or test.
    """
    return _rows(folder, lambda table: parquet.read(table, media_dir))


def preview(folder: Path) -> Iterable[Row]:
    """The rows of `read` without audio that is inside of metadata.parquet."""
    return _rows(folder, parquet.preview)


def _rows(folder: Path, read_parquet: Callable[[Path], Iterator[Row]]) -> Iterable[Row]:
    tables = _tables(folder)
    corpora = list(dict.fromkeys(table.parent for table in tables))
    chosen = [next(table for table in tables if table.parent == corpus) for corpus in corpora]
    if others := [str(table.relative_to(folder)) for table in tables if table not in chosen]:
        log.warning("%s: %s is read; %s is not", folder, chosen[0].name, ", ".join(others))
    if corpora == [folder]:
        return _rows_of_table(chosen[0], read_parquet)
    check_splits(folder, corpora)
    _check_others(folder, corpora)
    log.info("%s: read from %d folders with a table, such as %s", folder, len(corpora), corpora[0])
    return (row for table in chosen for row in with_paths(_rows_of_table(table, read_parquet), table.parent))


def _rows_of_table(table: Path, read_parquet: Callable[[Path], Iterator[Row]]) -> Iterable[Row]:
    if table.suffix == ".parquet":
        return read_parquet(table)
    return read_table(table, missing_header(table) if table.suffix in TABLES else None)


def check_splits(folder: Path, corpora: Iterable[Path] = ()) -> None:
    """Checks that the folders in a folder are not several splits.

    Args:
        folder: a folder.
        corpora: the folders below it that have a table; without one, those whose name is that of a split.

    Raises:
        DataError: there are several, and at least one is a split.
    """
    splits = sorted(path for path in folder.iterdir() if path.is_dir() and path.name.lower() in SPLIT_FOLDERS)
    folders = sorted(corpora)
    is_split = any(part.lower() in SPLIT_FOLDERS for path in folders for part in path.relative_to(folder).parts)
    if len(splits) > 1 or (is_split and len(folders) > 1):
        folders = folders if len(folders) > 1 else splits
        names = ", ".join(str(path.relative_to(folder)) for path in folders[:10])
        raise DataError(f"{folder}: the corpora are its subfolders {names}; give one of them, such as {folders[0]}")


def _check_others(folder: Path, corpora: Sequence[Path]) -> None:
    """Raises DataError if a folder has a corpus of its own beside those of its folders."""
    own = sorted(
        path.name for path in folder.iterdir() if path.suffix.lower() in (*JSON, *TABLES) or is_audio(path.name)
    )
    if own:
        raise DataError(
            f"{folder}: it has {', '.join(own[:3])}, and its folders {', '.join(path.name for path in corpora[:3])} "
            f"have a table too; give one of them, such as {corpora[0]}"
        )


def _tables(folder: Path) -> list[Path]:
    """The metadata tables in a folder; without one, those in the folders one and two levels below it."""
    if own := _own_tables(folder):
        return own
    children = subfolders(folder)
    return [table for child in children for place in (child, *subfolders(child)) for table in _own_tables(place)]


def _own_tables(folder: Path) -> list[Path]:
    return [folder / name for name in METADATA if (folder / name).is_file()]
