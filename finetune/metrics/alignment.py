"""Reference and hypothesis word by word: what was substituted, deleted, inserted; counted by jiwer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jiwer

from finetune.metrics.wer import alignments, normalized, spaced


class Edit(NamedTuple):
    """One step: `op` is equal, substitute, delete (no hypothesis) or insert (no reference)."""

    op: str
    reference: str
    hypothesis: str


@dataclass(frozen=True)
class Confusion:
    """How often one word was heard for another; "" is nothing (insertions, deletions)."""

    reference: str
    hypothesis: str
    count: int


def align(references: list[str], hypotheses: list[str], preset: str) -> list[list[Edit]]:
    """The least edits from each reference to its hypothesis, in order; both sides can be read off it.

    Raises:
        DataError: lists of unequal length.
        RecipeError: unknown preset.
    """
    refs, hyps = normalized(references, hypotheses, preset)
    return align_words(*([spaced(text, preset).split() for text in texts] for texts in (refs, hyps)))


def align_words(references: list[list[str]], hypotheses: list[list[str]]) -> list[list[Edit]]:
    """As `align`, of words that need no normalizer and hold no space."""
    chunks_of_all = alignments(
        jiwer.process_words, [" ".join(words) for words in references], [" ".join(words) for words in hypotheses]
    )
    rows = []
    for chunks, ref, hyp in zip(chunks_of_all, references, hypotheses, strict=True):
        edits: list[Edit] = []
        for chunk in chunks:
            said = ref[chunk.ref_start_idx : chunk.ref_end_idx]
            heard = hyp[chunk.hyp_start_idx : chunk.hyp_end_idx]
            nothing = [""] * max(len(said), len(heard))
            edits += [Edit(chunk.type, *pair) for pair in zip(said or nothing, heard or nothing, strict=True)]
        rows.append(edits)
    return rows


def count_errors(edits: Sequence[Edit]) -> int:
    return sum(edit.op != "equal" for edit in edits)


def count_words(edits: Sequence[Edit]) -> int:
    """Words of the reference."""
    return sum(edit.op != "insert" for edit in edits)


def confusions(rows: Sequence[Sequence[Edit]], most: int) -> list[Confusion]:
    """The `most` frequent errors, each with its count; ties in alphabetical order."""
    counts = Counter((edit.reference, edit.hypothesis) for edits in rows for edit in edits if edit.op != "equal")
    return [
        Confusion(*pair, count) for pair, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
    ]
