"""Finds references that are probably wrong: several hypotheses agree with each other but not with the reference."""

from collections.abc import Sequence
from itertools import combinations

from finetune.metrics.normalizer import normalize
from finetune.metrics.wer import character_distances


def suspicion_scores(references: list[str], systems: Sequence[list[str]], preset: str) -> list[float]:
    """Scores each utterance: the closer the hypotheses are to each other than to the reference, the higher.

    The distance of two texts is the number of character edits, without spaces, divided by the length of the longer
    text (0: equal, 1: nothing in common). The score is the smallest distance to the reference minus the largest
    distance between two hypotheses. Above 0, the reference disagrees with all systems; 1 means that the hypotheses
    are equal and have nothing in common with the reference.

    Args:
        references: text of each utterance.
        systems: hypotheses of two or more different systems, each in the order of the references.
        preset: a name in `NORMALIZERS`.
    """
    texts = [["".join(normalize(text, preset).split()) for text in column] for column in (references, *systems)]
    to_reference = zip(*(_distances(texts[0], column) for column in texts[1:]), strict=True)
    between_hypotheses = zip(*(_distances(*pair) for pair in combinations(texts[1:], 2)), strict=True)
    return [
        min(reference_distances) - max(pair_distances)
        for reference_distances, pair_distances in zip(to_reference, between_hypotheses, strict=True)
    ]


def _distances(first: list[str], second: list[str]) -> list[float]:
    return [
        edits / max(len(a), len(b), 1)
        for edits, a, b in zip(character_distances(first, second), first, second, strict=True)
    ]
