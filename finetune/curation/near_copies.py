"""Finds texts that are nearly the same: the Jaccard similarity of their character trigrams."""

import math
from collections import Counter
from collections.abc import Sequence


class NearCopies:
    """The texts that were added, and a search among them.

    Similar texts share one of their rarest trigrams, so only these are indexed (prefix filtering: Chaudhuri et al.,
    "A Primitive Operator for Similarity Joins in Data Cleaning", ICDE 2006).

    Args:
        texts: all texts, of which some will be added.
        limit: a text is a near copy of another one if their similarity is larger.
    """

    def __init__(self, texts: Sequence[str], limit: float) -> None:
        self._limit = limit
        frequency = Counter(gram for text in texts for gram in _trigrams(text))
        self._grams = [sorted(_trigrams(text), key=lambda gram: (frequency[gram], gram)) for text in texts]
        self._index = dict[str, list[int]]()

    def find(self, number: int) -> int | None:
        """An added text that is nearly the same as the text with this number; None if there is none."""
        grams = {*self._grams[number]}
        candidates = {other for gram in self._prefix(number) for other in self._index.get(gram, ())}
        for other in sorted(candidates):
            shared = len(grams.intersection(self._grams[other]))
            if shared > self._limit * (len(grams) + len(self._grams[other]) - shared):
                return other
        return None

    def add(self, number: int) -> None:
        """Adds the text with this number."""
        for gram in self._prefix(number):
            self._index.setdefault(gram, []).append(number)

    def _prefix(self, number: int) -> list[str]:
        grams = self._grams[number]
        return grams[: len(grams) - math.ceil(self._limit * len(grams)) + 1]


def _trigrams(text: str) -> set[str]:
    padded = f"  {text} "
    return {padded[start : start + 3] for start in range(len(padded) - 2)} if text else set()
