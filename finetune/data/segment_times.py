"""Finds the columns that tell which part of a file a row is.

A column is recognized by the words of its name (`time_names`). A column that looks like a segment's time, but has an
unknown unit or meaning, is an error. So a row of a segment is never read as the whole file.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import compress, permutations, product

import numpy as np
from numpy.typing import NDArray

from finetune.core.errors import DataError
from finetune.data.cells import cell_seconds, shown, with_thousands
from finetune.data.corpus import Corpus
from finetune.data.time_names import OF_THE_FILE, TimeColumn, is_pair, words_of

LONGEST = 1e6  # seconds; a larger number is not a time
COUNTED = "a number of frames or samples; write the times in seconds"
THOUSANDS = "has separators of thousands, or three decimals; write times such as 12345 or 12.34"
SPANS = "possibly the times of a segment: in each file, every row starts after the end of the last one"
SAME = 0.1  # seconds by which start, end and duration of one segment can contradict each other (rounding)


def usable_columns(rows: Corpus, time_columns: Sequence[TimeColumn], files: NDArray[np.int64]) -> list[TimeColumn]:
    """The columns that give the segment of a row. Most questions are answered by the first rows.

    Args:
        rows: rows with absolute audio paths.
        time_columns: the columns with times that have values.
        files: for each row a hash of its file and channel.

    Raises:
        DataError: a column looks like the time of a segment, but its unit or meaning is not known.
    """
    exact = [
        column
        for column in time_columns
        if not column.other_words or (column.role == "duration" and column.other_words <= OF_THE_FILE)
    ]
    columns = [column for column in exact if not column.count and column.role in ("start", "end", "duration")]
    if any("onset" in words_of(column.name) for column in columns):  # onset and offset: offset is the end
        columns = [replace(column, role="end") if column.is_offset else column for column in columns]
    columns = _without_weak(columns, rows)
    by_role = {role: [column for column in columns if column.role == role] for role in ("start", "end", "duration")}
    if not by_role["start"]:
        if unknown := [column for column in exact if column.count and column.role in ("start", "end")]:
            raise _refused(rows, unknown, COUNTED)
        stamps = [column for column in exact if column.role == "pair" and not any(map(is_pair, _values(column, rows)))]
        if pairs := [column for column in exact if column.role in ("both", "pair") and column not in stamps]:
            raise _refused(rows, pairs, "two times in one value; write the columns start and end")
        if starts := [column for column in stamps if _has_several_starts(rows, [column], files)]:
            raise _refused(rows, starts, "possibly the start of a segment: the rows of one file have different ones")
        if pair := _unknown_pair(time_columns, rows):
            raise _refused(rows, pair, "possibly the times of a segment; write start and end if they are")
        if by_role["end"]:
            raise _refused(rows, by_role["end"], "the end of a segment, but no column has its start")
        if pair := _consecutive_spans(rows, files):
            raise _refused(rows, pair, SPANS)
    elif not (by_role["end"] or by_role["duration"]):
        _check_starts(rows, by_role["start"], exact, time_columns, files)
    for column in columns:
        if number := with_thousands(_values(column, rows), column.unit):
            raise _refused(rows, [column], f"{number!r} {THOUSANDS}")
    for column in [*by_role["start"], *by_role["end"]]:
        if not any(cell_seconds(value, column.unit) is not None for value in _values(column, rows)):
            raise _refused(rows, [column], "not a time; write seconds (2.07) or a clock time (00:00:02.070)")
    return columns


def _check_starts(
    rows: Corpus,
    starts: Sequence[TimeColumn],
    exact: Sequence[TimeColumn],
    time_columns: Sequence[TimeColumn],
    files: NDArray[np.int64],
) -> None:
    """Raises DataError if starts without a known end or duration are not those of rows that reach to the end of their
    file."""
    if unknown := [column for column in exact if column.count]:
        raise _refused(rows, unknown, COUNTED)
    if ends := _possible_ends(rows, starts, time_columns):
        raise _refused(rows, ends, f"possibly the end of the segment that starts at {starts[0].name!r}")
    if _has_several_starts(rows, starts, files):
        raise _refused(rows, starts, "several segments of one file start, but no column has their ends")


def _without_weak(columns: list[TimeColumn], rows: Corpus) -> list[TimeColumn]:
    """The columns without those that only look like times: `from` and `to` of a call, `length` in words."""

    strong = {column.role for column in columns if not column.weak}

    def are_times(column: TimeColumn) -> bool:
        """Whether most values are times; the others are faults of their rows."""
        longest, num_times, count = math.inf if strong == {"start"} else LONGEST, 0, 0
        for count, value in enumerate(_values(column, rows), 1):  # noqa: B007 (the last one is used)
            seconds = cell_seconds(value, column.unit)
            num_times += seconds is not None and seconds < longest
        return 2 * num_times > count

    def is_needed(column: TimeColumn) -> bool:
        if column.role == "duration":
            return not any(other.role == "duration" and not other.weak for other in columns)
        roles = {other.role for other in columns}
        return {"start", "end"} <= roles or (column.role == "start" and "duration" in roles)

    columns = [column for column in columns if not column.weak or are_times(column)]
    return [column for column in columns if not column.weak or is_needed(column)]


def _values(column: TimeColumn, rows: Corpus) -> Iterator[object]:
    return (value for row in rows if (value := column.value(row)) is not None)


def _unknown_pair(time_columns: Sequence[TimeColumn], rows: Corpus) -> list[TimeColumn]:
    """Two columns such as `speech_start` and `speech_end` with times in order, whose other words are not known."""
    for start, end in product(time_columns, time_columns):
        if start.role != "start" or end.role not in ("end", "duration") or not start.other_words:
            continue
        if start.other_words == end.other_words and _are_spans(start, end, rows):
            return [start, end]
    return []


def _are_spans(start: TimeColumn, end: TimeColumn, rows: Corpus) -> bool:
    """Whether the rows with both values, at least one, have a start and an end after it, or a duration."""
    has_times, has_fractions = False, False
    for row in rows:
        if (first := start.value(row)) is None or (last := end.value(row)) is None:
            continue
        a, b = cell_seconds(first, start.unit), cell_seconds(last, end.unit)
        if a is None or b is None or (a >= b and end.role != "duration"):
            return False
        has_times, has_fractions = True, has_fractions or bool(b % 1 and b < LONGEST)
    return has_times and (has_fractions or not start.is_position)  # whole numbers count words


def _possible_ends(rows: Corpus, starts: Sequence[TimeColumn], time_columns: Sequence[TimeColumn]) -> list[TimeColumn]:
    """A column that can be the end of segments that have a start alone: an end or a duration by its name, or any
    column of times that are later than the starts."""
    for column in time_columns:
        if column.role in ("end", "duration") and column.other_words and not column.is_position:
            return [column]
    paths = {column.path for column in starts}
    names = dict.fromkeys(name for row in rows for name in row.values if (name,) not in paths)
    ends = {TimeColumn((name,), "end"): set[float]() for name in names}  # up to two different values of each
    num_times = 0
    for row in rows:
        start = max(cell_seconds(column.value(row), column.unit) or 0.0 for column in starts)
        if start <= 0:
            continue
        num_times += 1
        for column, seen in [*ends.items()]:
            end = cell_seconds(column.value(row))
            if end is None or end <= start:
                del ends[column]
            elif len(seen) < 2:
                seen.add(end)
        if not ends:
            break
    constant = [column for column, seen in ends.items() if num_times > 1 and len(seen) == 1]  # as the sampling rate
    return [column for column in ends if num_times and column not in constant][:1]


def _has_several_starts(rows: Corpus, starts: Sequence[TimeColumn], files: NDArray[np.int64]) -> bool:
    """Whether two rows of a file have different starts."""
    first = dict[int, float]()
    for row, file in zip(rows, files.tolist(), strict=True):
        times = (cell_seconds(column.value(row), column.unit) for column in starts)
        start = next((time for time in times if time is not None), None)
        if start is not None and first.setdefault(file, start) != start:
            return True
    return False


def _consecutive_spans(rows: Corpus, files: NDArray[np.int64]) -> list[TimeColumn]:
    """Two columns of any names that are in each file with several rows the starts and ends of consecutive spans."""
    ordered = np.sort(files)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(repeated):
        return []
    is_shared = np.isin(files, repeated)
    for start, end in _ordered_pairs(rows, is_shared):
        spans = np.array(
            [[cell_seconds(row.values[name]) for name in (start, end)] for row in compress(rows, is_shared)]
        )
        order = np.lexsort((spans[:, 1], spans[:, 0], files[is_shared]))
        spans, names = spans[order], files[is_shared][order]
        if (spans[:-1, 1] <= spans[1:, 0] + SAME)[names[1:] == names[:-1]].all():
            return [TimeColumn((start,), "start"), TimeColumn((end,), "end")]
    return []


def _ordered_pairs(rows: Corpus, is_chosen: NDArray[np.bool_]) -> list[tuple[str, str]]:
    """The pairs of columns of which each chosen row has a smaller and a larger time. Ends when none is left."""
    pairs: list[tuple[str, str]] | None = None
    for row in compress(rows, is_chosen):
        names = [*row.values] if pairs is None else [*dict.fromkeys(name for pair in pairs for name in pair)]
        times = {name: seconds for name in names if (seconds := cell_seconds(row.values.get(name))) is not None}
        possible = permutations(times, 2) if pairs is None else pairs
        pairs = [(a, b) for a, b in possible if a in times and b in times and times[a] < times[b]]
        if not pairs:
            break
    return pairs or []


def _refused(rows: Corpus, columns: Sequence[TimeColumn], reason: str) -> DataError:
    """The error for columns that cannot be understood, with the first row that has a value."""
    names = " and ".join(repr(column.name) for column in columns)
    row = next(row for row in rows if columns[0].value(row) is not None)
    return DataError(
        f"{row.where}: column {names} ({shown(columns[0].value(row))}): {reason}. A column that is not the time of a "
        "segment needs another name. Segments have `offset` and `duration`, or `start` and `end`, in seconds"
    )
