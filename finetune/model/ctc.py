"""Alphabet of the character CTC head and greedy decoding: blank 0, code points 1 to 255, then katakana (348 labels).

The head of granite-speech-3.3 has the first 256 labels.
"""

from typing import TYPE_CHECKING
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # `finetune check` uses the alphabet, and does not load torch for it
    from torch import Tensor

BLANK = 0
LATIN = 256  # labels below it equal the code point
KATAKANA = 0x30A1  # code point of label 256
NUM_LABELS = 348
# The alphabet has no hiragana, only the plain apostrophe and hyphen, and of Latin letters beyond `LATIN` their base.
IN_ALPHABET: dict[int, int | str] = {code: code + 0x60 for code in range(0x3041, 0x3097)}
IN_ALPHABET |= dict.fromkeys(map(ord, "’ʼ"), "'") | dict.fromkeys((0x2010, 0x2011), "-")
IN_ALPHABET |= {code: normalize("NFD", chr(code))[0] for code in (*range(0x100, 0x250), *range(0x1E00, 0x1F00))}
NOT_DECOMPOSED = {"ł": "l", "Ł": "l", "đ": "d", "Đ": "d", "ı": "i", "œ": "oe", "Œ": "oe"}
IN_ALPHABET |= {ord(letter): base for letter, base in NOT_DECOMPOSED.items()}


def to_labels(text: str, num_labels: int = NUM_LABELS) -> tuple[list[int], int]:
    """Labels of the lower-cased `text`, and the number of omitted characters, which are not in the alphabet.

    `num_labels` is the size of the head; one with 256 labels has no katakana.
    """
    labels, num_unknown = [], 0
    for char in text.lower():
        point = ord(char)
        if 0 < point < LATIN:
            labels.append(point)
        elif 0 <= point - KATAKANA < num_labels - LATIN:
            labels.append(LATIN + point - KATAKANA)
        else:
            num_unknown += 1
    return labels, num_unknown


def ctc_labels(word: str) -> list[int]:
    """Labels of a word without its punctuation, which the head does not write; empty without any character of it."""
    return to_labels("".join(char for char in word.translate(IN_ALPHABET) if char.isalnum() or char in "'-ー"))[0]


def is_spelled(text: str) -> bool:
    """Whether the alphabet has most letters and digits of a text, so that its labels say how it sounds."""
    letters = [char for char in text if char.isalnum()]
    return 2 * sum(bool(ctc_labels(char)) for char in letters) > len(letters)


def to_text(labels: list[int]) -> str:
    """Text of `labels`, which must not contain the blank."""
    return "".join(chr(label) if label < LATIN else chr(KATAKANA + label - LATIN) for label in labels)


def best_path(labels: NDArray[np.int64], peaks: NDArray[np.float32]) -> tuple[str, list[float]]:
    """Greedy CTC decoding: collapses repeats and removes blanks.

    Args:
        labels: (T,) most probable label of each real frame.
        peaks: (T,) posterior of that label.

    Returns:
        The text, with runs of spaces reduced to one, and for each character its highest posterior.
    """
    text, probs = "", list[float]()
    runs = np.flatnonzero(np.diff(labels, prepend=-1))
    for label, peak in zip(labels[runs].tolist(), np.maximum.reduceat(peaks, runs).tolist(), strict=True):
        char = "" if label == BLANK else to_text([label])
        if not char or (char.isspace() and (not text or text.endswith(" "))):
            continue
        text += " " if char.isspace() else char
        probs.append(peak)
    return (text[:-1], probs[:-1]) if text.endswith(" ") else (text, probs)


def greedy_text(logits: "Tensor") -> str:
    """Greedy CTC text of one clip: logits (T, 348) of its real frames -> text, with runs of spaces reduced to one."""
    labels = logits.argmax(-1).cpu().numpy()
    return best_path(labels, np.ones(len(labels), np.float32))[0]


def entropy(logits: "Tensor") -> "Tensor":
    """Entropy in nats of the label distribution of each frame: logits (..., T, 348) -> (..., T)."""
    log_probs = logits.float().log_softmax(-1)
    return -(log_probs.exp() * log_probs).sum(-1)
