"""How often each term of `data.terms` occurs in the transcripts of train and replay."""

import re
from collections.abc import Sequence

import numpy as np

from finetune.data.cells import clean_text
from finetune.data.row import Row
from finetune.metrics.normalizer import UNSPACED
from finetune.metrics.term_matcher import TermMatcher
from finetune.planning.split_facts import LIMITS

WORD = re.compile(r"\w+")


class TermSupport:
    """Counts terms while rows are read.

    Args:
        terms: the terms.
        preset: the normalizer.
        rows: number of rows. Of more than `LIMITS.clips`, only texts with a word of a term are matched, as it is
            written, so terms that only the normalizer makes equal are missed.
    """

    def __init__(self, terms: Sequence[str], preset: str, rows: int) -> None:
        self.matcher = TermMatcher(terms, preset)
        self.exact = rows <= LIMITS.clips or preset in UNSPACED  # a word of \w can be a whole sentence there
        self.words = {max(WORD.findall(term.lower()), key=len, default="") for term in terms}
        self.counts = np.zeros(len(self.matcher.terms), np.int64)

    def add(self, row: Row) -> None:
        """Counts the terms of a row."""
        text = row.values.get("text")
        if isinstance(text, str) and (self.exact or not self.words.isdisjoint(WORD.findall(text.lower()))):
            self.counts += np.array(self.matcher.counts(clean_text(text)), np.int64)

    def support(self) -> dict[str, int]:
        """Occurrences by term."""
        return {term.term: int(count) for term, count in zip(self.matcher.terms, self.counts, strict=True)}
