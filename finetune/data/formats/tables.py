"""Reads CSV and TSV files with any delimiter, JSON Lines and JSON lists to rows with the column names of the file."""

import csv
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath
from typing import Literal

from finetune.core.errors import DataError
from finetune.core.wording import count
from finetune.data.cells import shown
from finetune.data.columns import known_columns
from finetune.data.formats.json_rows import read_json
from finetune.data.raw_rows import LineRows, RawRows
from finetune.data.row import Row
from finetune.data.text_lines import LinePosition, TextLines

log = logging.getLogger(__name__)

Quoting = Literal[0, 3]  # csv.QUOTE_MINIMAL, csv.QUOTE_NONE
JSON = (".jsonl", ".json")
TABLES = {".csv": ",;\t|", ".tsv": "\t"}
MAX_TITLE = 10  # lines in which the header is looked for, below a title
NEXT_ROW = re.compile(r"\S*\.(wav|flac|mp3|ogg|opus|m4a)[\"']?[,;]", re.I)  # the start of a row, inside a cell
FORMULA = re.compile(r'="(.*)"', re.DOTALL)  # how spreadsheets keep a text such as 007 from being a number


@dataclass(frozen=True)
class Header:
    """The delimiter and the column names of a table."""

    delimiter: str
    names: list[str]


def read_table(path: Path, header: Header | None = None) -> RawRows:
    """The rows of a .jsonl, .json, .csv or .tsv file, with the column names of the file.

    Args:
        path: the file.
        header: delimiter and column names of a .csv or .tsv file that has none.

    Raises:
        DataError: the file cannot be read or has another format. Many errors are raised when the rows are iterated.
    """
    suffix = path.suffix.lower()
    if suffix in TABLES:
        return _open_table(path, TABLES[suffix], header)
    if suffix in JSON:
        return read_json(path)
    raise DataError(f"{path}: unknown format {suffix or '(no suffix)'}; use .jsonl, .json, .csv or .tsv")


class DelimitedRows(LineRows):
    """The rows of a CSV or TSV file.

    Args:
        path: the file.
        start: the line of the first row, after the header.
        header: the delimiter and the names of the columns.
        quoting: `csv.QUOTE_MINIMAL` or `csv.QUOTE_NONE`.
    """

    def __init__(self, path: Path, start: LinePosition, header: Header, quoting: Quoting) -> None:
        super().__init__(path, start, carriage_returns=True)
        self.header, self.quoting = header, quoting
        keys = {key: header.names.index(name) for name, key in known_columns(header.names).items()}
        self._key_column = keys.get("audio_filepath", keys.get("id"))
        self._text = keys.get("text", 0)

    def read(self, lines: TextLines) -> Iterator[Row]:
        names, delimiter = self.header.names, self.header.delimiter
        named = [(index, name) for index, name in enumerate(names) if name]
        for line, cells in _cells(lines, delimiter, self.quoting):
            where = f"{self.path}:{line}"
            if len(cells) > len(names) and any(cell.strip() for cell in cells[len(names) :]):
                raise DataError(
                    f"{where}: {count(len(cells), 'cell')}, but the header has {len(names)}; put a text with "
                    f"{delimiter!r} in quotes"
                )
            has_text = len(cells) > self._text
            cells += [""] * (len(names) - len(cells))
            if any("\n" in cell for cell in cells):
                self._check_quotes(where, cells)
            cells = [_without_formula(cell) if cell.startswith('="') else cell for cell in cells]
            values: dict[str, object] = {name: cells[index] for index, name in named}
            yield Row(where, values if has_text else values | {names[self._text]: None})  # missing, and not empty

    def _check_quotes(self, where: str, cells: list[str]) -> None:
        """Raises DataError if cells with several lines have merged rows."""
        starts_row = any(NEXT_ROW.match(rest) for cell in cells for rest in cell.split("\n")[1:])
        lines = [line.split(self.header.delimiter) for line in self.header.delimiter.join(cells).split("\n")]
        complete = [
            line
            for line in lines
            if self._key_column is not None
            and len(line) == len(self.header.names)
            and re.fullmatch(r"\S+", line[self._key_column])  # a word in the column of the audio or the id
            and PurePath(line[self._key_column]).suffix == PurePath(cells[self._key_column]).suffix
        ]
        if starts_row or len(complete) > 1:
            raise DataError(f"{where}: a quote that opens here closes only in a later row; double the quotes in a text")


