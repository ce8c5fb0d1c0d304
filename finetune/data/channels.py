"""Detects channels that are numbered from 1: read as numbers from 0, they would be the wrong side of a call."""

import logging
from collections.abc import Iterable
from functools import lru_cache

from finetune.core.errors import DataError
from finetune.data.audio_file import count_channels
from finetune.data.cells import cell_channel, cell_text, shown
from finetune.data.row import Row

log = logging.getLogger(__name__)

CACHED, MAX_FILES = 4096, 2000


def check_numbering(rows: Iterable[Row], source: str) -> None:
    """Checks that the channels of a corpus, in which no row has channel 0, can be numbers from 0.

    The headers of the first MAX_FILES files are read.

    Raises:
        DataError: a row has a channel that is the number of channels of its file.
    """
    cached = lru_cache(CACHED)(num_channels)
    files = set[int]()
    for row in rows:
        path = cell_text(row.values.get("audio_filepath"))
        number = channel_number(row.values.get("channel"))
        files.add(hash(path))
        if len(files) > MAX_FILES:
            break
        if number is not None and number == cached(path):
            raise DataError(
                f"{row.where}: channel {shown(row.values.get('channel'))} does not exist: the file has {number}, and "
                "channels are numbered from 0. No row has channel 0, so the channels seem to be numbered from 1: "
                "subtract 1, or write left and right"
            )
    log.info(f"{source}: no row has channel 0; channels are numbered from 0, so 1 is the second channel")


def channel_number(value: object) -> int | None:
    """The channel in a cell if it is a number; None for left and right, which have one meaning."""
    try:
        return None if cell_text(value).isalpha() else cell_channel(value)
    except ValueError:
        return None


def num_channels(path: str) -> int | None:
    """The number of channels in the header of a file; None if the audit will report the file."""
    try:
        return count_channels(path)
    except DataError:
        return None
