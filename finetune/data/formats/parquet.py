"""Reads Parquet files, and folders of them, row group by row group. Needs memory for a few rows, not for a file."""

import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.core.errors import DataError
from finetune.data.formats.dataset_rows import DatasetColumns, columns_of_schema, dataset_row
from finetune.data.formats.relative_paths import with_paths
from finetune.data.row import Row

if TYPE_CHECKING:
    import pyarrow

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 16  # with 30 s of samples as numbers, 60 MB
BUFFER = 1 << 20  # bytes of a column that are read at once
DEPTH, MAX_LOOKED_AT = 3, 1000  # folders below the named one; entries of each that `matches` looks at
SPLIT_WORDS = {"train", "training", "valid", "validation", "val", "dev", "test", "testing", "eval", "evaluation"}
SHARD = re.compile(r"(?P<name>.*?)[-_.]?(?P<number>\d+)-of-(?P<total>\d+)$")  # train-00000-of-00012


def matches(path: Path) -> bool:
    """Whether a path is a Parquet file or a folder with Parquet files."""
    if path.is_dir():
        return next(_files(path, DEPTH, MAX_LOOKED_AT), None) is not None
    return path.suffix.lower() == ".parquet"


def read(path: Path, media_dir: Path) -> Iterator[Row]:
    """Rows of a Parquet file, or of all Parquet files of a folder. Embedded audio is written to `media_dir`.

    Raises:
        DataError: a file is not Parquet; the folder has several splits or data sets.
    """
    if not path.is_dir():
        yield from _read_file(path, media_dir)
        return
    files = sorted(_files(path, DEPTH))
    _check_splits(path, files)
    _warn_of_missing_shards(path, files)
    for file in files:
        partition = dict(part.split("=", 1) for part in file.relative_to(path).parts[:-1] if "=" in part)
        for row in with_paths(_read_file(file, media_dir), file.parent):
            yield replace(row, values=partition | row.values)


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


def _read_file(path: Path, media_dir: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    numbers = count()
    try:
        with ParquetFile(path, buffer_size=BUFFER, pre_buffer=False) as file:
            columns = columns_of_schema(file.schema_arrow)
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group]):
                    for values in _values(batch, columns):
                        yield dataset_row(f"{path}: row {next(numbers)}", values, columns, media_dir)
    except (pyarrow.ArrowException, OSError) as error:
        reason = f"{type(error).__name__}: {str(error).strip()[:300]}"
        raise DataError(f"{path}: the Parquet file cannot be loaded (at row {next(numbers)}): {reason}") from error


def _values(batch: "pyarrow.RecordBatch", columns: DatasetColumns) -> Iterator[dict[str, Any]]:
    """The rows of a batch; lists of samples stay arrays."""
    others = [name for name in batch.schema.names if name != columns.audio]
    for index, values in enumerate(batch.select(others).to_pylist()):
        if columns.audio is not None:
            values[columns.audio] = _audio_value(batch.column(columns.audio)[index])
        yield values


def _audio_value(scalar: Any) -> Any:
    """A value of Arrow as an object of Python, and a list of numbers as an array."""
    import pyarrow

    if not scalar.is_valid:
        return None
    if isinstance(scalar, pyarrow.StructScalar):
        value = {name: _audio_value(value) for name, value in scalar.items()}
        data = value.get("bytes")  # can be a list of numbers
        return value | {"bytes": data.astype(np.uint8).tobytes()} if isinstance(data, np.ndarray) else value
    values: Any = getattr(scalar, "values", None)  # of a list
    if values is None or values.null_count:
        return scalar.as_py()
    is_number = pyarrow.types.is_integer(values.type) or pyarrow.types.is_floating(values.type)
    return values.to_numpy(zero_copy_only=False) if is_number else scalar.as_py()


def _split_of(file: Path, folder: Path) -> tuple[str, ...]:
    """The split of a file: a folder with the name of a split, and the start of the file's name; () for none."""
    shard = SHARD.match(file.stem)
    name = shard["name"] if shard else re.sub(r"[-_.]*\d+$", "", file.stem)
    is_split = bool(shard) or bool({*re.split(r"[^a-z]+", name.lower())} & SPLIT_WORDS)
    folders = [part for part in file.relative_to(folder).parts[:-1] if part.lower() in SPLIT_WORDS]
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
            f"{folder}: the Parquet files are of the splits {', '.join(sorted(names))}; give one of them, such as "
            f"{_pattern(next(iter(splits.values())))}"
        )
    copies = [sorted(found) for found in places.values() if len(found) > 1 and "=" not in str(min(found))]
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
    missing = sum(max(0, total - len(found)) for (_, _, total), found in numbers.items())
    if missing:
        log.warning(
            "%s: %d of the shards that the file names count are missing; their rows are not read", folder, missing
        )
