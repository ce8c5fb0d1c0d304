"""Splits long audio at pauses into windows around speech; no window is longer than a limit."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from finetune.inference.vad import Activity

# All in seconds.
MIN_PAUSE = 0.1  # shortest pause to cut in
MIN_GAP = 0.5  # a gap of this length always separates two windows; shorter for a model of short speech (`min_gap`)
SHORTEST_GAP = 0.25
GAP_PER_WINDOW = 1 / 24  # of the limit of a window
SOFT_EDGE = 0.14  # frames within this distance of speech belong to it if not silent: speech can begin and end softly
PADDING = 0.1  # silence kept on both sides of speech
MIN_UNCERTAIN = 0.5  # shortest window around frames that are possibly speech
SEARCH_RANGE = 6.0  # without a pause, the cut is at the quietest frame within this distance of the limit

Runs = list[tuple[int, int]]


def speech_windows(activity: Activity, max_window: float) -> list[tuple[float, float]]:
    """Splits a recording into windows that contain all frames that are not silent.

    Frames that are neither speech nor silent are in a window of their own or in the window of adjacent speech. A
    recording of at most `max_window` seconds is one window, as in training and evaluation.

    Args:
        activity: the detected speech.
        max_window: limit of a window in seconds.

    Returns:
        Start and end of each window in seconds, in order and without overlap.
    """
    if activity.duration <= max_window:
        return [] if activity.silent.all() else [(0.0, activity.duration)]
    frame, total = activity.frame_seconds, len(activity.speech)
    min_uncertain, min_frames = round(MIN_UNCERTAIN / frame), round(min_gap(max_window) / frame)
    padded = _pad(activity, _merge(_runs(activity.speech), min_frames))
    windows = []
    for gap_start, (start, end) in zip([0, *(end for _, end in padded)], [*padded, (total, total)], strict=True):
        for first, last in _merge(_runs(~activity.silent[gap_start:start]), max(min_frames, min_uncertain)):
            middle = gap_start + (first + last) // 2
            windows.append(
                (
                    max(gap_start, min(gap_start + first, middle - min_uncertain // 2)),
                    min(start, max(gap_start + last, middle + min_uncertain // 2)),
                )
            )
        if end > start:
            windows.append((start, end))
    parts = [
        part
        for start, end in windows
        for part in split_window(activity, start, end, int(max_window / frame))
        if not activity.silent[slice(*part)].all()
    ]  # after the last cut a part can contain only padding
    return [(start * frame, min(end * frame, activity.duration)) for start, end in parts]


def min_gap(max_window: float) -> float:
    """Seconds of the shortest gap that always separates two windows.

    A model that was trained on short clips knows single sentences only, so shorter gaps separate its windows.
    """
    return min(MIN_GAP, max(SHORTEST_GAP, max_window * GAP_PER_WINDOW))


def _pad(activity: Activity, runs: Runs) -> Runs:
    """Extends runs of speech by their soft edges and some silence, up to the middle of the gap to the next run."""
    soft, pad = round(SOFT_EDGE / activity.frame_seconds), round(PADDING / activity.frame_seconds)
    middles = [0, *((one[1] + two[0]) // 2 for one, two in pairwise(runs)), len(activity.silent)]
    padded = []
    for (start, end), (lowest, highest) in zip(runs, pairwise(middles), strict=bool(runs)):
        silent_before, silent_after = activity.silent[max(0, start - soft) : start], activity.silent[end : end + soft]
        start -= int(np.argmax(silent_before[::-1])) if silent_before.any() else len(silent_before)
        end += int(np.argmax(silent_after)) if silent_after.any() else len(silent_after)
        padded.append((max(lowest, start - pad), min(highest, end + pad)))
    return padded


def _runs(mask: NDArray[np.bool_]) -> Runs:
    """The runs of True in a mask (F,): first frame, and the frame after the last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _merge(runs: Runs, min_gap: int) -> Runs:
    """Merges runs with less than `min_gap` frames between them."""
    merged: Runs = []
    for start, end in runs:
        if merged and start - merged[-1][1] < min_gap:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def split_window(activity: Activity, start: int, end: int, max_frames: int) -> Runs:
    """Splits a window into parts of at most `max_frames`; each cut is in the longest pause of the second half."""
    parts, width = [], round(MIN_PAUSE / activity.frame_seconds)
    while end - start > max_frames:
        first, limit = start + max_frames // 2, start + max_frames
        pauses = [run for run in _runs(~activity.speech[first:limit]) if run[1] - run[0] >= width]
        if pauses:
            begin, stop = max(pauses, key=lambda run: run[1] - run[0])
            at = first + (begin + stop) // 2
        else:
            search_start = max(first, limit - round(SEARCH_RANGE / activity.frame_seconds))
            smooth = np.convolve(activity.scores[search_start:limit], np.full(width, 1 / width), "valid")
            at = search_start + int(smooth.argmin()) + width // 2
        parts.append((start, at))
        start = at
    return [*parts, (start, end)]
