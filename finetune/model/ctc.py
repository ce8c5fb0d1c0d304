"""The alphabet of the character CTC head: 348 labels, blank 0, code points below 256, then katakana."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

BLANK = 0
LATIN = 256
KATAKANA = 0x30A1
NUM_LABELS = 348


def to_labels(text: str) -> tuple[list[int], int]:
    """Labels of `text` in lower case, and how many characters the alphabet lacks (they are left out)."""
    labels, lost = [], 0
    for char in text.lower():
        point = ord(char)
        if 0 < point < LATIN:
            labels.append(point)
        elif 0 <= point - KATAKANA < NUM_LABELS - LATIN:
            labels.append(LATIN + point - KATAKANA)
        else:
            lost += 1
    return labels, lost


def frames_needed(labels: list[int]) -> int:
    """The fewest frames in which CTC can write them: one each, and a blank between two that are alike."""
    return len(labels) + sum(left == right for left, right in pairwise(labels))


def to_text(labels: list[int]) -> str:
    """Characters of labels that hold no blank."""
    return "".join(chr(label) if label < LATIN else chr(KATAKANA + label - LATIN) for label in labels)


def best_path(labels: NDArray[np.int64], peaks: NDArray[np.float32]) -> tuple[str, list[float]]:
    """The likeliest label (T,) of each real frame and its posterior (T,) -> text with spaces folded, and the highest
    posterior of each of its characters."""
    text, probs = "", list[float]()
    runs = np.flatnonzero(np.diff(labels, prepend=-1))
    for label, peak in zip(labels[runs].tolist(), np.maximum.reduceat(peaks, runs).tolist(), strict=True):
        char = "" if label == BLANK else to_text([label])
        if not char or (char.isspace() and (not text or text.endswith(" "))):
            continue
        text += " " if char.isspace() else char
        probs.append(peak)
    return (text[:-1], probs[:-1]) if text.endswith(" ") else (text, probs)


def greedy_text(logits: Tensor) -> str:
    """The best path of one clip: logits (T, 348) over its real frames only -> text, spaces folded."""
    labels = logits.argmax(-1).cpu().numpy()
    return best_path(labels, np.ones(len(labels), np.float32))[0]


def entropy(logits: Tensor) -> Tensor:
    """Of each frame's labels, in nats: logits (..., T, 348) -> (..., T)."""
    logs = logits.float().log_softmax(-1)
    return -(logs.exp() * logs).sum(-1)
