"""Forced alignment of a long text by Viterbi over CTC, with a star token for audio that is not in the text.

The path goes through the characters of the text, as in CTC segmentation (Kürzinger et al. 2020, arXiv 2007.09127). Two
additions let it disagree with the text. Between two words, and at both ends, a star token accepts any audio (Pratap et
al. 2022, arXiv 2201.12208; 2023, arXiv 2305.13516), at a cost for each frame in which the model detects a character. A
word that is not in the audio is skipped, at a cost for each of its characters. The score of a frame is relative to its
most probable label, so a path that agrees with the model costs nothing.

Memory: the forward pass stores, at the end of each block of frames, where the path of each state was at its start. The
path inside a block is then computed again, between two known states, which are close to each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.curation.posteriors import Posteriors
from finetune.curation.transcript_words import SPACE
from finetune.model.ctc import BLANK

STAR_COST = 2.0  # nats for a frame of audio that is not in the text, times the probability that it has a character
SKIP_COST = 4.0  # nats for each character of a word that is not in the audio
PAUSE_COST = 0.1  # nats for a frame of a pause inside a word; the letters of a word are close to each other
NEAR, UNLIKELY = 10, -1.0  # frames and nats: a character farther away and below does not count for a word's edges
WILD = 0.05  # fraction of STAR_COST where the text has words without labels
SEARCH_WIDTH = 32_768  # characters of the text; a longer text is searched in a window around the best position
BLOCKS = 256  # of frames in a recording; more take more memory in the forward pass, and less inside a block
ORIGIN_BITS = 26  # low bits of a path that hold a state; the bits above them hold the score, in 1/SCALE nats
SCALE = 256
NEVER = -(1 << 60)

_BLANK, _GAP, _WILD_GAP, _LABELS = 0, 1, 2, 3  # columns of the scores


@dataclass(frozen=True)
class WordFrames:
    """Frames of a word, from `start` to the one before `end`, and its score: nats a character, 0 is the best."""

    start: int
    end: int
    score: float


Words = Sequence[Sequence[int]]


@dataclass(frozen=True)
class _Graph:
    """States of a text: each character, and the pause after it. Index 0 is the gap before the first word."""

    labels: NDArray[np.intp]  # (N + 1,) column of each character
    pauses: NDArray[np.intp]  # (N + 1,) column of each pause: blank inside words, the gap after a word
    repeats: NDArray[np.int64]  # (N + 1,) NEVER if a character equals the one before it, else 0
    ends: NDArray[np.intp]  # (W + 1,) index of the last character of each word, and 0
    skip: NDArray[np.int64] | None  # (W + 1,) cost of skipping all words up to this one; None: no word is skipped


def align(
    posteriors: Posteriors, words: Words, wild: Sequence[bool], search_width: int = SEARCH_WIDTH
) -> list[WordFrames | None]:
    """The most probable place of each word; None for a word that is not in the audio.

    Args:
        posteriors: of the recording; they must have a column for each label.
        words: CTC labels of each word, at least one.
        wild: for each gap, before the first word and after each word, whether the text has words without labels there.
        search_width: characters of the text that are searched at a time.
    """
    scores, graph = _scores(posteriors), _graph(posteriors, words, wild, may_skip=True)
    path = _best_path(scores, graph, search_width)
    owners = np.searchsorted(graph.ends, np.arange(len(graph.labels)))  # number of the word, from 1, of each index
    columns = np.where(path % 2, graph.pauses[path // 2], graph.labels[path // 2])
    emitted = scores[np.arange(len(path)), columns].astype(np.float64) + float(np.float16(PAUSE_COST)) * (
        columns == _BLANK
    )
    spoken = path % 2 == 0
    frames, word_of_frame = np.flatnonzero(spoken), owners[path[spoken] // 2]
    totals = np.concatenate([[0.0], np.cumsum(emitted)])
    places: list[WordFrames | None] = [None] * len(words)
    starts = np.flatnonzero(np.diff(word_of_frame, prepend=0))
    for first, last in zip(starts, [*starts[1:], len(frames)], strict=bool(len(starts))):
        word, start, end = int(word_of_frame[first]) - 1, int(frames[first]), int(frames[last - 1]) + 1
        score = float(totals[end] - totals[start]) / len(words[word])
        places[word] = WordFrames(*_without_strays(frames[first:last], emitted[frames[first:last]]), score)
    return places


def _without_strays(frames: NDArray[np.intp], scores: NDArray[np.float64]) -> tuple[int, int]:
    """First frame of a word and the one after its last, without improbable, distant characters at its ends."""
    far, unlikely = np.diff(frames) > NEAR, scores < UNLIKELY
    first, last = 0, len(far)
    while first < last and far[first] and unlikely[first]:
        first += 1
    while first < last and far[last - 1] and unlikely[last]:
        last -= 1
    return int(frames[first]), int(frames[last]) + 1


def path_score(posteriors: Posteriors, words: Words, start: int, end: int) -> float:
    """Score in nats of the best path through all of the words in these frames; very low if they do not fit."""
    part = posteriors.part(start, end)
    graph = _graph(part, words, [False] * (len(words) + 1), may_skip=False)
    front = _Front(graph, 0, len(graph.labels))
    front.pause[0] = 0
    for row in _packed(_scores(part)):
        front.step(row)
    return float(max(front.pause[-1], front.label[-1]) >> ORIGIN_BITS) / SCALE


def _scores(posteriors: Posteriors) -> NDArray[np.float16]:
    """Scores (T, 3 + K) of blank, gap, gap with words without labels, and labels."""
    scores, speech = posteriors.scores, posteriors.speech
    blank = scores[:, posteriors.columns[BLANK]]
    quiet, star = np.maximum(blank, scores[:, posteriors.columns[SPACE]]), np.float16(-STAR_COST) * speech
    columns = [blank - np.float16(PAUSE_COST), np.maximum(quiet, star), np.maximum(quiet, np.float16(WILD) * star)]
    return np.column_stack([*columns, scores])


def _packed(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Scores as they are added to paths."""
    return np.rint(scores.astype(np.float64) * SCALE).astype(np.int64) << ORIGIN_BITS


