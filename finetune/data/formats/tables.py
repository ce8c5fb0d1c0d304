"""Reads JSON Lines, JSON lists, CSV and TSV with any delimiter to rows with the column names of the file."""

import csv
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune.core.errors import DataError
from finetune.core.files import parse_jsonl, read_bytes
from finetune.data.cells import shown
from finetune.data.columns import known_columns
from finetune.data.row import Row

JSON = (".jsonl", ".json")
TABLES = {".csv": ",;\t|", ".tsv": "\t"}
NEXT_ROW = re.compile(r"\S*\.(wav|flac|mp3|ogg|opus|m4a)[\"']?[,;]", re.I)  # the start of a row, inside a cell


@dataclass(frozen=True)
class Header:
    """The delimiter and the column names of a table."""

    delimiter: str
    names: list[str]


def read_table(path: Path, header: Header | None = None) -> list[Row]:
    """The rows of a .jsonl, .json, .csv or .tsv file, with the column names of the file.

    Args:
        path: the file.
        header: delimiter and column names of a .csv or .tsv file that has none.

    Raises:
        DataError: the file cannot be read or has another format.
    """
    suffix = path.suffix.lower()
    if suffix in TABLES:
        return _read_table(path, TABLES[suffix], header)
    if suffix in JSON:
        return _read_json(path)
    raise DataError(f"{path}: unknown format {suffix or '(no suffix)'}; use .jsonl, .json, .csv or .tsv")


def _read_json(path: Path) -> list[Row]:
    text = read_text(path)
    if not text.lstrip().startswith("["):
        return [Row(where, values) for where, values in parse_jsonl(text.split("\n"), path)]
    try:
        rows = [Row(f"{path}: item {number}", values) for number, values in enumerate(json.loads(text), 1)]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: neither JSON Lines nor a JSON list ({error})") from error
    for row in rows:
        if not isinstance(row.values, dict):
            raise DataError(f"{row.where}: not a JSON object with keys such as audio_filepath and text")
    return rows


def _read_table(path: Path, delimiters: str, names: Header | None) -> list[Row]:
    text = read_text(path)
    if hint := re.match(r"sep=(.)\r?\n", text):  # the first line that Excel writes
        delimiters, text = hint[1], text[hint.end() :]
    header_line = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = names.delimiter if names else max(delimiters, key=re.sub(r'"[^"]*"', "", header_line).count)
    table = _cells(text, delimiter, path)
    if not table:
        return []
    header, first = names.names if names else [name.strip() for name in table[0][1]], 2 if hint else 1
    if duplicates := sorted({name for name in header if name and header.count(name) > 1}):
        raise DataError(
            f"{path}:{first}: the column names {', '.join(map(shown, duplicates))} occur more than once; rename them. "
            f"If the table has no header, add one, such as {delimiter.join(('audio_filepath', 'text'))!r}"
        )
    rows = []
    for line, cells in table if names else table[1:]:
        where = f"{path}:{line + first - 1}"
        if any(cell.strip() for cell in cells[len(header) :]):
            raise DataError(
                f"{where}: {len(cells)} cells, but the header has {len(header)}; put a text with "
                f"{delimiter!r} in quotes"
            )
        cells += [""] * (len(header) - len(cells))
        if any(NEXT_ROW.match(rest) for cell in cells if "\n" in cell for rest in cell.split("\n")[1:]) or (
            _has_several_rows(cells, delimiter, header)
        ):
            raise DataError(f"{where}: a quote that opens here closes only in a later row; double the quotes in a text")
        rows.append(Row(where, {name: cell for name, cell in zip(header, cells, strict=False) if name}))
    return rows


def _has_several_rows(cells: list[str], delimiter: str, header: list[str]) -> bool:
    """Whether two or more lines of one row are complete rows, each with a word in the column of the audio or the id."""
    keys = {key: header.index(name) for name, key in known_columns(header).items()}
    column = keys.get("audio_filepath", keys.get("id"))
    lines = [line.split(delimiter) for line in delimiter.join(cells).split("\n")]
    if column is None or len(lines) == 1:
        return False
    return sum(len(line) == len(header) and bool(re.fullmatch(r"\S+", line[column])) for line in lines) > 1


def _cells(text: str, delimiter: str, path: Path) -> list[tuple[int, list[str]]]:
    """The non-empty rows of a table, each with the number of its first line.

    Tables with tabs or bars often have texts with plain quotation marks (Common Voice, LJSpeech). If the quotes do not
    match, or merge lines or cells, they count as plain characters.
    """
    try:
        quoted = _parse(text, delimiter, csv.QUOTE_MINIMAL)
    except csv.Error as error:
        if delimiter not in "\t|":
            line = error.args[1]
            raise DataError(
                f"{path}:{line}: not a well-formed table row: {error.args[0]}; put a text with {delimiter!r} or a "
                "quote in quotes, and double the quotes inside it"
            ) from error
        return _parse(text, delimiter, csv.QUOTE_NONE)
    if delimiter not in "\t|" or '"' not in text:
        return quoted
    plain = _parse(text, delimiter, csv.QUOTE_NONE)
    merged = any(char in cell for _, cells in quoted for cell in cells for char in ("\n", delimiter))
    return plain if merged and _num_complete(plain) > _num_complete(quoted) else quoted


def _parse(text: str, delimiter: str, quoting: Literal[0, 3]) -> list[tuple[int, list[str]]]:
    """The rows with one way of quoting. Raises csv.Error with a reason and the line."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    table, line = list[tuple[int, list[str]]](), 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                table.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise csv.Error(str(error), line) from error
    return table


def _num_complete(table: list[tuple[int, list[str]]]) -> int:
    """The number of rows with as many cells as the header."""
    return sum(len(cells) == len(table[0][1]) for _, cells in table)


def read_text(path: Path) -> str:
    """The content of a text file in UTF-8 or UTF-16.

    Raises:
        DataError: the file cannot be read, or is not text in UTF-8 or UTF-16.
    """
    try:
        data = read_bytes(path)
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return data.decode("utf-16")
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not UTF-8 text ({error.reason}); save the file as UTF-8") from error
    if "\0" in text:
        raise DataError(f"{path}: a binary file, not text; export it as UTF-8 text")
    return text
