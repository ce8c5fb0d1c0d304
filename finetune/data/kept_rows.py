"""What leaks and changed files are found by, in 116 bytes for each utterance of a split: hashes, times, positions."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from finetune.core.hash_index import KEY_BYTES, text_key
from finetune.data.byte_range import file_of
from finetune.data.leak_text import comparison_key
from finetune.data.manifest import Utterance

HASH = f"S{KEY_BYTES}"
HASHES = ("id", "sentence", "digest", "speaker", "file")  # an empty value has the hash b""
COLUMNS = np.dtype(
    [
        *((name, HASH) for name in HASHES),
        *((name, np.float64) for name in ("offset", "duration")),
        ("channel", np.int32),  # -1 for the average
        *((name, np.int64) for name in ("line", "size", "time")),  # the byte in the manifest; state of the audio file
    ]
)
Columns = NDArray[np.void]
UNKNOWN = -1  # size and time of a file that cannot be read


class KeptRows(Protocol):
    """The utterances of a split."""

    def blocks(self) -> Iterator[Columns]:
        """COLUMNS of all utterances, in order."""
        ...

    def item(self, index: int) -> Utterance: ...


class ItemRows:
    """Utterances in memory as KeptRows."""

    def __init__(self, items: Sequence[Utterance]) -> None:
        self._items = items

    def blocks(self) -> Iterator[Columns]:
        status_of = cached_status()
        rows = [row_of(item, comparison_hash(item.text), 0, status_of) for item in self._items]
        yield np.array(rows, COLUMNS)

    def item(self, index: int) -> Utterance:
        return self._items[index]


StatusOf = Callable[[str], os.stat_result | None]


def cached_status() -> StatusOf:
    """A function for the status of the file of an `audio_filepath`; it remembers the last ones."""

    @lru_cache(1024)
    def status_of(path: str) -> os.stat_result | None:
        try:
            return os.stat(file_of(path))
        except (OSError, ValueError):
            return None

    return status_of


def comparison_hash(text: str) -> str:
    """The hash of a transcript without case, width and punctuation, in hexadecimal; "" without words."""
    key = comparison_key(text)
    return text_key(key).hex() if key else ""


def row_of(item: Utterance, sentence: str, line: int, status_of: StatusOf) -> tuple[Any, ...]:
    """The COLUMNS of an utterance.

    Args:
        item: the utterance.
        sentence: its `comparison_hash`.
        line: where its line begins in the manifest.
        status_of: see `cached_status`.
    """
    status = status_of(item.audio_filepath)
    return (
        text_key(item.id),
        bytes.fromhex(sentence),
        text_key(item.audio_digest) if item.audio_digest else b"",
        text_key(item.speaker) if item.speaker else b"",
        text_key(file_key(item.audio_filepath, status)),
        item.offset,
        item.duration,
        -1 if item.channel is None else item.channel,
        line,
        UNKNOWN if status is None else status.st_size,
        UNKNOWN if status is None else status.st_mtime_ns,
    )


def file_key(path: str, status: os.stat_result | None) -> str:
    """One name for a file and all links to it; a member of an archive is a file of its own."""
    if status is None:
        return path
    member = path.removeprefix(file_of(path)).rpartition("?")[2]
    return f"{status.st_dev}:{status.st_ino}:{member}"


def as_rows(rows: "KeptRows | Iterable[Utterance]") -> KeptRows:
    return ItemRows(list(rows)) if isinstance(rows, Iterable) else rows
