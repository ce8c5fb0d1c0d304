"""Converts the columns that tell which part of a file a row is to `offset` and `duration` in seconds.

A column is recognized by the words of its name (`time_names`). A column that looks like a segment's time, but has an
unknown unit or meaning, is an error. So a row of a segment is never read as the whole file.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, permutations, product

from finetune.core.errors import DataError
from finetune.data.cells import cell_seconds, cell_text, shown
from finetune.data.problems import Finding
from finetune.data.row import Row
from finetune.data.time_names import OF_THE_FILE, TimeColumn, time_columns, words_of

log = logging.getLogger(__name__)

LONGEST = 1e6  # seconds; a larger number is not a time
COUNTED = "a number of frames or samples; write the times in seconds"
SPANS = "possibly the times of a segment: in each file, every row starts after the end of the last one"
SAME = 0.1  # seconds by which start, end and duration of one segment can contradict each other (rounding)


def segments(rows: Sequence[Row], source: str) -> list[Row]:
    """The rows with `offset` and `duration` in seconds in place of the columns with times.

    A row without a start, in a corpus in which other rows have one, starts at 0. If no row has a start, each row is a
    whole file, and `duration` is left for the audit to compare. Contradictory times are a fault of their row.

    Raises:
        DataError: a column looks like the time of a segment, but its unit or meaning is not known.
    """
    columns = _usable_columns(rows)
    has_starts = any(column.role != "duration" for column in columns)
    if has_starts:
        columns = [column for column in columns if not (column.role == "duration" and column.other_words)]
    else:  # of several durations of a file, the others stay as they are
        columns = sorted(columns, key=lambda column: column.name != "duration")[:1]
    consumed = {"offset", "duration", *(column.path[0] for column in columns if len(column.path) == 1)}
    result, at_zero = [], list[Row]()
    for row in rows:
        values = {key: value for key, value in row.values.items() if key not in consumed}
        segment = _segment(row, columns, has_starts) if row.fault is None else row.fault
        if isinstance(segment, Finding):
            row = replace(row, fault=segment)
        else:
            if segment.get("offset") == 0 and all(c.value(row) is None for c in columns if c.role == "start"):
                at_zero.append(row)
            values |= segment
        result.append(replace(row, values=values))
    if at_zero:
        log.info(
            f"{source}: {len(at_zero)} of {len(rows)} rows have no start and begin at 0 s, because other rows have one "
            f"(the first is {at_zero[0].where})"
        )
    result = _compared_within_files(result)
    _warn_of_whole_seconds(result, source)
    return result


def _warn_of_whole_seconds(rows: Sequence[Row], source: str) -> None:
    """Warns if all starts and ends are whole seconds, such as 00:01 to 00:04: they are rounded."""
    spans = [
        (start, duration)
        for row in rows
        if isinstance(start := row.values.get("offset"), float)
        and isinstance(duration := row.values.get("duration"), float)
    ]
    if len(spans) > 2 and any(start for start, _ in spans) and all(a.is_integer() and b.is_integer() for a, b in spans):
        log.warning(
            f"{source}: the times of all {len(spans)} segments are whole seconds, so they are probably rounded, and "
            "words at the edges are cut off; export the times with decimals"
        )


def _usable_columns(rows: Sequence[Row]) -> list[TimeColumn]:
    """The columns that give the segment of a row. Raises DataError for columns that cannot be understood."""
    found = [column for column in time_columns(rows) if column.values(rows)]
    exact = [
        column
        for column in found
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
        if pairs := [column for column in exact if column.role in ("both", "pair")]:
            raise _refused(rows, pairs, "two times in one value; write the columns start and end")
        if pair := _unknown_pair(found, rows):
            raise _refused(rows, pair, "possibly the times of a segment; write start and end if they are")
        if by_role["end"]:
            raise _refused(rows, by_role["end"], "the end of a segment, but no column has its start")
        if pair := _consecutive_spans(rows):
            raise _refused(rows, pair, SPANS)
    elif not (by_role["end"] or by_role["duration"]):
        if unknown := [column for column in exact if column.count]:
            raise _refused(rows, unknown, COUNTED)
        if ends := _possible_ends(rows, by_role["start"], found):
            raise _refused(rows, ends, f"possibly the end of the segment that starts at {by_role['start'][0].name!r}")
    for column in [*by_role["start"], *by_role["end"]]:
        if all(cell_seconds(value, column.unit) is None for value in column.values(rows)):
            raise _refused(rows, [column], "not a time; write seconds (2.07) or a clock time (00:00:02.070)")
    return columns


def _without_weak(columns: list[TimeColumn], rows: Sequence[Row]) -> list[TimeColumn]:
    """The columns without those that only look like times: `from` and `to` of a call, `length` in words."""

    strong = {column.role for column in columns if not column.weak}

    def are_times(column: TimeColumn) -> bool:
        """Whether most values are times; the others are faults of their rows."""
        times = [cell_seconds(value, column.unit) for value in column.values(rows)]
        longest = math.inf if strong == {"start"} else LONGEST
        return 2 * sum(seconds is not None and seconds < longest for seconds in times) > len(times)

    def is_needed(column: TimeColumn) -> bool:
        if column.role == "duration":
            return not any(other.role == "duration" and not other.weak for other in columns)
        roles = {other.role for other in columns}
        return {"start", "end"} <= roles or (column.role == "start" and "duration" in roles)

    columns = [column for column in columns if not column.weak or are_times(column)]
    return [column for column in columns if not column.weak or is_needed(column)]


def _unknown_pair(found: Sequence[TimeColumn], rows: Sequence[Row]) -> list[TimeColumn]:
    """Two columns such as `speech_start` and `speech_end` with times in order, whose other words are not known."""
    for start, end in product(found, found):
        if start.role != "start" or end.role not in ("end", "duration") or not start.other_words:
            continue
        if start.other_words != end.other_words:
            continue
        times = [
            (cell_seconds(start.value(row), start.unit), cell_seconds(end.value(row), end.unit))
            for row in rows
            if start.value(row) is not None and end.value(row) is not None
        ]
        if not all(a is not None and b is not None and (a < b or end.role == "duration") for a, b in times):
            continue
        if start.is_position and not any(b and b % 1 and b < LONGEST for _, b in times):  # whole numbers count words
            continue
        if times:
            return [start, end]
    return []


def _possible_ends(rows: Sequence[Row], starts: Sequence[TimeColumn], found: Sequence[TimeColumn]) -> list[TimeColumn]:
    """A column that can be the end of segments that have a start alone: an end or a duration by its name, or any
    column of times that are later than the starts."""
    named = [
        column
        for column in found
        if column.role in ("end", "duration") and column.other_words and not column.is_position
    ]
    times = [(row, max(cell_seconds(s.value(row), s.unit) or 0.0 for s in starts)) for row in rows]
    times = [(row, start) for row, start in times if start > 0]
    others = [TimeColumn((name,), "end") for name in dict.fromkeys(name for row in rows for name in row.values)]
    paths = {column.path for column in starts}
    if named or not times:
        return named[:1]
    for column in (column for column in others if column.path not in paths):
        ends = [cell_seconds(column.value(row)) for row, _ in times]
        is_constant = len(ends) > 1 and len({*ends}) == 1  # such as the sampling rate
        if not is_constant and all(
            end is not None and start < end for (_, start), end in zip(times, ends, strict=True)
        ):
            return [column]
    return []


def _consecutive_spans(rows: Sequence[Row]) -> list[TimeColumn]:
    """Two columns of any names that are in each file with several rows the starts and ends of consecutive spans."""
    files = defaultdict(list)
    for row in rows:
        files[_file_of(row)].append(row)
    shared = [same_file for same_file in files.values() if len(same_file) > 1]
    if not shared:
        return []
    names = [
        name
        for name in shared[0][0].values
        if all(cell_seconds(row.values.get(name)) is not None for same_file in shared for row in same_file)
    ]
    for start, end in permutations(names, 2):
        spans = [
            sorted((cell_seconds(row.values[start]) or 0.0, cell_seconds(row.values[end]) or 0.0) for row in same_file)
            for same_file in shared
        ]
        if all(a < b for file in spans for a, b in file) and all(
            first[1] <= second[0] + SAME for file in spans for first, second in pairwise(file)
        ):
            return [TimeColumn((start,), "start"), TimeColumn((end,), "end")]
    return []


def _segment(row: Row, columns: Sequence[TimeColumn], has_starts: bool) -> dict[str, object] | Finding:
    """`offset` and `duration` of a row; neither for a whole file without a stated duration; or the row's fault."""
    times: dict[str, float] = {}
    names: dict[str, str] = {}
    for column in columns:
        if (value := column.value(row)) is None:
            continue
        seconds = cell_seconds(value, column.unit)
        if seconds is None or seconds < 0:
            if not has_starts:
                return {"duration": value}  # for the audit, which measures the file
            kind = "invalid offset" if column.role == "start" else "invalid duration"
            return Finding(kind, f"{column.name!r} is {shown(value)}, not a time of 0 or more")
        if column.role in times and abs(times[column.role] - seconds) > SAME:
            return Finding(
                "contradictory segment",
                f"{names[column.role]!r} is {times[column.role]:g} s, but {column.name!r} is {seconds:g} s",
            )
        if column.role not in times:
            times[column.role], names[column.role] = seconds, column.name
    start, end, duration = times.get("start"), times.get("end"), times.get("duration")
    if not has_starts or not times:
        return {} if duration is None else {"duration": duration}
    if start is None:
        start = round(end - duration, 9) if end is not None and duration is not None else 0.0
        start = 0.0 if abs(start) <= SAME else start
    if end is not None and end <= start:
        return Finding("contradictory segment", f"{names['end']!r} is {end:g} s, not after the start at {start:g} s")
    if end is not None and duration is not None and abs(start + duration - end) > SAME:
        return Finding(
            "contradictory segment",
            f"it starts at {start:g} s, and {names['duration']!r} is {duration:g} s, but {names['end']!r} is {end:g} s",
        )
    if duration is None and end is not None:
        duration = round(end - start, 9)
    return {"offset": start} if duration is None else {"offset": start, "duration": duration}


