"""Cuts the aligned words of a recording into clips, and sets aside what the audio does not confirm."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetune.core.options import SegmentOptions
from finetune.curation.aligned_words import AlignedWord, next_starts, previous_ends, surely_absent, without_absent
from finetune.curation.clip_edges import AFTER, BEFORE, EXTRA_SPEECH, TAIL, clip_end, clip_start, speech_frames
from finetune.curation.posteriors import Posteriors
from finetune.data.features import FRAME_SECONDS

MIN_EVIDENCE = 4.0  # characters of a clip times its score; less agrees with any audio by chance
SHORT_COST, PAUSE_COST, LONG_PAUSE = 1.0, 1.0, 1.0  # for each second below the shortest length, of a pause above 1 s
CUT_COST, CUT_PAUSE, SENTENCE_GAIN = 0.2, 0.1, 0.5  # a cut costs CUT_COST / (pause + CUT_PAUSE), less after a sentence
SENTENCE_END = (".", "!", "?", "。", "！", "？", "…")

ABSENT, DOUBTFUL, SHORT, LONG = "not found in the audio", "low score", "too short for a clip", "too long for a clip"
UNALIGNED, NO_TEXT = "no character that the CTC head knows, beside words that were not found", "speech without text"


@dataclass(frozen=True)
class Clip:
    """Words, by number, and their audio in seconds. `score` is 0 to 1: 1 where the model is sure of the same text."""

    start: float
    end: float
    words: tuple[int, ...]
    score: float


@dataclass(frozen=True)
class SetAside:
    """Words that are in no clip, or speech without words. The times are None where they are not known."""

    reason: str
    words: tuple[int, ...]
    start: float | None = None
    end: float | None = None
    score: float | None = None


class ClipCutter:
    """The words, gaps and clips of one recording; `cut` does the work."""

    def __init__(self, posteriors: Posteriors, words: Sequence[AlignedWord], options: SegmentOptions) -> None:
        self.posteriors, self.options = posteriors, options
        self.words = without_absent(posteriors, words)
        self.speech = speech_frames(posteriors.speech)
        self.total_speech = np.concatenate([[0.0], np.cumsum(self.speech)])
        self.before, self.after = previous_ends(self.words), next_starts(self.words, len(self.speech))
        self.clips, self.aside = list[Clip](), list[SetAside]()

    def cut(self) -> tuple[list[Clip], list[SetAside]]:
        """The clips in order, and what was set aside, in the order of the text; each word is in exactly one of them."""
        for piece in self._pieces():
            for words in self._split(piece):
                self._add_clip(words)
        placed = {word for clip in self.clips for word in clip.words} | {w for item in self.aside for w in item.words}
        missing = [number for number in range(len(self.words)) if number not in placed]
        self.aside += [SetAside(UNALIGNED, tuple(run)) for run in runs(missing)]
        starts = [word.place.start for word in self.words if word.place]
        with_place = [number for number, word in enumerate(self.words) if word.place]

        def order(item: SetAside) -> tuple[int, float]:
            """By word; speech without text comes after the word before it."""
            start = item.start or 0.0
            place = bisect_left(starts, start / FRAME_SECONDS) - 1
            return (item.words[0] if item.words else with_place[place] if place >= 0 else -1), start

        return self.clips, sorted(self.aside, key=order)

    # Pieces: words without anything doubtful between them

    def _pieces(self) -> list[list[int]]:
        """Runs of words that can be in one clip. The words and the speech between the runs are set aside."""
        pieces, piece = list[list[int]](), list[int]()
        placed = [number for number, word in enumerate(self.words) if word.place is not None]
        for left, right in zip([-1, *placed], [*placed, len(self.words)], strict=True):
            joins = self._joins(left, right)
            if joins and self._is_sure(left) and self._is_sure(right):
                piece += [n for n in range(left + 1, right) if not self.words[n].labels]
            else:
                if piece:
                    pieces.append(piece)
                piece = []
            if right < len(self.words):
                if self._is_sure(right):
                    piece.append(right)
                else:
                    start, end = self._edges(right, right)
                    self.aside.append(SetAside(DOUBTFUL, (right,), start, end, self._score((right,))))
        return pieces

    def _is_sure(self, number: int) -> bool:
        if not 0 <= number < len(self.words):
            return False
        place = self.words[number].place
        return place is not None and math.exp(place.score) >= self.options.min_score

    def _joins(self, left: int, right: int) -> bool:
        """Whether nothing between two found words keeps them apart. Sets aside what is between them.

        `left` is -1 before the first word, and `right` is the number of words after the last one.
        """
        start, end = self._gap(left, right)
        between = range(left + 1, right)
        absent = [number for number in between if self.words[number].labels]
        extra = float(self.total_speech[end] - self.total_speech[start])
        sound = self._sound(start, end) if extra > EXTRA_SPEECH else None
        for run in runs(absent):
            self.aside.append(SetAside(ABSENT, tuple(run), *(sound or ())))
        if sound and not absent and not len(between):
            self.aside.append(SetAside(NO_TEXT, (), *sound))
        if absent and (left < 0 or right == len(self.words)):
            return False
        words = self.words
        if absent and not surely_absent(self.posteriors, words[left], [words[n] for n in absent], words[right]):
            return False
        return sound is None or len(between) > len(absent)  # words without labels explain any speech

    def _gap(self, left: int, right: int) -> tuple[int, int]:
        """First frame after a word, and first frame of the next one."""
        before = self.words[left].place if left >= 0 else None
        after = self.words[right].place if right < len(self.words) else None
        return before.end if before else 0, after.start if after else len(self.posteriors.speech)

    def _sound(self, start: int, end: int) -> tuple[float, float]:
        """Seconds from the first to the last probable character in these frames."""
        frames = start + np.flatnonzero(self.speech[start:end])
        return float(frames[0]) * FRAME_SECONDS, float(frames[-1] + 1) * FRAME_SECONDS

    # Clips

    def _split(self, piece: list[int]) -> list[list[int]]:
        """The cheapest split of a piece into clips, by dynamic programming over the possible cuts."""
        places = [self._place(number) for number in piece]
        cuts = [k for k in range(1, len(piece)) if self.words[piece[k]].labels and self.words[piece[k - 1]].labels]
        stops = [0, *cuts, len(piece)]
        pauses = [0.0, *(self._pause(piece[k - 1], piece[k]) for k in cuts), math.inf]
        long_pauses = np.cumsum([max(0.0, pause - LONG_PAUSE) for pause in pauses[:-1]])
        best, back = [0.0, *([math.inf] * (len(stops) - 1))], [0] * len(stops)
        for j in range(1, len(stops)):
            end = places[stops[j] - 1][1]
            for i in range(j - 1, -1, -1):
                seconds = (end - places[stops[i]][0] + AFTER + BEFORE) * FRAME_SECONDS + 2 * self.options.padding
                if seconds > self.options.max_duration and i < j - 1:
                    break
                cost = best[i] + self._cut_cost(piece[stops[j] - 1], pauses[j])
                cost += SHORT_COST * max(0.0, self.options.min_duration - seconds)
                cost += PAUSE_COST * float(long_pauses[j - 1] - long_pauses[i])
                if cost < best[j]:
                    best[j], back[j] = cost, i
        clips, j = list[list[int]](), len(stops) - 1
        while j:
            clips.append(piece[stops[back[j]] : stops[j]])
            j = back[j]
        return clips[::-1]

    def _cut_cost(self, number: int, pause: float) -> float:
        ends_sentence = self.words[number].text.rstrip("\"'”’»)").endswith(SENTENCE_END)
        return CUT_COST / (pause + CUT_PAUSE) - SENTENCE_GAIN * ends_sentence

    def _pause(self, left: int, right: int) -> float:
        start, end = self._gap(left, right)
        return max(0.0, (end - start - TAIL) * FRAME_SECONDS)

    def _place(self, number: int) -> tuple[int, int]:
        """Frames of a word; those of the gap for a word without labels."""
        place = self.words[number].place
        return (place.start, place.end) if place else (self.before[number], self.after[number])

    def _add_clip(self, words: list[int]) -> None:
        start, end = self._edges(words[0], words[-1])
        clip = Clip(start, end, tuple(words), self._score(words))
        characters = sum(len(self.words[number].labels) for number in words)
        seconds = end - start
        reason = (
            (SHORT if seconds < self.options.shortest else "")
            or (LONG if seconds > self.options.max_duration else "")
            or (DOUBTFUL if characters * clip.score < MIN_EVIDENCE else "")
        )
        if reason:
            self.aside.append(SetAside(reason, clip.words, start, end, clip.score))
        else:
            self.clips.append(clip)

    def _score(self, words: Sequence[int]) -> float:
        """Geometric mean over the characters, times the share of words that have labels."""
        aligned = [self.words[number] for number in words]
        places = [(word.place, len(word.labels)) for word in aligned if word.place]
        total = sum(place.score * length for place, length in places)
        share = len(places) / len(words)
        return round(min(1.0, share * math.exp(total / sum(length for _, length in places))), 4)

    def _edges(self, first: int, last: int) -> tuple[float, float]:
        """Seconds where the audio of these words starts and ends."""
        start, end, padding = self.words[first].place, self.words[last].place, self.options.padding
        assert start and end  # a clip begins and ends with a word that has labels
        return (
            clip_start(self.posteriors, start, self.before[first], padding),
            clip_end(self.posteriors, end, self.after[last], padding),
        )


def runs(numbers: Sequence[int]) -> list[list[int]]:
    """Splits ascending numbers into runs without a gap."""
    result = list[list[int]]()
    for number in numbers:
        if result and result[-1][-1] == number - 1:
            result[-1].append(number)
        else:
            result.append([number])
    return result
