"""Checks of a window with the CTC head: whether it contains speech, and whether the language model left out a part."""

import numpy as np
from numpy.typing import NDArray

from finetune.data.features import FRAME_SECONDS
from finetune.model.ctc import BLANK, KATAKANA, best_path

COLLAPSE_RATIO = 0.5  # a text with fewer characters than this fraction of the CTC text has collapsed
MIN_CTC_CHARACTERS = 12  # a shorter CTC text is too uncertain to compare with
MIN_PART = 1.0  # seconds; shortest part of a window that is cut again
SPACE = ord(" ")
SECTION = 3.0  # seconds
SLOW_SPEECH = 8.0  # characters per second
CHARACTER_SECONDS = 0.3  # added to the time between first and last character, so that a single one has a rate


def speech_score(log_probs: NDArray[np.float32]) -> float:
    """How certain the CTC head is that a window contains speech, from 0 (no character) to 1.

    The score is the mean posterior of the characters times their rate relative to slow speech: from noise and music,
    the CTC head writes few characters with low posteriors. It is the highest of all sections of `SECTION` seconds, so
    that noise beside speech does not count.

    Args:
        log_probs: (T, 348) log probabilities of the CTC head for the window's real frames.
    """
    labels, peaks = log_probs.argmax(1), np.exp(log_probs.max(1))
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    kept = (labels[starts] != BLANK) & (labels[starts] != SPACE)
    if not kept.any():
        return 0.0
    times, probs = starts[kept] * FRAME_SECONDS, np.maximum.reduceat(peaks, starts)[kept]
    first = np.arange(len(times))
    stop = np.searchsorted(times, times + SECTION, "right")
    ends_early = (times > times[-1] - SECTION) & (first > np.searchsorted(times, times[-1] - SECTION))
    sums = np.concatenate([[0.0], np.cumsum(probs, dtype=np.float64)])
    total = (sums[stop] - sums[first])[~ends_early]  # a section at the end that is shorter than `SECTION` is left out
    count, span = (stop - first)[~ends_early], (times[stop - 1] - times)[~ends_early]
    rate = np.minimum(1.0, total / (span + CHARACTER_SECONDS) / SLOW_SPEECH)
    return float((rate * total / count).max())


def ctc_text(log_probs: NDArray[np.float32]) -> tuple[str, list[float]]:
    """The greedy text of the CTC head and the posterior of each character."""
    return best_path(log_probs.argmax(1), np.exp(log_probs.max(1)))


def cut_again(log_probs: NDArray[np.float32], text: str) -> float | None:
    """Where to cut a window whose text has collapsed, in seconds from its start; None if the text is complete.

    A language model leaves out most of a window that is longer than the speech it was trained on. Then the text has far
    fewer characters than the CTC text. The cut is in the longest pause between two words of the CTC text.

    Args:
        log_probs: (T, 348) log probabilities of the CTC head for the window's real frames.
        text: the text of the language model.
    """
    expected = "".join(ctc_text(log_probs)[0].split())
    if len(expected) < MIN_CTC_CHARACTERS or 2 * sum(ord(char) >= KATAKANA for char in expected) > len(expected):
        return None  # the alphabet of the CTC head has only katakana for Japanese, whose texts are shorter
    if len("".join(text.split())) >= COLLAPSE_RATIO * len(expected):
        return None
    labels, margin = log_probs.argmax(1), round(MIN_PART / FRAME_SECONDS)
    pauses = np.split(np.arange(len(labels)), np.flatnonzero((labels != BLANK) & (labels != SPACE)))
    inside = [run for run in pauses if (labels[run[1:]] == SPACE).any()]
    middles = [(len(run), int(run[len(run) // 2])) for run in inside]
    allowed = [pair for pair in middles if margin <= pair[1] <= len(labels) - margin]
    return max(allowed)[1] * FRAME_SECONDS if allowed else None
