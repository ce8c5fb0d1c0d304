"""Recall of domain terms: of the names and expressions that were said, how many were recognized."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import DataError
from finetune.metrics.normalizer import UNSPACED, normalize


@dataclass(frozen=True)
class TermRecall:
    """Occurrences of one term: said (`support`), said and recognized (`hits`), recognized but not said."""

    term: str
    support: int
    hits: int
    false_alarms: int


def read_terms(path: str | Path) -> list[str]:
    """A list of terms, one a line; empty lines are skipped.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: a list of terms that cannot be read ({error})") from error
    return [" ".join(line.split()) for line in lines if line.strip()]


def term_recall(references: list[str], hypotheses: list[str], terms: list[str], preset: str) -> list[TermRecall]:
    """Count each term in references and hypotheses.

    Within an utterance, hits are the smaller of the two counts and false alarms what the hypothesis
    has beyond the reference; places are not aligned. A term of one or more words matches whole words
    of the normalized text, left to right without overlap (under `ja-cer@1`, which has no words, it
    matches anywhere). Terms may nest: "New York" is counted inside "New York Times" too.

    Args:
        references: one text an utterance.
        hypotheses: in the same order.
        terms: as a person writes them; normalized by the same preset. Spellings that this makes equal
            share one row, under the first of them. With no utterances the list alone is checked.
        preset: a name in `NORMALIZERS`.

    Returns:
        One row a distinct term, in the order given.

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
            raise DataError(f"term {number} ({term!r}) has nothing left under normalizer {preset!r}; "
                            "remove it, or spell it as it is spoken")
        spellings.setdefault(key, term)

    refs = [_searchable(normalize(text, preset), preset) for text in references]
    hyps = [_searchable(normalize(text, preset), preset) for text in hypotheses]
    rows = []
    for key, term in spellings.items():
        needle = _searchable(key, preset)
        counts = [(ref.count(needle), hyp.count(needle)) for ref, hyp in zip(refs, hyps, strict=True)]
        rows.append(TermRecall(
            term=term,
            support=sum(said for said, _ in counts),
            hits=sum(min(pair) for pair in counts),
            false_alarms=sum(max(0, heard - said) for said, heard in counts),
        ))
    return rows


def summarize(rows: Sequence[TermRecall]) -> dict[str, float | int | None]:
    """All terms pooled (micro average).

    Returns:
        `recall`: hits over support, None when no term was said; `precision`: hits over all recognized
        occurrences, None when there are none; `support`: occurrences said.
    """
    support, hits = sum(row.support for row in rows), sum(row.hits for row in rows)
    recognized = hits + sum(row.false_alarms for row in rows)
    return {
        "recall": hits / support if support else None,
        "precision": hits / recognized if recognized else None,
        "support": support,
    }


def _searchable(text: str, preset: str) -> str:
    """A space on both sides of every word, so that `str.count` finds whole words, neighbours included."""
    return text if preset in UNSPACED else f" {text.replace(' ', '  ')} "
