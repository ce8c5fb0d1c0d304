"""Reads JSON Lines and JSON lists to rows with the keys of the file."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from finetune.core.errors import DataError
from finetune.core.files import open_regular, parse_jsonl
from finetune.data.cells import shown
from finetune.data.columns import known_columns
from finetune.data.formats.json_list import RepeatedKeyError, list_items
from finetune.data.problems import Finding
from finetune.data.raw_rows import LineRows, RawRows, StoredRows
from finetune.data.row import Row
from finetune.data.text_lines import TextLines, read_text, text_encoding

MAX_OBJECT = 200_000_000  # bytes of a file that is read as one object, for a message
OTHER_CORPORA = {  # by a key of their objects
    "audios": "for GigaSpeech, `lhotse prepare gigaspeech` writes recordings and supervisions, which are read",
    "utts": "for ESPnet, give the folder of Kaldi (wav.scp, text) from which it was made: it has features, not audio",
}
ONE_OBJECT = (
    "write one object with audio_filepath and text for each clip. If a speech recognizer wrote the file, export "
    "subtitles (talk.srt) there"
)


class JsonLines(LineRows):
    """The rows of a JSON Lines file."""

    def read(self, lines: TextLines) -> Iterator[Row]:
        for where, values in parse_jsonl(lines, self.path, lines.line):
            yield Row(where, values, _rejection(values))


def _rejection(values: Mapping[str, object]) -> Finding | None:
    """The fault of a row that a reviewer did not accept in Prodigy."""
    answer = values.get("answer")
    if "_task_hash" in values and answer in ("reject", "ignore"):
        return Finding("rejected row", f"the answer of its reviewer in Prodigy is {answer!r}")
    return None


def read_json(path: Path) -> RawRows:
    """The rows of JSON Lines or of a JSON list.

    Raises:
        DataError: the file cannot be read, or is a list of anything else than objects. JSON Lines raise when iterated.
    """
    return StoredRows(_list_rows(path)) if _first_line_of_rows(path).startswith("[") else JsonLines(path)


def check_rows(path: Path) -> None:
    """Raises DataError if a file is one JSON object, and no row."""
    _first_line_of_rows(path)


def _first_line_of_rows(path: Path) -> str:
    lines = (line for line in TextLines(path) if line.strip())
    first, is_alone = next(lines, ""), next(lines, None) is None
    if first.lstrip().startswith("{") and (names := _keys_of_object(path, first, is_alone)):
        raise DataError(
            f"{path}: one JSON object with the keys {shown(', '.join(names))}, not a list of rows; "
            f"{next((cure for key, cure in OTHER_CORPORA.items() if key in names), ONE_OBJECT)}"
        )
    return first.lstrip()


def _list_rows(path: Path) -> Iterator[Row]:
    number, wrong = 0, ""
    try:
        with open(open_regular(path), encoding=text_encoding(path)) as file:
            for number, values in enumerate(list_items(file), 1):
                where = f"{path}: item {number}"
                if isinstance(values, dict):
                    yield Row(where, values, _rejection(values))
                else:
                    wrong = wrong or where
    except RepeatedKeyError as error:
        raise DataError(f"{path}: item {number + 1}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: neither JSON Lines nor a JSON list ({_reason(path) or error})") from error
    if wrong:  # after the end, because a damaged file is a more exact reason
        raise DataError(f"{wrong}: not a JSON object with keys such as audio_filepath and text")


def _keys_of_object(path: Path, first: str, is_alone: bool) -> list[str]:
    """The keys of a file that is one object, but no row; none if it is JSON Lines, too large or damaged.

    Args:
        path: the file.
        first: its first line.
        is_alone: it has no other line.
    """
    try:
        row = json.loads(first)
        is_alone = is_alone and path.suffix.lower() == ".json"  # one line of JSON Lines is one row
        if is_alone and isinstance(row, dict) and not {"audio_filepath", "text"} & {*known_columns(row).values()}:
            return [*map(str, row)]
    except (ValueError, RecursionError):
        if path.stat().st_size > MAX_OBJECT:
            return []
        try:
            return [*map(str, json.loads(read_text(path)))]
        except (DataError, ValueError, RecursionError):
            return []
    return []


def _reason(path: Path) -> str:
    """Why a file is not JSON, with the line; "" if it is JSON."""
    try:
        json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        return str(error)
    return ""
