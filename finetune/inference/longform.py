"""Long audio: windows around what is spoken, none longer than the model may hear at once, cut at pauses."""

import numpy as np
from numpy.typing import NDArray

from finetune.inference.vad import Activity

PAUSE = 0.1  # seconds: a gap of this length is a place to cut
APART = 0.5  # a gap of this length always separates two windows
SOFT = 0.14  # speech may begin and end softly: this far out, what is not silent belongs to it
PAD = 0.1  # of silence kept on both sides
LEAST = 0.5  # of a window around something that may be speech
SEARCH = 6.0  # where nobody pauses, the quietest place this far back from the limit

Runs = list[tuple[int, int]]


def cut(activity: Activity, longest: float) -> list[tuple[float, float]]:
    """Windows (start, end) in seconds, in order and without overlap, none above `longest`.

    They leave out nothing but silence: what is neither speech nor silence for sure has windows of its own, or
    stands in those of the speech beside it. A file that is short enough is one window, as in training and evaluation.
    """
    if activity.duration <= longest:
        return [] if activity.silent.all() else [(0.0, activity.duration)]
    frame, total = activity.frame, len(activity.speech)
    least, apart = round(LEAST / frame), round(APART / frame)
    padded = [_padded(activity, *talk) for talk in _joined(_runs(activity.speech), apart)]
    found = []
    for gap_start, (start, end) in zip([0, *(end for _, end in padded)], [*padded, (total, total)], strict=True):
        for first, last in _joined(_runs(~activity.silent[gap_start:start]), apart):
            middle = gap_start + (first + last) // 2
            found.append(
                (
                    max(gap_start, min(gap_start + first, middle - least // 2)),
                    min(start, max(gap_start + last, middle + least // 2)),
                )
            )
        if end > start:
            found.append((start, end))
    pieces = [
        piece
        for start, end in found
        for piece in _split(activity, start, end, int(longest / frame))
        if not activity.silent[slice(*piece)].all()
    ]  # padding may stand alone behind the last cut
    return [(start * frame, min(end * frame, activity.duration)) for start, end in pieces]


def _padded(activity: Activity, start: int, end: int) -> tuple[int, int]:
    """With its soft beginning and end and a little silence: on each side less than half of what sets talks apart."""
    soft, pad = round(SOFT / activity.frame), round(PAD / activity.frame)
    before, after = activity.silent[max(0, start - soft) : start], activity.silent[end : end + soft]
    start -= int(np.argmax(before[::-1])) if before.any() else len(before)
    end += int(np.argmax(after)) if after.any() else len(after)
    return max(0, start - pad), min(len(activity.silent), end + pad)


def _runs(mask: NDArray[np.bool_]) -> Runs:
    """Where a mask is true: (first frame, frame behind the last)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _joined(runs: Runs, gap: int) -> Runs:
    """Runs with less than `gap` frames between them as one."""
    joined: Runs = []
    for start, end in runs:
        if joined and start - joined[-1][1] < gap:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _split(activity: Activity, start: int, end: int, longest: int) -> Runs:
    """A stretch in pieces of at most `longest` frames, cut in the longest pause that leaves half of that or more."""
    pieces, width = [], round(PAUSE / activity.frame)
    while end - start > longest:
        first, limit = start + longest // 2, start + longest
        pauses = [run for run in _runs(~activity.speech[first:limit]) if run[1] - run[0] >= width]
        if pauses:
            begin, stop = max(pauses, key=lambda run: run[1] - run[0])
            at = first + (begin + stop) // 2
        else:
            late = max(first, limit - round(SEARCH / activity.frame))
            smooth = np.convolve(activity.level[late:limit], np.full(width, 1 / width), "valid")
            at = late + int(smooth.argmin()) + width // 2
        pieces.append((start, at))
        start = at
    return [*pieces, (start, end)]