def _compared_within_files(rows: Sequence[Row]) -> list[Row]:
    """The rows; a segment without an end before another one of its file, or a row without times, is a fault."""
    last: dict[tuple[str, str], float] = {}
    for row in rows:
        if isinstance(offset := row.values.get("offset"), float):
            last[_file_of(row)] = max(last.get(_file_of(row), offset), offset)
    result = []
    for row in rows:
        later, offset = last.get(_file_of(row)), row.values.get("offset")
        if row.fault is None and later is not None and row.values.get("duration") is None:
            if offset is None:
                detail = "the row has no times, but other rows of this file are segments"
                row = replace(row, fault=Finding("invalid offset", detail))
            elif isinstance(offset, float) and later > offset:
                detail = f"the segment has no end, but another one starts at {later:g} s of this file"
                row = replace(row, fault=Finding("invalid duration", detail))
        result.append(row)
    return result


def _file_of(row: Row) -> tuple[str, str]:
    return cell_text(row.values.get("audio_filepath")), cell_text(row.values.get("channel"))


def _refused(rows: Sequence[Row], columns: Sequence[TimeColumn], reason: str) -> DataError:
    """The error for columns that cannot be understood, with the first row that has a value."""
    names = " and ".join(repr(column.name) for column in columns)
    row = next(row for row in rows if columns[0].value(row) is not None)
    return DataError(
        f"{row.where}: column {names} ({shown(columns[0].value(row))}): {reason}. A column that is not the time of a "
        "segment needs another name. Segments have `offset` and `duration`, or `start` and `end`, in seconds"
    )
