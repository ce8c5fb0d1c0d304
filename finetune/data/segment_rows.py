"""Converts the columns with times of each row to `offset` and `duration`, and finds the rows that contradict others."""

import logging
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finetune.data.cells import cell_seconds, shown
from finetune.data.corpus import Corpus
from finetune.data.problems import Finding
from finetune.data.row import Row
from finetune.data.segment_times import SAME, usable_columns
from finetune.data.time_names import TimeColumn
from finetune.data.whole_seconds import WholeSeconds

log = logging.getLogger(__name__)


def find_segments(rows: Corpus, time_columns: Sequence[TimeColumn], files: Sequence[int], source: str) -> "Segments":
    """The conversion of the columns with times to `offset` and `duration` in seconds.

    A row without a start, in a corpus in which other rows have one, starts at 0. If no row has a start, each row is a
    whole file, and `duration` is left for the audit to compare. Contradictory times are a fault of their row.

    Args:
        rows: rows with absolute audio paths.
        time_columns: the columns with times that have values.
        files: for each row a hash of its file and channel.
        source: the source, for messages.

    Raises:
        DataError: a column looks like the time of a segment, but its unit or meaning is not known.
    """
    hashes = np.asarray(files, np.int64)
    columns = usable_columns(rows, time_columns, hashes)
    if all(column.role == "duration" for column in columns):  # of several durations, the others stay as they are
        return Segments(sorted(columns, key=lambda column: column.name != "duration")[:1], has_starts=False)
    columns = [column for column in columns if not (column.role == "duration" and column.other_words)]
    return _compared(rows, Segments(columns, has_starts=True), hashes, source)


class Segments:
    """Replaces the columns with times by `offset` and `duration` in seconds.

    Args:
        columns: the columns with times.
        has_starts: whether the rows are segments, and not whole files.
        last_starts: for each row the last start in its file, or NaN; None if no row needs it.
        faults: the numbers of rows with a fault, if the rows are segments.
    """

    def __init__(
        self,
        columns: Sequence[TimeColumn],
        has_starts: bool,
        last_starts: NDArray[np.float64] | None = None,
        faults: NDArray[np.int64] | None = None,
    ) -> None:
        self.columns, self.has_starts, self.last_starts, self.faults = columns, has_starts, last_starts, faults
        self._only_duration = not has_starts and [(c.path, c.unit) for c in columns] == [(("duration",), 1.0)]
        self._consumed = {"offset", "duration", *(column.path[0] for column in columns if len(column.path) == 1)}

    def convert(self, index: int, row: Row) -> Row:
        """The row of a number with its segment, or with a fault."""
        if self._only_duration and "offset" not in row.values:
            duration = row.values.get("duration")
            if type(duration) is float and not math.isnan(duration):
                return row
        values = {key: value for key, value in row.values.items() if key not in self._consumed}
        segment = _segment(row, self.columns, self.has_starts) if row.fault is None else row.fault
        if isinstance(segment, Finding):
            return Row(row.where, values, segment)
        fault = None
        if self.last_starts is not None and "duration" not in segment:
            fault = _without_end(segment.get("offset"), self.last_starts[index])
        return Row(row.where, values | segment, fault)


def _compared(rows: Corpus, segments: Segments, files: NDArray[np.int64], source: str) -> Segments:
    """The conversion with the last start in the file of each row. Logs rows at 0 and rounded times."""
    starts = [column for column in segments.columns if column.role == "start"]
    offsets, durations = np.full((2, len(rows)), math.nan)
    is_fault = np.zeros(len(rows), bool)
    num_at_zero, first_at_zero, rounded = 0, "", WholeSeconds()
    for index, row in enumerate(rows):
        converted = segments.convert(index, row)
        values, is_fault[index] = converted.values, converted.fault is not None
        offset, duration = values.get("offset"), values.get("duration")
        rounded.add(offset, duration)
        if isinstance(offset, float):
            offsets[index] = offset
        if isinstance(duration, float):
            durations[index] = duration
        if offset == 0 and all(column.value(row) is None for column in starts):
            num_at_zero, first_at_zero = num_at_zero + 1, first_at_zero or row.where
    if num_at_zero:
        log.info(
            f"{source}: {num_at_zero} of {len(rows)} rows have no start and begin at 0 s, because other rows have one "
            f"(the first is {first_at_zero})"
        )
    rounded.warn(source)
    endless = np.isnan(durations) & ~is_fault
    if not endless.any():
        return Segments(segments.columns, True, faults=np.flatnonzero(is_fault))
    last = _last_starts(offsets, files)
    is_fault |= endless & ~np.isnan(last) & (np.isnan(offsets) | (last > offsets))
    return Segments(segments.columns, True, last, np.flatnonzero(is_fault))


def _last_starts(offsets: NDArray[np.float64], files: NDArray[np.int64]) -> NDArray[np.float64]:
    """For each row the last start in its file; NaN if no row of the file has one."""
    _, which = np.unique(files, return_inverse=True)
    last = np.full(which.max() + 1, -math.inf)
    known = ~np.isnan(offsets)
    np.maximum.at(last, which[known], offsets[known])
    last[last == -math.inf] = math.nan
    return last[which]


def _without_end(offset: object, last_start: float) -> Finding | None:
    """The fault of a row without an end, or without times, in a file with segments."""
    if math.isnan(last_start):
        return None
    if offset is None:
        return Finding("invalid offset", "the row has no times, but other rows of this file are segments")
    if isinstance(offset, float) and last_start > offset:
        detail = f"the segment has no end, but another one starts at {last_start:g} s of this file"
        return Finding("invalid duration", detail)
    return None


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
