"""Word alignment of references and hypotheses: substitutions, deletions and insertions, computed by jiwer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jiwer

from finetune.metrics.wer import alignments, normalized, spaced


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
    """Aligns each reference with its hypothesis with the fewest edits.

    The edits are in order and contain all words of the reference and of the hypothesis.

    Raises:
        DataError: the lists differ in length.
        RecipeError: the preset is unknown.
    """
    refs, hyps = normalized(references, hypotheses, preset)
    return align_words(*([spaced(text, preset).split() for text in texts] for texts in (refs, hyps)))


def align_words(references: list[list[str]], hypotheses: list[list[str]]) -> list[list[Edit]]:
    """Like `align`, but for words that are already normalized and contain no space."""
    chunks_of_all = alignments(
        jiwer.process_words, [" ".join(words) for words in references], [" ".join(words) for words in hypotheses]
    )
    rows = []
    for chunks, ref, hyp in zip(chunks_of_all, references, hypotheses, strict=True):
        edits: list[Edit] = []
        for chunk in chunks:
            ref_words = ref[chunk.ref_start_idx : chunk.ref_end_idx]
            hyp_words = hyp[chunk.hyp_start_idx : chunk.hyp_end_idx]
            gaps = [""] * max(len(ref_words), len(hyp_words))
            edits += [Edit(chunk.type, *pair) for pair in zip(ref_words or gaps, hyp_words or gaps, strict=True)]
        rows.append(edits)
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
