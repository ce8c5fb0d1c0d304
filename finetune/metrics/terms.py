"""Domain terms: of the names and expressions that were said, how many were recognized, and how many invented."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from finetune.core.errors import DataError
from finetune.metrics.normalizer import UNSPACED, normalize

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TermRecall:
    """Occurrences of one term: said (`support`), said and recognized (`hits`), recognized but not said."""

    term: str
    support: int
    hits: int
    false_alarms: int


@dataclass(frozen=True)
class TermSummary:
    """Terms pooled: `recall` and `precision` over occurrences (micro), `macro_recall` over terms that were said.

    A rate is None where nothing was said (recall) or recognized (precision).
    """

    recall: float | None
    precision: float | None
    support: int
    false_alarms: int
    terms_said: int
    macro_recall: float | None


@dataclass(frozen=True)
class TermCounts:
    """Occurrences of M terms in N utterances: `said` and `heard`, both (M, N)."""

    terms: tuple[str, ...]
    said: IntArray
    heard: IntArray

    def rows(self) -> list[TermRecall]:
        """One a term. In an utterance, hits are the smaller count and false alarms what was heard beyond the said."""
        hits, more = np.minimum(self.said, self.heard), np.maximum(self.heard - self.said, 0)
        return [
            TermRecall(term, int(said), int(hit), int(false))
            for term, said, hit, false in zip(self.terms, self.said.sum(1), hits.sum(1), more.sum(1), strict=True)
        ]

    def misses(self, terms: Iterable[str]) -> tuple[list[int], list[int]]:
        """By utterance, of the terms named: occurrences missed, and occurrences said."""
        chosen = np.isin(np.array(self.terms, dtype=object), list(terms))
        said, heard = self.said[chosen], self.heard[chosen]
        return (said - np.minimum(said, heard)).sum(0).tolist(), said.sum(0).tolist()


def read_terms(path: str | Path) -> list[str]:
    """A list of terms, one a line; empty lines are skipped.

    Raises:
        DataError: the file cannot be read, or holds none.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: a list of terms that cannot be read ({error})") from error
    terms = [" ".join(line.split()) for line in lines if line.strip()]
    if not terms:
        raise DataError(f"{path}: holds no terms; write one a line")
    return terms


def column_terms(cells: Iterable[object], preset: str) -> list[str]:
    """Terms of a manifest column, each once: lists of strings, or strings with commas or semicolons between.

    A cell that is neither, and a term that the preset empties, counts for nothing.
    """
    found: dict[str, None] = {}
    for cell in cells:
        parts = cell.replace(";", ",").split(",") if isinstance(cell, str) else cell
        for part in parts if isinstance(parts, list | tuple) else ():
            if isinstance(part, str) and normalize(part, preset):
                found.setdefault(" ".join(part.split()))
    return list(found)


def count_terms(references: list[str], hypotheses: list[str], terms: list[str], preset: str) -> TermCounts:
    """Count each term in references and hypotheses; places are not aligned.

    A term of one or more words matches whole words of the normalized text, left to right without overlap
    (under `ja-cer@1`, which has no words, it matches anywhere). Terms may nest: "New York" is counted
    inside "New York Times" too.

    Args:
        references: one text an utterance.
        hypotheses: in the same order.
        terms: as a person writes them; normalized by the same preset. Spellings that this makes equal
            share one row, under the first of them. With no utterances the list alone is checked.
        preset: a name in `NORMALIZERS`.

    Raises:
        DataError: lists of unequal length, or a term that the preset empties.
        RecipeError: unknown preset.
    """
    if len(references) != len(hypotheses):
        raise DataError(f"{len(references)} references but {len(hypotheses)} hypotheses: give one for each")
    spellings: dict[str, str] = {}
    for number, term in enumerate(terms, start=1):
        key = normalize(term, preset)
        if not key:
            raise DataError(
                f"term {number} ({term!r}) has nothing left under normalizer {preset!r}; "
                "remove it, or spell it as it is spoken"
            )
        spellings.setdefault(key, term)
    needles = [searchable(key, preset) for key in spellings]
    said, heard = (
        [[text.count(needle) for text in searched] for needle in needles]
        for searched in (
            [searchable(normalize(text, preset), preset) for text in texts] for texts in (references, hypotheses)
        )
    )
    shape = (len(needles), len(references))
    return TermCounts(
        tuple(spellings.values()),
        np.array(said, dtype=np.int64).reshape(shape),
        np.array(heard, dtype=np.int64).reshape(shape),
    )


def term_recall(references: list[str], hypotheses: list[str], terms: list[str], preset: str) -> list[TermRecall]:
    """`count_terms`, one row a distinct term, in the order given."""
    return count_terms(references, hypotheses, terms, preset).rows()


def summarize(rows: Sequence[TermRecall]) -> TermSummary:
    support, hits = sum(row.support for row in rows), sum(row.hits for row in rows)
    false_alarms = sum(row.false_alarms for row in rows)
    each = [row.hits / row.support for row in rows if row.support]
    return TermSummary(
        recall=hits / support if support else None,
        precision=hits / (hits + false_alarms) if hits + false_alarms else None,
        support=support,
        false_alarms=false_alarms,
        terms_said=len(each),
        macro_recall=sum(each) / len(each) if each else None,
    )


def searchable(text: str, preset: str) -> str:
    """A space on both sides of every word, so that `str.count` finds whole words, neighbours included."""
    return text if preset in UNSPACED else f" {text.replace(' ', '  ')} "
