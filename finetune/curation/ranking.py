"""Ranks clips by how much their transcripts would teach: three scores, rare words that count less each time, no copies.

The scores are those of active learning: entropy (uncertainty sampling), disagreement of two hypotheses (query by
committee; both in Settles, "Active Learning Literature Survey", 2009), and the rarity of words.
Each score is replaced by its rank among all clips (0 to 1), and the total is the mean of the three ranks. Clips are
chosen one after another. A chosen clip makes its words less rare for the following ones, and a near copy of a chosen
clip moves to the end.
"""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.curation.near_copies import NearCopies

EXTRA_CHARACTERS, EXTRA_WORDS = 5, 1  # in divisors, so that clips of one word do not have the extreme scores


@dataclass(frozen=True)
class Candidate:
    """A clip to rank.

    Attributes:
        words: of its hypothesis, normalized.
        characters: of its CTC text.
        entropy: of the CTC head, in nats, summed over its frames.
        errors: word errors between two hypotheses.
        digest: hash of its samples; "" if unknown.
    """

    words: tuple[str, ...]
    characters: int
    entropy: float
    errors: int
    digest: str = ""


@dataclass(frozen=True)
class Ranked:
    """The place of a clip.

    Attributes:
        index: number of the candidate.
        score: mean of the three ranks when it was chosen, 0 to 1.
        entropy: nats of the CTC head per character.
        disagreement: word errors between the two hypotheses per word.
        rarity: mean rarity of its words, 1 / (1 + occurrences in the training texts).
        copy_of: the earlier candidate of which it is a near copy.
    """

    index: int
    score: float
    entropy: float
    disagreement: float
    rarity: float
    copy_of: int | None


def rank(candidates: Sequence[Candidate], trained: Mapping[str, int], max_similarity: float) -> list[Ranked]:
    """All candidates, the most useful first, then the near copies.

    Args:
        candidates: the clips.
        trained: occurrences of each word in the training texts.
        max_similarity: see `SuggestOptions`.
    """
    counts = Counter(trained)
    entropy = np.array([item.entropy / (item.characters + EXTRA_CHARACTERS) for item in candidates])
    disagreement = np.array([min(1.0, item.errors / (len(item.words) + EXTRA_WORDS)) for item in candidates])
    rarity = np.array([_rarity(item, counts) for item in candidates])
    others, rare = _ranks(entropy) + _ranks(disagreement), _ranks(rarity)

    def total(index: int) -> float:
        left = _rarity(candidates[index], counts) / rarity[index] if rarity[index] else 1.0
        return float(others[index] + rare[index] * left) / 3

    copies, digests = NearCopies([" ".join(item.words) for item in candidates], max_similarity), dict[str, int]()
    heap = [(-total(index), index) for index in range(len(candidates))]
    heapq.heapify(heap)
    ranked, later = list[Ranked](), list[Ranked]()
    while heap:
        _, index = heapq.heappop(heap)
        item, score = candidates[index], total(index)
        if heap and (-score, index) > heap[0]:  # its words became less rare
            heapq.heappush(heap, (-score, index))
            continue
        original = digests.get(item.digest) if item.digest else None
        original = copies.find(index) if original is None else original
        row = Ranked(
            index=index,
            score=round(score, 4),
            entropy=round(float(entropy[index]), 4),
            disagreement=round(float(disagreement[index]), 4),
            rarity=round(float(rarity[index]), 4),
            copy_of=original,
        )
        (ranked if original is None else later).append(row)
        if original is None:
            copies.add(index)
            digests[item.digest] = index
            counts.update(item.words)
    return ranked + later


def _rarity(item: Candidate, counts: Mapping[str, int]) -> float:
    return sum(1 / (1 + counts.get(word, 0)) for word in item.words) / (len(item.words) + EXTRA_WORDS)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank of each value among all, 0 to 1; equal values have the same."""
    ordered = np.sort(values)
    places = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return places / (2 * len(ordered))
