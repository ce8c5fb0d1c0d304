"""Recognizes tables without a header: audio and text, or the three columns of LJSpeech."""

import csv
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Literal

from finetune.core.errors import DataError
from finetune.core.wording import count
from finetune.data.audio_paths import audio_folders, find_audio
from finetune.data.cells import shown
from finetune.data.columns import known_columns
from finetune.data.formats.tables import TABLES, Header
from finetune.data.text_lines import TextLines

AUDIO = re.compile(r"\.(wav|flac|mp3|ogg|oga|opus|m4a|mp4|webm|aac|wma|aiff?|au|sph)$", re.IGNORECASE)
MAX_ROWS = 100  # rows that are compared
SIMILAR = 0.6  # similarity of a text and its normalized form; a text and a speaker have less


def missing_header(path: Path) -> Header | None:
    """The header that a .csv or .tsv file lacks; None if its first line is a header.

    A first line whose first cell is the name of an existing audio file is not a header. Two columns are audio and text;
    three are those of LJSpeech (audio, text, normalized text) if the last two are similar.

    Raises:
        DataError: there is no header, and the columns are not known.
    """
    lines = [line.rstrip("\r\n") for line in islice(filter(str.strip, TextLines(path)), MAX_ROWS)]
    if not lines:
        return None
    tables = {delimiter: [_split(line, delimiter) for line in lines] for delimiter in TABLES[path.suffix.lower()]}
    tables = {delimiter: table for delimiter, table in tables.items() if len(table[0]) > 1}
    if any({"audio_filepath", "text"} <= {*known_columns(table[0]).values()} for table in tables.values()):
        return None
    bases = audio_folders(path.parent)
    for delimiter, table in tables.items():
        are_audio = [bool(cell) and (AUDIO.search(cell) or find_audio(cell, bases)) for cell in table[0]]
        if are_audio[0] and (names := _names(table)):
            return Header(delimiter, names)
        if any(are_audio):
            raise DataError(
                f"{path}:1: the table has no header, so its {count(len(table[0]), 'column')} cannot be named; add a "
                f"first line with their names, such as {delimiter.join(('audio_filepath', 'text'))!r} (the first line "
                f"is {shown(lines[0])})"
            )
    return None


def _split(line: str, delimiter: str) -> list[str]:
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter in "\t|" else csv.QUOTE_MINIMAL
    try:
        cells = next(csv.reader([line], delimiter=delimiter, quoting=quoting))
    except csv.Error:  # the reader of the complete table names the line
        return [line]
    return [cell.strip().strip('"') for cell in cells]


def _names(table: Sequence[Sequence[str]]) -> list[str] | None:
    """The names of the columns of a table whose first column is audio; None if they are not known."""
    if len(table[0]) == 2:
        return ["audio_filepath", "text"]
    complete = [cells for cells in table if len(cells) == 3]
    if len(table[0]) != 3:
        return None
    similarity = median(
        SequenceMatcher(None, text.lower()[:1000], last.lower()[:1000]).ratio() for _, text, last in complete
    )
    return ["audio_filepath", "raw_text", "text"] if similarity >= SIMILAR else None
