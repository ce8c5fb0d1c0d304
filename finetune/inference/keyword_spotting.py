"""Finds keywords in the output of the CTC head: where each one fits best, and how well (arXiv 2406.07096)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from finetune.inference.ctc_score import phrase_labels
from finetune.model.ctc import BLANK, is_spelled

LIMIT = 3.0  # nats for each character that a keyword may be less probable than the best labels of its frames
PLACES = 2  # of one keyword in each `SECTION`
SECTION = 500  # frames: 10 s


@dataclass(frozen=True)
class Spot:
    """A place of a keyword.

    Attributes:
        keyword: index of the keyword.
        start, end: its first frame, and the frame after its last one.
        score: log probability of its best path minus that of the best labels of these frames, 0 or less.
    """

    keyword: int
    start: int
    end: int
    score: float


class KeywordSpotter:
    """Finds keywords in windows.

    Attributes:
        keywords: those of which the CTC alphabet has most letters.
        lengths: (K,) their numbers of CTC labels.
    """

    def __init__(self, keywords: Sequence[str]) -> None:
        labels = {keyword: phrase_labels(keyword.split()) for keyword in keywords}
        labels = {keyword: found for keyword, found in labels.items() if is_spelled(keyword) and found}
        self.keywords = [*labels]
        self.lengths = np.array([len(found) for found in labels.values()], np.intp)
        # One state for each label, with a blank between two; the states of all keywords follow one another.
        states = [np.insert(np.array(found), np.arange(1, len(found)), BLANK) for found in labels.values()]
        self._states = np.concatenate([*states, np.zeros(0, np.intp)]).astype(np.intp)
        self._last = 2 * np.cumsum(self.lengths) - np.arange(len(states)) - 2
        self._first = np.zeros(len(self._states), bool)
        self._first[self._last - 2 * (self.lengths - 1)] = True
        skips = np.zeros(len(self._states), bool)  # a blank is optional between different characters
        skips[2:] = (self._states[2:] != BLANK) & (self._states[2:] != self._states[:-2]) & ~self._first[2:]
        self._step = np.where(self._first, -np.inf, 0).astype(np.float32)
        self._skip = np.where(skips & ~self._first, 0, -np.inf).astype(np.float32)

    def spots(self, log_probs: NDArray[np.float32]) -> list[Spot]:
        """The places where keywords can be.

        Args:
            log_probs: (T, 348) log probabilities of the CTC head for the window's real frames.

        Returns:
            At most `PLACES` in each `SECTION` for each keyword, the best first, none worse than `LIMIT`.
        """
        if not self.keywords or not len(log_probs):
            return []
        scores, starts = self._paths(log_probs - log_probs.max(1, keepdims=True))
        return [spot for keyword in range(len(self.keywords)) for spot in self._best(keyword, scores, starts)]

    def _best(self, keyword: int, scores: NDArray[np.float32], starts: NDArray[np.int32]) -> Iterator[Spot]:
        column = scores[:, keyword].copy()
        for _ in range(PLACES * -(-len(column) // SECTION)):
            last = int(column.argmax())
            if column[last] < -LIMIT * self.lengths[keyword]:
                return
            start = int(starts[last, keyword])
            yield Spot(keyword, start, last + 1, float(column[last]))
            column[start : last + 1 + (last - start) // 2] = -np.inf

    def _paths(self, relative: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """The best path of each keyword that ends in each frame, from any start (Viterbi).

        Args:
            relative: (T, 348) log probabilities minus the highest of each frame.

        Returns:
            The score and the first frame of each path, (T, K) both.
        """
        frames, count = len(relative), len(self._states)
        score = np.full(count + 2, -np.inf, np.float32)  # two extra entries before the first state
        start = np.zeros(count + 2, np.int32)
        scores = np.empty((frames, len(self.keywords)), np.float32)
        starts = np.empty((frames, len(self.keywords)), np.int32)
        for frame in range(frames):
            best, origin = score[2:].copy(), start[2:].copy()
            for before, allowed in ((slice(1, -1), self._step), (slice(0, -2), self._skip)):
                better = score[before] + allowed > best
                best[better], origin[better] = score[before][better], start[before][better]
            enter = self._first & (best < 0)
            best[enter], origin[enter] = 0, frame
            score[2:], start[2:] = best + relative[frame, self._states], origin
            scores[frame], starts[frame] = score[2:][self._last], origin[self._last]
        return scores, starts


@lru_cache(maxsize=8)
def spotter(keywords: tuple[str, ...]) -> KeywordSpotter:
    """The spotter of a list; the windows of a call have the same list."""
    return KeywordSpotter(keywords)
