"""Reads Hugging Face data sets (`hf:`) as a stream, and folders of `save_to_disk`.

Audio stays encoded (`Audio(decode=False)`), so torchcodec is not needed. A stream needs neither the disk space nor the
time of a copy in Arrow; a data set that cannot be streamed is loaded completely.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import count
from pathlib import Path, PurePath
from typing import Any

from finetune.core.errors import DataError
from finetune.data.byte_range import is_url
from finetune.data.formats.dataset_rows import columns_of_schema, columns_of_values, dataset_row
from finetune.data.formats.embedded_audio import write_media
from finetune.data.row import Row

log = logging.getLogger(__name__)

LoadDataset = Callable[..., Any]


def split_source(source: str) -> list[str]:
    """Name, config if any, and split of `hf:NAME[:CONFIG]:SPLIT`.

    Raises:
        DataError: the source has another form.
    """
    parts = source.split(":")[1:]
    if len(parts) not in (2, 3) or not all(parts):
        raise DataError(f"{source}: write hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT, such as hf:org/corpus:en:train")
    return parts


def read_hub(source: str, media_dir: Path, load_dataset: LoadDataset | None = None) -> Iterator[Row]:
    """Rows of `hf:NAME[:CONFIG]:SPLIT`.

    Args:
        source: name, optional config and split of a data set.
        media_dir: folder for embedded audio.
        load_dataset: replaces `datasets.load_dataset`.

    Raises:
        DataError: the source has another form; the data set, config or split cannot be loaded.
    """
    parts = split_source(source)
    datasets = _datasets(source)
    load = load_dataset or datasets.load_dataset
    rows = None
    try:
        rows = _rows(_load(datasets, load, parts, streaming=True), source, media_dir)
        first = next(rows, None)
    except Exception as error:  # the errors of `datasets` have no common base class
        if not _cannot_stream(error):  # else a wrong split would be found only after the download of all others
            raise _refused(source, error) from error
        log.info("%s: cannot be streamed (%s); it is loaded completely", source, _reason(error))
        yield from _read_complete(source, datasets, load, parts, media_dir)
        return
    if first is not None:
        yield first
        yield from _until_error(rows, source)


def _read_complete(source: str, datasets: Any, load: LoadDataset, parts: list[str], media_dir: Path) -> Iterator[Row]:
    try:
        dataset = _load(datasets, load, parts, streaming=False)
    except Exception as error:
        raise _refused(source, error) from error
    yield from _rows(dataset, source, media_dir)


def _load(datasets: Any, load: LoadDataset, parts: list[str], streaming: bool) -> Any:
    with _audio_stays_encoded(datasets):
        return load(parts[0], *parts[1:-1], split=parts[-1], **({"streaming": True} if streaming else {}))


def _until_error(rows: Iterator[Row], source: str) -> Iterator[Row]:
    """The rows of a stream; `datasets` has retried a failed download before its error comes here."""
    for number in count(1):
        try:
            row = next(rows, None)
        except Exception as error:
            raise DataError(
                f"{source}: the stream failed after {number} row{'s' * (number != 1)}: {_reason(error)}\nCheck "
                "the connection and run again"
            ) from error
        if row is None:
            return
        yield row


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
    yield from _rows(dataset, str(folder), media_dir)


def _datasets(source: object) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{source}: this source requires the package `datasets`; run `pip install datasets`") from error
    return datasets


def _cannot_stream(error: BaseException | None) -> bool:
    """Whether a data set failed only because it is read as a stream, such as a compressed archive in an archive."""
    if error is None or isinstance(error, DataError):
        return False
    return isinstance(error, NotImplementedError) or "streaming" in str(error) or _cannot_stream(error.__cause__)


def _refused(source: str, error: Exception) -> DataError:
    return error if isinstance(error, DataError) else DataError(f"{source}: {_reason(error)}\n{_advice(error)}")


def _advice(error: Exception) -> str:
    """What to do about an error of `load_dataset`."""
    text = f"{type(error).__name__} {error}".lower()
    if "script" in text:
        return "Convert a dataset with a loading script to Parquet."
    if any(word in text for word in ("gated", "401", "403", "authenticat", "private")):
        return "For a gated or private dataset, accept its terms on the hub and run `hf auth login`."
    return "Check the name, config and split, and the connection."


def _reason(error: Exception) -> str:
    while isinstance(error.__cause__, Exception):  # `datasets` wraps the reason in a general error
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip()[:300]}"


def _rows(dataset: Any, source: str, media_dir: Path) -> Iterator[Row]:
    """Rows of a data set of `datasets`, complete or a stream; the features of a stream can be unknown."""
    import datasets

    features = dataset.features
    known = columns_of_schema(features.arrow_schema) if features else None
    for name, feature in (features or {}).items():
        if isinstance(feature, datasets.Audio):
            dataset = dataset.cast_column(name, datasets.Audio(decode=False))
    rows = iter(dataset)
    for number in count():
        with _audio_stays_encoded(datasets):  # a stream encodes each row
            values = next(rows, None)
        if values is None:
            return
        columns = known or columns_of_values(values)
        if columns.audio is not None and is_remote(values.get(columns.audio)):
            values = values | {columns.audio: _fetched(values[columns.audio], media_dir)}
        yield dataset_row(f"{source}: row {number}", values, columns, media_dir)


def is_remote(value: object) -> bool:
    """Whether a value has only the address of an audio file, as in a stream of an audio folder on the hub."""
    return isinstance(value, dict) and not value.get("bytes") and is_url(str(value.get("path") or ""))


def _fetched(value: dict[str, Any], media_dir: Path) -> dict[str, Any]:
    """The value with the path of a downloaded file; one with the same address is downloaded once."""
    from datasets.utils.file_utils import xopen

    address = str(value["path"])

    def content() -> bytes:
        with xopen(address, "rb") as file:  # retries an interrupted download
            return file.read()

    name = PurePath(address.split("::")[0])
    return value | {"path": write_media(name.stem, sha256(address.encode()), name.suffix, media_dir, content)}


@contextmanager
def _audio_stays_encoded(datasets: Any) -> Iterator[None]:
    """Builds datasets without torchcodec, which `datasets` imports even to store the names or bytes of audio files."""
    original = datasets.Audio.encode_example

    def encode(feature: Any, value: Any) -> dict[str, Any]:
        if isinstance(value, str | os.PathLike):
            return {"bytes": None, "path": os.fspath(value)}
        if isinstance(value, bytes | bytearray):
            return {"bytes": bytes(value), "path": None}
        if isinstance(value, dict) and "array" not in value:
            return {"bytes": value.get("bytes"), "path": value.get("path")}
        encoded: dict[str, Any] = original(feature, value)
        return encoded

    datasets.Audio.encode_example = encode
    try:
        yield
    finally:
        datasets.Audio.encode_example = original
