"""Word times by CTC forced alignment of the text with the probabilities of the CTC head."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from finetune.data.features import FRAME_SECONDS
from finetune.inference.segments import split_words
from finetune.model.ctc import BLANK, ctc_labels

WORD_END = 0.06  # seconds that a word lasts after the last frame with one of its characters, if a pause follows


def word_times(log_probs: NDArray[np.float32], text: str) -> list[tuple[float, float]]:
    """The start and end of each word in seconds from the start of its window.

    The CTC head emits a character early in its sound, so a word lasts `WORD_END` longer than its frames, but at most to
    the middle of the gap to the next word.

    Args:
        log_probs, text: as in `align`.
    """
    frames = align(log_probs, text).frames
    limits = [*((end + start) / 2 for (_, end), (start, _) in pairwise(frames)), float(len(log_probs))]
    return [
        (start * FRAME_SECONDS, min(end * FRAME_SECONDS + WORD_END, limit * FRAME_SECONDS))
        for (start, end), limit in zip(frames, limits, strict=False)
    ]


@dataclass(frozen=True)
class Alignment:
    """The words of a text in the frames of its window.

    Attributes:
        frames: for each word of `split_words`, its first frame and the frame after its last one, in order, in 0 to T.
        labels: (T,) CTC label of each frame on the most probable path; None if there are too few frames for the text.
    """

    frames: list[tuple[int, int]]
    labels: NDArray[np.intp] | None


def align(log_probs: NDArray[np.float32], text: str, labels_of: Callable[[str], list[int]] | None = None) -> Alignment:
    """Aligns the words of a text with the frames of its window.

    The alignment is the most probable path through blanks and the characters of the text (Viterbi over CTC, as in arXiv
    2007.09127). A word without any character of the CTC alphabet, such as a Chinese character, gets the frames between
    its neighbours. If there are too few frames for the text, all words divide them in proportion to their lengths.

    Args:
        log_probs: (T, 348) log probabilities of the CTC head for the window's real frames.
        text: the transcript of the window.
        labels_of: the labels of a word; the default is `ctc_labels`.
    """
    spans = split_words(text)
    labels, owners, space = list[int](), list[int](), False
    for number, (start, end) in enumerate(spans):
        space = space or bool(labels and start > spans[number - 1][1])
        word_labels = (labels_of or ctc_labels)(text[start:end])
        if space and word_labels:  # one space, also around words without labels
            labels.append(ord(" "))
            owners.append(-1)
            space = False
        labels += word_labels
        owners += [number] * len(word_labels)
    frames: list[tuple[int, int] | None] = [None] * len(spans)
    path = _best_path(log_probs, np.array(labels, np.intp))
    for frame, label in enumerate(path):
        owner = owners[label] if label >= 0 else -1
        if owner >= 0:
            span = frames[owner]
            frames[owner] = (span[0] if span else frame, frame + 1)
    filled = _fill_gaps(frames, [end - start for start, end in spans], len(log_probs))
    return Alignment(filled, np.array([*labels, BLANK], np.intp)[path] if path else None)


def _best_path(log_probs: NDArray[np.float32], labels: NDArray[np.intp]) -> list[int]:
    """For each frame, the index of its label in `labels` (L,), or -1 for blank; empty if the frames are too few."""
    if not len(labels) or len(log_probs) < len(labels) + int((labels[1:] == labels[:-1]).sum()):
        return []
    states = np.full(2 * len(labels) + 1, BLANK)
    states[1::2] = labels
    skip_penalty = np.full(len(states), -np.inf, np.float32)  # a blank is optional between different characters
    skip_penalty[3::2][labels[1:] != labels[:-1]] = 0
    emitted = log_probs[:, states]
    score = np.full(2 + len(states), -np.inf, np.float32)  # two extra entries before the first state
    score[2:4] = emitted[0, :2]
    stepped, skipped = np.zeros(emitted.shape, bool), np.zeros(emitted.shape, bool)
    for frame in range(1, len(emitted)):
        step, skip = score[1:-1], score[:-2] + skip_penalty
        stay_or_step = np.maximum(score[2:], step)
        np.greater(step, score[2:], out=stepped[frame])
        np.greater(skip, stay_or_step, out=skipped[frame])
        score[2:] = np.maximum(stay_or_step, skip) + emitted[frame]
    state = len(states) - 1 - int(score[-2] > score[-1])
    path = []
    for frame in reversed(range(len(emitted))):
        path.append((state - 1) // 2 if state % 2 else -1)
        state -= 2 if skipped[frame, state] else int(stepped[frame, state])
    return path[::-1]


def _fill_gaps(frames: list[tuple[int, int] | None], lengths: list[int], total: int) -> list[tuple[int, int]]:
    """Divides the frames between neighbours among words without frames, in proportion to their lengths."""
    filled: list[tuple[int, int]] = []
    while len(filled) < len(frames):
        span = frames[len(filled)]
        if span:
            filled.append(span)
            continue
        gap_start = len(filled)
        gap_end = next((i for i in range(gap_start, len(frames)) if frames[i]), len(frames))
        start = filled[-1][1] if filled else 0
        next_span = frames[gap_end] if gap_end < len(frames) else None
        end = next_span[0] if next_span else total
        edges = start + np.cumsum([0, *lengths[gap_start:gap_end]]) * (end - start) // max(
            1, sum(lengths[gap_start:gap_end])
        )
        filled += [(int(a), int(b)) for a, b in pairwise(edges)]
    return filled