def _without_formula(cell: str) -> str:
    """The text of a cell such as ="text"."""
    return match[1].replace('""', '"') if (match := FORMULA.fullmatch(cell.strip())) else cell


def _open_table(path: Path, delimiters: str, known: Header | None) -> RawRows:
    lines = iter(source := TextLines(path, carriage_returns=True))
    start, first = source.position, next(lines, "")
    if hint := re.match(r"sep=(.)\r?\n", first):  # the first line that Excel writes
        delimiters, start, first = hint[1], source.position, next(lines, "")
    while first and not first.strip("\r\n"):
        first = next(lines, "")
    if known is None:
        start, first = _header_line(path, delimiters, start, first)
    delimiter = known.delimiter if known else max(delimiters, key=re.sub(r'"[^"]*"', "", first).count)
    quoting = _quoting(path, start, delimiter)
    if known:
        return DelimitedRows(path, start, known, quoting)
    table = TextLines(path, start, carriage_returns=True)
    line, cells = next(_cells(table, delimiter, quoting), (0, list[str]()))
    header = Header(delimiter, [name.strip() for name in cells])
    if duplicates := sorted({name for name in header.names if name and header.names.count(name) > 1}):
        raise DataError(
            f"{path}:{line}: the column names {', '.join(map(shown, duplicates))} occur more than once; rename them. "
            f"If the table has no header, add one, such as {delimiter.join(('audio_filepath', 'text'))!r}"
        )
    return DelimitedRows(path, table.position, header, quoting)


def _header_line(path: Path, delimiters: str, start: LinePosition, first: str) -> tuple[LinePosition, str]:
    """The header below a title or notes, and its position; else the given first line."""
    lines = TextLines(path, start, carriage_returns=True)
    position = lines.position
    for line in islice(lines, MAX_TITLE):
        for delimiter in delimiters:
            cells = [cell.strip().strip('"') for cell in line.split(delimiter)]
            if {"audio_filepath", "text"} <= {*known_columns(cells).values()}:
                if line != first:
                    log.info(f"{path}: the header is in line {position.line}; the lines above it are not read")
                return position, line
        position = lines.position
    return start, first


def _quoting(path: Path, start: LinePosition, delimiter: str) -> Quoting:
    """Whether quotes have a meaning in a table.

    Tables with tabs or bars often have texts with plain quotation marks (Common Voice, LJSpeech). If the quotes do not
    match, or merge lines or cells, they count as plain characters.
    """
    if delimiter not in "\t|" or not any('"' in line for line in TextLines(path, start)):
        return csv.QUOTE_MINIMAL
    try:
        quoted, merged = _num_complete(path, start, delimiter, csv.QUOTE_MINIMAL)
    except csv.Error:
        return csv.QUOTE_NONE
    plain = _num_complete(path, start, delimiter, csv.QUOTE_NONE)[0] if merged else 0
    return csv.QUOTE_NONE if plain > quoted else csv.QUOTE_MINIMAL


def _num_complete(path: Path, start: LinePosition, delimiter: str, quoting: Quoting) -> tuple[int, bool]:
    """The number of rows with as many cells as the first, and whether a cell has a line feed or a delimiter."""
    complete, width, merged = 0, 0, False
    for _, cells in _parse(TextLines(path, start, carriage_returns=True), delimiter, quoting):
        width = width or len(cells)
        complete += len(cells) == width
        merged = merged or any("\n" in cell or delimiter in cell for cell in cells)
    return complete, merged


def _cells(lines: TextLines, delimiter: str, quoting: Quoting) -> Iterator[tuple[int, list[str]]]:
    """The rows of `_parse`. Raises DataError with the line of a row that is not well-formed."""
    try:
        yield from _parse(lines, delimiter, quoting)
    except csv.Error as error:
        raise DataError(
            f"{lines.path}:{error.args[1]}: not a well-formed table row: {error.args[0]}; put a text with "
            f"{delimiter!r} or a quote in quotes, and double the quotes inside it"
        ) from error


def _parse(lines: TextLines, delimiter: str, quoting: Quoting) -> Iterator[tuple[int, list[str]]]:
    """The non-empty rows, each with the number of its first line. Raises csv.Error with a reason and the line."""
    line = lines.line
    try:
        for cells in csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True):
            if any(map(str.strip, cells)):
                yield line, cells
            line = lines.line
    except csv.Error as error:
        raise csv.Error(str(error), line) from error
