"""References that are probably wrong: several readings of a clip agree with each other and not with its text."""

from collections.abc import Sequence
from itertools import combinations

from finetune.metrics.normalizer import normalize
from finetune.metrics.wer import character_distances


def agreeing_against(references: list[str], readings: Sequence[list[str]], preset: str) -> list[float]:
    """For each clip, how much nearer its readings are to one another than any of them is to the reference.

    The distance of two texts is the edits between their characters over the longer one's length, without spaces (0
    is equal, 1 nothing in common). The result is the smallest distance to the reference minus the largest between
    two readings: above 0 the reference stands alone, 1 is nothing in common with readings that are all equal.

    Args:
        references: text of each clip.
        readings: what two or more recognizers, unlike each other, heard in each clip.
        preset: a name in `NORMALIZERS`.
    """
    texts = [["".join(normalize(text, preset).split()) for text in column] for column in (references, *readings)]
    alone = [_distances(texts[0], reading) for reading in texts[1:]]
    apart = [_distances(*pair) for pair in combinations(texts[1:], 2)]
    return [min(near) - max(far) for near, far in zip(zip(*alone, strict=True), zip(*apart, strict=True), strict=True)]


def _distances(first: list[str], second: list[str]) -> list[float]:
    return [
        edits / max(len(a), len(b), 1)
        for edits, a, b in zip(character_distances(first, second), first, second, strict=True)
    ]
