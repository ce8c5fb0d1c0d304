"""MAPSSWE (matched pairs sentence-segment word error): a test of two systems over segments of utterances.

Gillick and Cox, "Some statistical issues in the comparison of speech recognition algorithms", ICASSP 1989, as in
NIST's sclite tools. A segment lies between two runs of `CORRECT_WORDS` or more words that both systems recognize (or
the ends of an utterance), so the errors of two segments are independent. The errors of both systems are paired by
segment. The test ignores the correlation of errors of one speaker, so the block bootstrap of `significance` is the main
result.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.core.errors import DataError
from finetune.metrics.alignment import Edit

CORRECT_WORDS = 2
MIN_SEGMENTS = 50  # fewer make the normal approximation unreliable


@dataclass(frozen=True)
class Mapsswe:
    """Segments with errors, the mean of errors of B minus errors of A, and the two-sided test that the mean is 0.

    `z` and `p_value` are None if the differences of all segments are equal, or if there are fewer than two segments.
    """

    segments: int
    mean_difference: float
    z: float | None
    p_value: float | None
    note: str


def mapsswe(rows_a: Sequence[Sequence[Edit]], rows_b: Sequence[Sequence[Edit]]) -> Mapsswe:
    """Compares two systems by their alignments with the same references.

    Raises:
        DataError: the references of the alignments differ.
    """
    differences = [b - a for edits in zip(rows_a, rows_b, strict=True) for a, b in _segments(*edits)]
    count = len(differences)
    mean_difference = sum(differences) / count if count else 0.0
    variance = math.fsum((item - mean_difference) ** 2 for item in differences) / (count - 1) if count > 1 else 0.0
    note = (
        ""
        if count >= MIN_SEGMENTS
        else f"only {count} segment{'s' * (count != 1)} with errors: the test is not reliable"
    )
    if not variance:
        return Mapsswe(count, mean_difference, None, None, note)
    z = mean_difference / math.sqrt(variance / count)
    return Mapsswe(count, mean_difference, z, math.erfc(abs(z) / math.sqrt(2)), note)


def _segments(edits_a: Sequence[Edit], edits_b: Sequence[Edit]) -> list[tuple[int, int]]:
    """Errors of A and of B in each segment of one utterance that contains errors."""
    wrong_a, wrong_b = _by_word(edits_a), _by_word(edits_b)
    if [word for word, *_ in wrong_a] != [word for word, *_ in wrong_b]:
        raise DataError("the two systems were scored against different references; score both on the same clips")
    segments, errors, num_correct = (
        [],
        [0, 0],
        CORRECT_WORDS,
    )  # the start of an utterance counts as a run of correct words
    for (_, inserted_a, at_a), (_, inserted_b, at_b) in zip(wrong_a, wrong_b, strict=True):
        if inserted_a or inserted_b:
            num_correct = 0
        errors = [errors[0] + inserted_a, errors[1] + inserted_b]
        num_correct = 0 if at_a or at_b else num_correct + 1
        errors = [errors[0] + at_a, errors[1] + at_b]
        if num_correct >= CORRECT_WORDS and any(errors):
            segments.append((errors[0], errors[1]))
            errors = [0, 0]
    return [*segments, (errors[0], errors[1])] if any(errors) else segments


def _by_word(edits: Sequence[Edit]) -> list[tuple[str, int, int]]:
    """For each reference word, and for the end: the word, the insertions before it, and 1 if it is wrong."""
    words, insertions = [], 0
    for edit in edits:
        if edit.op == "insert":
            insertions += 1
        else:
            words.append((edit.reference, insertions, int(edit.op != "equal")))
            insertions = 0
    return [*words, ("", insertions, 0)]
