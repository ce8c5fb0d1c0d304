"""The alignment of two texts that sclite also finds: the fewest errors, of these the most hits, and sclite's order.

Several alignments can have the fewest errors: "a b" and "b c" are two substitutions, or a deletion and an insertion.
jiwer, kaldialign and sclite choose differently. Here, as with sclite's costs (4 for a substitution, 3 for a deletion or
an insertion), the most hits win; of equal ones, the last step is a hit or substitution if possible, else an insertion.
sclite's costs also prefer one error more if that saves four substitutions, and may if it saves three; not done here.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

SMALL = 10_000  # cells that are faster without numpy
LARGEST = 50_000_000  # cells: 400 MB
_NEVER = 1 << 60

Rows = Sequence[Sequence[int]] | npt.NDArray[np.int64]


@lru_cache(maxsize=1 << 15)  # one evaluation aligns each pair several times
def edit_path(reference: str, hypothesis: str, errors: int) -> str | None:
    """One letter for each step: C correct, S substitution, D deletion, I insertion.

    Args:
        reference: words with a space between them.
        hypothesis: as `reference`.
        errors: the edit distance in words. It limits the cells to compute.

    Returns:
        None if the texts are too long (`LARGEST` cells; 10,000 words with 5,000 errors are few enough).
    """
    ref, hyp = reference.split(), hypothesis.split()
    suffix = 0
    while suffix < min(len(ref), len(hyp)) and ref[-1 - suffix] == hyp[-1 - suffix]:
        suffix += 1
    ref, hyp = ref[: len(ref) - suffix], hyp[: len(hyp) - suffix]
    surplus = len(hyp) - len(ref)
    deletions, insertions = (errors - surplus) // 2, (errors + surplus) // 2  # at most
    cells = (len(ref) + 1) * (deletions + insertions + 1)
    if cells > LARGEST:
        return None
    rows = (_rows if cells <= SMALL else _numpy_rows)(ref, hyp, deletions, insertions)
    return _backtrace(rows, ref, hyp, deletions) + "C" * suffix


def _rows(ref: list[str], hyp: list[str], deletions: int, insertions: int) -> list[list[int]]:
    """Costs, one row for each number of reference words; column d has `i + d - deletions` hypothesis words.

    An error costs more than any number of substitutions, which cost 1 more.
    """
    error, width = len(ref) + 1, deletions + insertions + 1
    rows = [[error * (d - deletions) if d >= deletions else _NEVER for d in range(width)]]
    for i, word in enumerate(ref, start=1):
        above, row, left = rows[-1], [_NEVER] * width, _NEVER
        for d in range(max(0, deletions - i), min(width, len(hyp) - i + deletions + 1)):
            j = i + d - deletions
            cost = above[d] + (0 if word == hyp[j - 1] else error + 1) if j else _NEVER
            if d + 1 < width:
                cost = min(cost, above[d + 1] + error)
            row[d] = left = min(cost, left + error)
        rows.append(row)
    return rows


def _numpy_rows(ref: list[str], hyp: list[str], deletions: int, insertions: int) -> npt.NDArray[np.int64]:
    """`_rows` for long texts."""
    error, width = len(ref) + 1, deletions + insertions + 1
    numbers = {word: number for number, word in enumerate({*ref, *hyp})}
    padded = np.full(deletions + 1 + max(len(hyp), len(ref)) + insertions + 1, -1)
    padded[deletions + 1 : deletions + 1 + len(hyp)] = [numbers[word] for word in hyp]
    insert = error * np.arange(width, dtype=np.int64)
    rows = np.full((len(ref) + 1, width), _NEVER, np.int64)
    rows[0, deletions:] = error * np.arange(insertions + 1)
    for i, word in enumerate(ref, start=1):
        above, row = rows[i - 1], rows[i]
        np.add(above, np.where(padded[i : i + width] == numbers[word], 0, error + 1), out=row)
        np.minimum(row[:-1], above[1:] + error, out=row[:-1])
        row[:] = np.minimum.accumulate(row - insert) + insert
    return rows


def _backtrace(rows: Rows, ref: list[str], hyp: list[str], deletions: int) -> str:
    error, steps = len(ref) + 1, list[str]()
    i, j = len(ref), len(hyp)
    while i or j:
        d = j - i + deletions
        equal = bool(i and j) and ref[i - 1] == hyp[j - 1]
        if i and j and rows[i][d] == rows[i - 1][d] + (0 if equal else error + 1):
            steps.append("C" if equal else "S")
            i, j = i - 1, j - 1
        elif j and d and rows[i][d] == rows[i][d - 1] + error:
            steps.append("I")
            j -= 1
        else:
            steps.append("D")
            i -= 1
    return "".join(reversed(steps))
