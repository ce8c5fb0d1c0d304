"""When each word was said: the text, aligned to the CTC head's probabilities of the window it was heard in."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from finetune.inference.segments import split_words
from finetune.model.ctc import BLANK, to_labels

HIRAGANA = {code: code + 0x60 for code in range(0x3041, 0x3097)}  # the head writes all kana as katakana


def word_frames(log_probs: NDArray[np.float32], text: str) -> list[tuple[int, int]]:
    """Of each word of `split_words`: its first frame and the one behind its last, in order, within 0 to T.

    The most probable path through blanks and the text's characters (Viterbi over CTC, as in arXiv 2007.09127). A word
    without a character that the head can write, such as a Chinese one, has what its neighbours leave. Where the
    frames are too few for the text, all share them by their lengths.

    Args:
        log_probs: (T, 348), of the window's real frames.
        text: what was written for the window.
    """
    spans = split_words(text)
    labels, owners = list[int](), list[int]()
    for number, (start, end) in enumerate(spans):
        if labels and start > spans[number - 1][1]:
            labels.append(ord(" "))
            owners.append(-1)
        found, _ = to_labels("".join(filter(_spoken, text[start:end].translate(HIRAGANA))))
        labels += found
        owners += [number] * len(found)
    frames: list[tuple[int, int] | None] = [None] * len(spans)
    for frame, label in enumerate(_path(log_probs, np.array(labels, np.intp))):
        owner = owners[label] if label >= 0 else -1
        if owner >= 0:
            begun = frames[owner]
            frames[owner] = (begun[0] if begun else frame, frame + 1)
    return _filled(frames, [end - start for start, end in spans], len(log_probs))


def _spoken(char: str) -> bool:
    """The head writes no punctuation."""
    return char.isalnum() or char in "'-ー"


def _path(log_probs: NDArray[np.float32], labels: NDArray[np.intp]) -> list[int]:
    """For each frame, which of `labels` (L,) it writes, or -1 for blank; empty where they do not fit."""
    if not len(labels) or len(log_probs) < len(labels) + int((labels[1:] == labels[:-1]).sum()):
        return []
    states = np.full(2 * len(labels) + 1, BLANK)
    states[1::2] = labels
    skipping = np.full(len(states), -np.inf, np.float32)  # a blank may be left out between two different characters
    skipping[3::2][labels[1:] != labels[:-1]] = 0
    emitted = log_probs[:, states]
    score = np.full(2 + len(states), -np.inf, np.float32)  # two more before the first state, so that all can look back
    score[2:4] = emitted[0, :2]
    stepped, skipped = np.zeros(emitted.shape, bool), np.zeros(emitted.shape, bool)
    for frame in range(1, len(emitted)):
        step, skip = score[1:-1], score[:-2] + skipping
        best = np.maximum(score[2:], step)
        np.greater(step, score[2:], out=stepped[frame])
        np.greater(skip, best, out=skipped[frame])
        score[2:] = np.maximum(best, skip) + emitted[frame]
    state = len(states) - 1 - int(score[-2] > score[-1])
    path = []
    for frame in reversed(range(len(emitted))):
        path.append((state - 1) // 2 if state % 2 else -1)
        state -= 2 if skipped[frame, state] else int(stepped[frame, state])
    return path[::-1]


def _filled(frames: list[tuple[int, int] | None], lengths: list[int], total: int) -> list[tuple[int, int]]:
    """Words without frames share those between their neighbours by their lengths."""
    filled: list[tuple[int, int]] = []
    while len(filled) < len(frames):
        known = frames[len(filled)]
        if known:
            filled.append(known)
            continue
        first = len(filled)
        last = next((i for i in range(first, len(frames)) if frames[i]), len(frames))
        start = filled[-1][1] if filled else 0
        follower = frames[last] if last < len(frames) else None
        end = follower[0] if follower else total
        edges = start + np.cumsum([0, *lengths[first:last]]) * (end - start) // max(1, sum(lengths[first:last]))
        filled += [(int(a), int(b)) for a, b in pairwise(edges)]
    return filled
