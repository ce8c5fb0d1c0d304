"""Word alignment of references and hypotheses: substitutions, deletions and insertions, as sclite aligns them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from finetune.metrics.wer import normalized, spaced, word_paths

_OPS = {"C": "equal", "S": "substitute", "D": "delete", "I": "insert"}


class Edit(NamedTuple):
    """One step of an alignment: `op` is equal, substitute, delete (no hypothesis) or insert (no reference)."""

    op: str
    reference: str
    hypothesis: str


@dataclass(frozen=True)
class Confusion:
    """Number of times that a hypothesis word replaces a reference word; "" is no word (insertion, deletion)."""

    reference: str
    hypothesis: str
    count: int


def align(references: list[str], hypotheses: list[str], preset: str) -> list[list[Edit]]:
    """Aligns each reference with its hypothesis with the fewest edits (`edit_path`).

    The edits are in order and contain all words of the reference and of the hypothesis.

    Raises:
        DataError: the lists differ in length.
        RecipeError: the preset is unknown.
    """
    refs, hyps = normalized(references, hypotheses, preset)
    return align_words(*([spaced(text, preset).split() for text in texts] for texts in (refs, hyps)))


def align_words(references: list[list[str]], hypotheses: list[list[str]]) -> list[list[Edit]]:
    """Like `align`, but for words that are already normalized and contain no space."""
    rows = []
    for path, ref, hyp in zip(
        word_paths([" ".join(words) for words in references], [" ".join(words) for words in hypotheses]),
        references,
        hypotheses,
        strict=True,
    ):
        ref_words, hyp_words = iter(ref), iter(hyp)
        rows.append(
            [
                Edit(_OPS[step], "" if step == "I" else next(ref_words), "" if step == "D" else next(hyp_words))
                for step in path
            ]
        )
    return rows


def count_errors(edits: Sequence[Edit]) -> int:
    """Substitutions, deletions and insertions."""
    return sum(edit.op != "equal" for edit in edits)


def count_words(edits: Sequence[Edit]) -> int:
    """Words in the reference."""
    return sum(edit.op != "insert" for edit in edits)


def confusions(rows: Sequence[Sequence[Edit]], limit: int) -> list[Confusion]:
    """The `limit` most frequent errors with their counts; ties are in alphabetical order."""
    counts = Counter((edit.reference, edit.hypothesis) for edits in rows for edit in edits if edit.op != "equal")
    return [
        Confusion(*pair, count) for pair, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit]
    ]
