"""The alphabet of the character CTC head: 348 labels, blank 0, code points below 256, then katakana."""

import torch
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


def to_text(labels: list[int]) -> str:
    """Characters of labels that hold no blank."""
    return "".join(chr(label) if label < LATIN else chr(KATAKANA + label - LATIN) for label in labels)


def greedy_text(logits: Tensor) -> str:
    """The best path of one clip: logits (T, 348) over its real frames only -> text, spaces folded."""
    path = torch.unique_consecutive(logits.argmax(-1)).tolist()
    return " ".join(to_text([label for label in path if label != BLANK]).split())
