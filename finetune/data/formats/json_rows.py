"""Reads JSON Lines and JSON lists to rows with the keys of the file."""

import json
from collections.abc import Iterator
from pathlib import Path

from finetune.core.errors import DataError
from finetune.core.files import open_regular, parse_jsonl
from finetune.data.formats.json_list import RepeatedKeyError, list_items
from finetune.data.raw_rows import LineRows, RawRows, StoredRows
from finetune.data.row import Row
from finetune.data.text_lines import TextLines, read_text, text_encoding


class JsonLines(LineRows):
    """The rows of a JSON Lines file."""

    def read(self, lines: TextLines) -> Iterator[Row]:
        for where, values in parse_jsonl(lines, self.path, lines.line):
            yield Row(where, values)


def read_json(path: Path) -> RawRows:
    """The rows of JSON Lines or of a JSON list.

    Raises:
        DataError: the file cannot be read, or is a list of anything else than objects. JSON Lines raise when iterated.
    """
    first = next((line for line in TextLines(path) if line.strip()), "")
    return StoredRows(_list_rows(path)) if first.lstrip().startswith("[") else JsonLines(path)


def _list_rows(path: Path) -> Iterator[Row]:
    number, wrong = 0, ""
    try:
        with open(open_regular(path), encoding=text_encoding(path)) as file:
            for number, values in enumerate(list_items(file), 1):
                where = f"{path}: item {number}"
                if isinstance(values, dict):
                    yield Row(where, values)
                else:
                    wrong = wrong or where
    except RepeatedKeyError as error:
        raise DataError(f"{path}: item {number + 1}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: neither JSON Lines nor a JSON list ({_reason(path) or error})") from error
    if wrong:  # after the end, because a damaged file is a more exact reason
        raise DataError(f"{wrong}: not a JSON object with keys such as audio_filepath and text")


def _reason(path: Path) -> str:
    """Why a file is not JSON, with the line; "" if it is JSON."""
    try:
        json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        return str(error)
    return ""
