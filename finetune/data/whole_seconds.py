"""Finds segments whose starts and ends are all whole seconds, such as 00:01 to 00:04: they are rounded."""

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from finetune.data.row import Row

log = logging.getLogger(__name__)


class WholeSeconds:
    """Counts the segments of a corpus, until one is not of whole seconds."""

    def __init__(self) -> None:
        self._count, self._has_start, self._are_whole = 0, False, True

    def add(self, offset: object, duration: object) -> None:
        """Adds the start and the duration of a row; one without both in seconds does not count."""
        if self._are_whole and isinstance(offset, float) and isinstance(duration, float):
            self._count += 1
            self._has_start = self._has_start or offset > 0
            self._are_whole = not (offset % 1 or duration % 1)

    def warn(self, source: str) -> None:
        """Warns if all segments are of whole seconds."""
        if self._are_whole and self._has_start and self._count > 2:
            log.warning(
                f"{source}: the times of all {self._count} segments are whole seconds, so they are probably rounded, "
                "and words at the edges are cut off; export the times with decimals"
            )


def warned(rows: Iterable[Row], source: str) -> Iterator[Row]:
    """The rows of a source with `offset` and `duration`; warns after the last one."""
    seconds = WholeSeconds()
    for row in rows:
        seconds.add(row.values.get("offset"), row.values.get("duration"))
        yield row
    seconds.warn(source)


def warning(read: Callable[[Path, Path], Iterable[Row]]) -> Callable[[Path, Path], Iterable[Row]]:
    """A reader of a format, see `CorpusFormat`, that also warns."""
    return lambda path, media_dir: warned(read(path, media_dir), str(path))
