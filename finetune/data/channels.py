"""Detects channels that are numbered from 1: read as numbers from 0, they would be the wrong side of a call."""

import logging
from collections.abc import Sequence

from finetune.core.errors import DataError
from finetune.data.audio_file import count_channels
from finetune.data.cells import cell_channel, cell_text, shown
from finetune.data.row import Row

log = logging.getLogger(__name__)


def check_numbering(rows: Sequence[Row], source: str) -> None:
    """Checks that the channels of a corpus can be numbers from 0.

    Raises:
        DataError: no row has channel 0, and one has a channel that is the number of channels of its file.
    """
    numbered = [(row, number) for row in rows if (number := _number(row)) is not None]
    if not numbered or any(number == 0 for _, number in numbered):
        return
    for row, number in numbered:
        if number == _num_channels(cell_text(row.values.get("audio_filepath"))):
            raise DataError(
                f"{row.where}: channel {shown(row.values.get('channel'))} does not exist: the file has {number}, and "
                "channels are numbered from 0. No row has channel 0, so the channels seem to be numbered from 1: "
                "subtract 1, or write left and right"
            )
    log.info(f"{source}: no row has channel 0; channels are numbered from 0, so 1 is the second channel")


def _number(row: Row) -> int | None:
    """The channel of a row if it is a number; None for left and right, which have one meaning."""
    value = row.values.get("channel")
    try:
        return None if cell_text(value).isalpha() else cell_channel(value)
    except ValueError:
        return None


def _num_channels(path: str) -> int | None:
    """The number of channels in the header of a file; None if the audit will report the file."""
    try:
        return count_channels(path)
    except DataError:
        return None