def _graph(posteriors: Posteriors, words: Words, wild: Sequence[bool], may_skip: bool) -> _Graph:
    lengths = np.array([0, *map(len, words)])
    ends = np.cumsum(lengths)
    columns = np.array([0, *(_LABELS + posteriors.columns[label] for word in words for label in word)], np.intp)
    pauses = np.full(len(columns), _BLANK, np.intp)
    pauses[ends] = np.where(wild, _WILD_GAP, _GAP)
    repeats = np.zeros(len(columns), np.int64)
    repeats[1:][columns[1:] == columns[:-1]] = NEVER
    return _Graph(columns, pauses, repeats, ends, _packed(ends * SKIP_COST) if may_skip else None)


class _Front:
    """The best path to each state with an index from `lo` to `hi`, at one frame.

    A state is 2 * index for a character, and 2 * index + 1 for the pause after it. A path is a number: its score, and
    in the low bits the state in which it was at the last `mark`. So one maximum moves both.
    """

    def __init__(self, graph: _Graph, lo: int, hi: int) -> None:
        self.graph, self.lo = graph, lo
        self.label, self.pause = np.full(hi - lo, NEVER), np.full(hi - lo, NEVER)
        self._view()

    def _view(self) -> None:
        graph, lo, hi = self.graph, self.lo, self.lo + len(self.label)
        self.labels, self.pauses, self.repeats = graph.labels[lo:hi], graph.pauses[lo:hi], graph.repeats[lo + 1 : hi]
        first, last = np.searchsorted(graph.ends, [lo, hi])
        self.ends = graph.ends[first:last] - lo
        self.skip = None if graph.skip is None else graph.skip[first:last]
        self.states = np.arange(2 * lo, 2 * hi, 2)

    def mark(self) -> None:
        """From now on, the origin of a path is its state at this frame."""
        for paths, states in ((self.label, self.states), (self.pause, self.states + 1)):
            paths >>= ORIGIN_BITS
            paths <<= ORIGIN_BITS
            paths += states

    def origins(self) -> tuple[int, NDArray[np.int32], NDArray[np.int32]]:
        """The first index, and the origins of the paths to its character and pause and to those after it."""
        mask = (1 << ORIGIN_BITS) - 1
        return self.lo, (self.label & mask).astype(np.int32), (self.pause & mask).astype(np.int32)

    def move(self, lo: int) -> None:
        """Moves the searched indices on to begin at `lo`."""
        shift, new = lo - self.lo, np.full(lo - self.lo, NEVER)
        self.label, self.pause = np.append(self.label[shift:], new), np.append(self.pause[shift:], new)
        self.lo = lo
        self._view()

    def step(self, scores: NDArray[np.int64]) -> None:
        """Adds a frame with these column scores."""
        label, pause = self.label, self.pause
        enter = np.maximum(label[:-1] + self.repeats, pause[:-1])
        np.maximum(pause, label, out=pause)
        pause += scores[self.pauses]
        np.maximum(label[1:], enter, out=label[1:])
        label += scores[self.labels]
        if self.lo == 0:
            label[0] = NEVER  # the gap before the first word has no character
        if self.skip is not None:  # the paths in a gap go on to the later gaps, without a frame
            pause[self.ends] = np.maximum.accumulate(pause[self.ends] + self.skip) - self.skip


def _best_path(scores: NDArray[np.float16], graph: _Graph, search_width: int) -> NDArray[np.int32]:
    """The state of each frame."""
    total, length = len(scores), len(graph.labels)
    block = -(-total // BLOCKS)
    front = _Front(graph, 0, min(length, search_width))
    front.pause[0] = 0
    marks = []
    for start in range(0, total, block):
        front.mark()
        for row in _packed(scores[start : start + block]):
            front.step(row)
        marks.append(front.origins())
        best = front.lo + int(np.maximum(front.label, front.pause).argmax())
        target = min(best - search_width // 2, length - len(front.label))
        if target > front.lo and start + block < total:
            front.move(target)
    state = _last_state(front)
    path = np.empty(total, np.int32)
    for number in reversed(range(len(marks))):
        before = _origin(marks[number], state)
        part = slice(number * block, (number + 1) * block)
        path[part] = _inside(scores[part], graph, before, state)
        state = before
    return path


def _origin(origins: tuple[int, NDArray[np.int32], NDArray[np.int32]], state: int) -> int:
    lo, of_labels, of_pauses = origins
    return int((of_pauses if state % 2 else of_labels)[state // 2 - lo])


def _last_state(front: _Front) -> int:
    """The state in which the best path ends: the end of a word, after which the rest of the text is skipped."""
    score = np.maximum(front.label, front.pause)[front.ends] + (0 if front.skip is None else front.skip)
    index = int(front.ends[int(score.argmax())])
    return 2 * (front.lo + index) + int(front.pause[index] >= front.label[index])


def _inside(scores: NDArray[np.float16], graph: _Graph, before: int, last: int) -> list[int]:
    """The state of each frame of a block, from the state before its first frame and the state in its last one."""
    front = _Front(graph, before // 2, last // 2 + 1)
    (front.pause if before % 2 else front.label)[0] = 0
    history = []
    for row in _packed(scores):
        front.mark()
        front.step(row)
        history.append(front.origins())
    path, state = list[int](), last
    for origins in reversed(history):
        path.append(state)
        state = _origin(origins, state)
    return path[::-1]
