"""Recall and precision of domain terms, such as product names and technical expressions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from finetune.core.errors import DataError
from finetune.core.keyword_list import term_list
from finetune.core.unicode_text import composed, listed
from finetune.core.wording import count
from finetune.metrics.normalizer import normalize
from finetune.metrics.term_matcher import TermMatcher

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TermRecall:
    """Occurrences of one term: in the references (`support`), recognized (`hits`), and only in hypotheses.

    `as_written`: the term is matched as written, because the normalizer removes its signs.
    """

    term: str
    support: int
    hits: int
    false_alarms: int
    as_written: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class TermSummary:
    """Pooled scores: `recall` and `precision` over occurrences (micro), `macro_recall` over terms in the references.

    A rate is None without occurrences in the references (recall) or in the hypotheses (precision).
    """

    recall: float | None
    precision: float | None
    support: int
    false_alarms: int
    terms_in_references: int
    macro_recall: float | None


@dataclass(frozen=True)
class TermCounts:
    """Occurrences of M terms in the references and hypotheses of N utterances, both (M, N).

    `as_written` says of each term whether it is matched as written, with its signs.
    """

    terms: tuple[str, ...]
    as_written: tuple[bool, ...]
    in_references: IntArray
    in_hypotheses: IntArray

    def rows(self) -> list[TermRecall]:
        """One row for each term.

        In an utterance, hits are the smaller of both counts; false alarms are the occurrences in the hypothesis minus
        those in the reference.
        """
        hits = np.minimum(self.in_references, self.in_hypotheses).sum(1)
        false_alarms = np.maximum(self.in_hypotheses - self.in_references, 0).sum(1)
        return [
            TermRecall(term, int(support), int(hit), int(false), as_written=as_written)
            for term, as_written, support, hit, false in zip(
                self.terms, self.as_written, self.in_references.sum(1), hits, false_alarms, strict=True
            )
        ]

    def misses(self, terms: Iterable[str]) -> tuple[list[int], list[int]]:
        """By utterance, for these terms: missed occurrences, and occurrences in the reference."""
        chosen = np.isin(np.array(self.terms, dtype=object), list(terms))
        ref, hyp = self.in_references[chosen], self.in_hypotheses[chosen]
        return (ref - np.minimum(ref, hyp)).sum(0).tolist(), ref.sum(0).tolist()


def read_terms(path: str | Path) -> list[str]:
    """Reads a list of terms, one per line; empty lines are skipped.

    Raises:
        DataError: the file cannot be read, is empty, or is a table.
    """
    return [term for _, term in term_lines(path)]


def term_lines(path: str | Path) -> list[tuple[int, str]]:
    """The terms of `read_terms` with the numbers of their lines."""
    terms = [(number, term) for number, line in term_list(path) if (term := " ".join(composed(line).split()))]
    if not terms:
        raise DataError(f"{path}: contains no terms; write one term per line")
    return terms


def column_terms(cells: Iterable[object], preset: str) -> list[str]:
    """The distinct terms of a manifest column whose cells are lists of strings, also as text, or separated by , or ;.

    Other cells, and terms that the preset empties, are ignored.
    """
    terms: dict[str, None] = {}
    for cell in cells:
        items = listed(cell.strip()) if isinstance(cell, str) else None
        parts = cell.replace(";", ",").split(",") if isinstance(cell, str) and items is None else items or cell
        for part in parts if isinstance(parts, list | tuple) else ():
            if isinstance(part, str) and normalize(part, preset):
                terms.setdefault(" ".join(composed(part).split()))
    return list(terms)


def count_terms(references: list[str], hypotheses: list[str], terms: list[str], preset: str) -> TermCounts:
    """Counts each term in references and hypotheses; positions are not aligned.

    `TermMatcher` states what an occurrence is.

    Args:
        references: one text for each utterance.
        hypotheses: hypotheses in the same order.
        terms: the terms; spellings that the preset makes equal share one row, under the first spelling. Without
            utterances, only the terms are checked.
        preset: a name in `NORMALIZERS`.

    Raises:
        DataError: the lists differ in length, or the preset empties a term.
        RecipeError: the preset is unknown.
    """
    if len(references) != len(hypotheses):
        raise DataError(
            f"{count(len(references), 'reference')} but {count(len(hypotheses), 'hypothesis', 'hypotheses')}; "
            "give one hypothesis for each reference"
        )
    matcher = TermMatcher(terms, preset)
    in_references, in_hypotheses = (
        np.array([matcher.counts(text) for text in texts], dtype=np.int64).reshape(len(texts), len(matcher.terms)).T
        for texts in (references, hypotheses)
    )
    return TermCounts(
        tuple(item.term for item in matcher.terms),
        tuple(item.as_written for item in matcher.terms),
        in_references,
        in_hypotheses,
    )


def term_recall(references: list[str], hypotheses: list[str], terms: list[str], preset: str) -> list[TermRecall]:
    """The rows of `count_terms`: one for each distinct term, in the order of `terms`."""
    return count_terms(references, hypotheses, terms, preset).rows()


def summarize(rows: Sequence[TermRecall]) -> TermSummary:
    """Pools the rows of several terms."""
    support, hits = sum(row.support for row in rows), sum(row.hits for row in rows)
    false_alarms = sum(row.false_alarms for row in rows)
    recalls = [row.hits / row.support for row in rows if row.support]
    return TermSummary(
        recall=hits / support if support else None,
        precision=hits / (hits + false_alarms) if hits + false_alarms else None,
        support=support,
        false_alarms=false_alarms,
        terms_in_references=len(recalls),
        macro_recall=sum(recalls) / len(recalls) if recalls else None,
    )


def notes_on_signs(terms: Sequence[str], preset: str, references: Sequence[str] | None) -> list[str]:
    """Names the terms that are matched as written, and those of them that occur in no reference (None: unknown)."""
    texts = list(references or [])
    written = {row.term: row.support for row in term_recall(texts, texts, list(terms), preset) if row.as_written}
    if not written:
        return []
    notes = [f"matched as written, with their signs, because {preset} removes these: {', '.join(written)}"]
    absent = [term for term, support in written.items() if not support]
    if absent and references is not None:
        notes.append(
            f"not in a reference as written: {', '.join(absent)}; if the references spell the signs out, list the "
            "words (such as 'a plus')"
        )
    return notes
