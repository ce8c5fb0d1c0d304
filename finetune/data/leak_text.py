"""Compares transcripts without case, width and punctuation, and counts their words in any script."""

import math
import unicodedata
from itertools import pairwise

from finetune.metrics.scripts import is_unspaced

CHARACTERS_PER_WORD = 2  # of a script without spaces


def num_words(text: str) -> int:
    """Words of a text; in scripts without spaces, `CHARACTERS_PER_WORD` characters count as one."""
    unspaced = sum(map(is_unspaced, text))
    return max(len(text.split()), math.ceil(unspaced / CHARACTERS_PER_WORD))


def comparison_key(text: str) -> str:
    """The text in one form for all widths, cases, punctuation and spacing."""
    text = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(" " if unicodedata.category(char)[0] in "PSZ" else char for char in text).split()
    joined = words[:1]
    for before, word in pairwise(words):
        joined += [word] if is_unspaced(before[-1]) or is_unspaced(word[0]) else [" ", word]
    return "".join(joined)
