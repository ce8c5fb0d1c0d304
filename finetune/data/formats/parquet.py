"""Reads Parquet files row group by row group. Needs memory for a few rows, not for a file."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from finetune.core.errors import DataError
from finetune.data.cells import cell_number
from finetune.data.formats.dataset_rows import DatasetColumns, columns_of_schema, dataset_row
from finetune.data.formats.parquet_files import parquet_files, partition
from finetune.data.formats.relative_paths import with_paths
from finetune.data.row import Row
from finetune.data.time_names import TimeNames

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import ParquetFile

ROWS_AT_ONCE = 16  # with 30 s of samples as numbers, 60 MB
TEXTS_AT_ONCE = 1024
BUFFER = 1 << 20  # bytes of a column that are read at once
SAMPLES = ("bytes", "array")  # of an object with audio
TIMES = ("start", "end", "duration")


def read(path: Path, media_dir: Path) -> Iterator[Row]:
    """Rows of a Parquet file, or of all Parquet files of a folder. Embedded audio is written to `media_dir`.

    Raises:
        DataError: a file is not Parquet; the folder has several splits or data sets.
    """
    for file in parquet_files(path):
        yield from _placed(_rows(file, media_dir), file, path)


def read_url(url: str, media_dir: Path) -> Iterator[Row]:
    """Rows of a Parquet file on another machine, as `read`."""
    return _rows(url, media_dir)


def preview(path: Path) -> Iterator[Row]:
    """The rows without their audio: the path of embedded audio is that of the Parquet file, and nothing is written.

    Rows without times have the duration of the audio in the first rows of the file: their own, then their mean.

    Raises:
        DataError: see `read`.
    """
    for file in parquet_files(path):
        yield from _placed(_preview_rows(file), file, path)


def _placed(rows: Iterator[Row], file: Path, path: Path) -> Iterator[Row]:
    """The rows of a file with its partition; paths of audio start in the folder of the file."""
    columns = partition(file, path)
    for row in with_paths(rows, file.parent):
        yield replace(row, values=columns | row.values)


def _rows(path: Path | str, media_dir: Path) -> Iterator[Row]:
    with _opened(path) as file:
        columns = columns_of_schema(file.schema_arrow)
    numbers = count()
    for batch in _batches(path, ROWS_AT_ONCE):
        for values in _values(batch, columns):
            yield dataset_row(f"{path}: row {next(numbers)}", values, columns, media_dir)


def _preview_rows(path: Path) -> Iterator[Row]:
    import pyarrow

    with _opened(path) as file:
        schema = file.schema_arrow
    columns = columns_of_schema(schema)
    durations, is_embedded = _first_audio(path, columns)
    known = [seconds for seconds in durations if seconds > 0]
    mean = fmean(known) if known else 0.0
    names = [name for name in schema.names if name != columns.audio]
    if columns.audio is not None:
        kind = schema.field(columns.audio).type
        inner = [field.name for field in kind] if pyarrow.types.is_struct(kind) else []
        names += [f"{columns.audio}.{name}" for name in inner if name not in SAMPLES]
    columns_by_name = TimeNames()
    columns_by_name.add(dict.fromkeys(names), has_new_key=True)
    has_times = any(column.role in TIMES for column in columns_by_name.named())
    numbers = count()
    for batch in _batches(path, TEXTS_AT_ONCE, names):
        for values in batch.to_pylist():
            number = next(numbers)
            row = dataset_row(f"{path}: row {number}", values, columns, path)
            if is_embedded:
                seconds = durations[number] if number < len(durations) else mean
                stated = {"duration": seconds} if seconds and not has_times else {}
                row = replace(row, values=row.values | stated | {"audio_filepath": str(path)}, fault=None)
            yield row


def _first_audio(path: Path, columns: DatasetColumns) -> tuple[list[float], bool]:
    """Seconds of the audio in the first rows (0 if not known), and whether the file has audio inside."""
    batch = next(_batches(path, ROWS_AT_ONCE), None)
    if batch is None or columns.audio is None:
        return [], False
    durations, is_embedded = list[float](), False
    for row in _values(batch, columns):
        value, rate = row[columns.audio], row.get(columns.rate or "")
        if isinstance(value, dict):
            rate = value.get("sampling_rate") or rate
            value = next((value[name] for name in SAMPLES if value.get(name) is not None), None)
        is_embedded = is_embedded or isinstance(value, bytes | list | np.ndarray)
        durations.append(_seconds(value, cell_number(rate)))
    return durations, is_embedded


def _seconds(value: object, rate: float | None) -> float:
    """Seconds of the bytes of a file, by its header, or of samples; 0 if they are not known."""
    try:
        if isinstance(value, bytes):
            return float(soundfile.info(io.BytesIO(value)).duration)
        return max(np.shape(value), default=0) / rate if rate and isinstance(value, list | np.ndarray) else 0.0
    except (RuntimeError, ValueError):  # a format that only PyAV reads; lists of different lengths
        return 0.0


def _batches(path: Path | str, size: int, names: Sequence[str] | None = None) -> Iterator["pyarrow.RecordBatch"]:
    """The rows of a file in batches, with some columns or all."""
    import pyarrow

    num_rows = 0
    try:
        with _opened(path) as file:
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(size, row_groups=[group], columns=names):
                    yield batch
                    num_rows += len(batch)
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(path, error, num_rows) from error


def _opened(path: Path | str) -> "ParquetFile":
    """A file, or that of a URL."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(_remote(path) if isinstance(path, str) else path, buffer_size=BUFFER, pre_buffer=False)
    except (pyarrow.ArrowException, OSError, ImportError, ValueError) as error:  # the last two: an unknown protocol
        raise _damaged(path, error, 0) from error


def _remote(url: str) -> Any:
    import fsspec

    return fsspec.open(url, "rb").open()


def _damaged(path: Path | str, error: Exception, row: int) -> DataError:
    reason = f"{type(error).__name__}: {str(error).strip()[:300]}"
    return DataError(f"{path}: the Parquet file cannot be loaded (at row {row}): {reason}")


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
