"""Writes keywords into a text where the CTC head hears them: for a model that cannot use keywords in its prompt.

The method is CTC word spotting (arXiv 2406.07096), with the text of the language model instead of a greedy CTC text: a
keyword replaces the words in its place if the CTC head prefers the new text. Long keywords need less evidence.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from finetune.inference.ctc_score import ANY, CtcScorer, phrase_labels, with_silent_signs
from finetune.inference.keyword_spotting import KeywordSpotter, Spot, spotter
from finetune.inference.segments import join_texts, split_words
from finetune.inference.word_times import align
from finetune.model.ctc import BLANK, to_text

# Chosen on the replay and valid clips of recipes/quickstart.yaml (recipes/RESULTS.md).
BONUS = 2.0  # nats for each character of a keyword above `PLAIN`, or below it, which then must fit so much better
PLAIN = 5
CONTEXT = 2  # words on each side that are scored together with the replaced ones
SLACK = 2.0  # nats that a place may miss by its own frames alone, before its text is scored
TRIED = 24  # texts that are scored at once
APOSTROPHES = str.maketrans("", "", "'’ʼ")
ELIDED, SUFFIX = re.compile(r"\w+'"), re.compile(r"'(?!t$)\w+")  # l' and 's, but not the end of don't
OPENED, CLOSED = re.compile(r"(?<!\w)['‘’]\w"), re.compile(r"\w\W*['’](?!\w)")  # quotation marks
JOINED = re.compile(r"['’ʼ]")
EDGES = re.compile(r"^(\W*)(.*?)(\W*)$", re.DOTALL)


@dataclass(frozen=True)
class _Change:
    """Words `first` to `last` (excluded) of a text that a keyword can replace; none if it is inserted.

    Attributes:
        spot: where the keyword is.
        written: the keyword, with words beside it that the CTC head hears in the frames of the replaced words.
        bonus: nats that the keyword may be less probable than the words; below 0, that it must be more probable.
        gain: estimate by the frames of the spot alone, in nats.
    """

    spot: Spot
    written: str
    first: int
    last: int
    bonus: float
    gain: float


def biased_text(log_probs: NDArray[np.float32], text: str, keywords: tuple[str, ...]) -> str:
    """The text of a window with keywords, see `biased_texts`."""
    return biased_texts(log_probs, [text], keywords)[0]


def biased_texts(log_probs: NDArray[np.float32], texts: Sequence[str], keywords: tuple[str, ...]) -> list[str]:
    """Texts of one window, with keywords in the places of words that fit the audio less well.

    Keywords are written as they are given; punctuation around the replaced words stays. A text that has no frames to
    be aligned with, or is empty, does not change.

    Args:
        log_probs: (T, 348) log probabilities of the CTC head for the window's real frames.
        texts: what the language model wrote.
        keywords: expected words and phrases. Those without a character of the CTC alphabet have no effect.
    """
    found, log_probs = spotter(keywords), with_silent_signs(log_probs)
    spots = found.spots(log_probs) if any(texts) else []
    return [_biased(log_probs, text, found, [*spots]) if text else text for text in texts]


def keyword_bonus(text: str, keywords: tuple[str, ...]) -> float:
    """Nats that a text may be less probable by the CTC head because of its keywords.

    A keyword can be joined to other words by an apostrophe, as in `l'aspirine`. One that is a part of another keyword
    does not count there.
    """
    return max(_bonus_of_words(written.split(), keywords) for written in (text, JOINED.sub(" ", text)))


def _bonus_of_words(words: Sequence[str], keywords: tuple[str, ...]) -> float:
    plain, total = f" {' '.join(map(_plain, words))} ", 0.0
    for keyword, bonus in _bonuses(keywords).items():
        if keyword in plain:
            total += bonus * plain.count(f" {keyword} ")
            plain = plain.replace(f" {keyword} ", " | ")
    return total


@lru_cache(maxsize=8)
def _bonuses(keywords: tuple[str, ...]) -> dict[str, float]:
    """The bonus of each keyword that has one, without punctuation; the longest keyword first."""
    found = spotter(keywords)
    bonuses = zip(found.keywords, (BONUS * (found.lengths - PLAIN)).tolist(), strict=True)
    plain = {" ".join(map(_plain, keyword.split())): bonus for keyword, bonus in bonuses if bonus > 0}
    return {keyword: plain[keyword] for keyword in sorted(plain, key=len, reverse=True)}


def _biased(log_probs: NDArray[np.float32], text: str, found: KeywordSpotter, spots: list[Spot]) -> str:
    while spots:
        window = _Window(log_probs, text, found)
        change = window.best_change(spots)
        if change is None:
            break
        text = window.changed(change)
        spots.remove(change.spot)  # so this ends
    return text


class _Window:
    """A text, aligned with the frames of its window."""

    def __init__(self, log_probs: NDArray[np.float32], text: str, found: KeywordSpotter) -> None:
        self.scorer = CtcScorer(log_probs)
        self.log_probs = self.scorer.log_probs
        self.text, self.found = text, found
        self.spans = split_words(text)
        self.words = [text[start:end] for start, end in self.spans]
        self.unheard = [self.scorer.labels_of(word) == [ANY] for word in self.words]
        aligned = align(self.log_probs, text, self.scorer.labels_of)
        self.frames, self.costs = aligned.frames, None
        if aligned.labels is not None:
            path = self.log_probs[np.arange(len(log_probs)), aligned.labels] - log_probs.max(1)
            self.costs = np.concatenate([[0.0], np.cumsum(path)])
        self.written = {_plain(keyword) for keyword in found.keywords}

    def best_change(self, spots: Sequence[Spot]) -> _Change | None:
        """The change that the CTC head prefers most to the present text; None if it prefers the text."""
        if self.costs is None:
            return None
        changes = sorted((change for spot in spots for change in self._changes(spot)), key=lambda item: -item.gain)
        changes = changes[:TRIED]
        if not changes:
            return None
        regions = [self._region(change) for change in changes]
        spans = [region[2:] for region in regions]
        old = self.scorer.scores([self.words[first:last] for first, last, _, _ in regions], spans)
        texts = [self._words(change, *region[:2]) for change, region in zip(changes, regions, strict=True)]
        new = self.scorer.scores(texts, spans)
        gains = new - old + [change.bonus for change in changes]
        best = int(np.argmax(np.nan_to_num(gains, nan=-np.inf, posinf=-np.inf)))
        return changes[best] if np.isfinite(gains[best]) and gains[best] > 0 else None

    def changed(self, change: _Change) -> str:
        """The text after a change."""
        written = change.written
        if change.first == change.last:
            place = self.spans[change.first][0] if change.first < len(self.spans) else len(self.text)
            return join_texts([self.text[:place].rstrip(), written, self.text[place:]])
        start, end = self.spans[change.first][0], self.spans[change.last - 1][1]
        before, old, after = EDGES.match(self.text[start:end]).groups()  # type: ignore[union-attr]
        if old[:1].isupper() and written.islower() and re.search(r"(^|[.?!]\W*)$", self.text[:start]):
            written = written[0].upper() + written[1:]
        first_marks, _, last_marks = EDGES.match(written).groups()  # type: ignore[union-attr]
        before, after = before.removesuffix(first_marks), after.removeprefix(last_marks)  # not twice
        if not OPENED.search(self.text[:end]):  # the apostrophe of a replaced word such as patients'
            after = after.lstrip("'’ʼ")
        if not CLOSED.search(self.text[start:]):
            before = before.rstrip("'’ʼ")
        return f"{self.text[:start]}{before}{written}{after}{self.text[end:]}"

    def _changes(self, spot: Spot) -> Iterator[_Change]:
        """The ways to write a keyword: for the words that its frames overlap, with or without the outermost ones."""
        assert self.costs is not None
        bonus = self._bonus(int(self.found.lengths[spot.keyword]))
        gain = spot.score - float(self.costs[spot.end] - self.costs[spot.start])
        keyword = self.found.keywords[spot.keyword]
        inside = [i for i, (start, end) in enumerate(self.frames) if min(end, spot.end) > max(start, spot.start)]
        if not inside:
            place = sum(end <= spot.start for _, end in self.frames)
            if gain > -SLACK and not any(self.unheard[max(0, place - 1) : place + 1]):
                yield _Change(spot, keyword, place, place, min(0.0, bonus), gain)
            return
        first, last = inside[0], inside[-1] + 1
        for start, end in {(a, b) for a in (first, first + 1) for b in (last, last - 1) if a < b}:
            if any(self.unheard[start:end]):
                continue
            old = _core(" ".join(self.words[start:end]))
            present = self._present(keyword, old)
            more = bonus - (self._bonus(present) if present else 0.0)
            if _plain(old) != _plain(keyword) and gain + bonus > -SLACK:
                left, right = self._heard_beside(spot, start, end)
                beside = any(self.unheard[max(0, start - 1) : end + 1])
                around = _between(left, keyword, right)
                lost = self.written & (_phrases(self.words[start:end]) - _phrases(around.split()) - {_plain(old)})
                for text in [keyword] if lost or around == keyword else [keyword, around]:
                    if beside and set(old.lower().split()) <= set(text.lower().split()):
                        continue  # it replaces nothing, and what it adds can be the sound of the word beside it
                    yield _Change(spot, text, start, end, more, gain + bonus)

    def _present(self, keyword: str, old: str) -> int:
        """Characters for which a keyword gets no bonus, because the words that it replaces have them already.

        These are another keyword, or words with the keyword as a part, such as `stents` for `stent`.
        """
        labels, written = phrase_labels(keyword.split()), phrase_labels(old.split())
        parts = (written[place : place + len(labels)] for place in range(len(written) - len(labels) + 1))
        if labels in parts:
            return len(labels)
        return len(written) if _plain(old) in self.written else 0

    def _heard_beside(self, spot: Spot, start: int, end: int) -> tuple[str, str]:
        """What the CTC head hears before and after a keyword, in the frames of the words that it replaces.

        Args:
            start, end: first and last (excluded) of these words.
        """
        first, last = self.frames[start][0], self.frames[end - 1][1]
        left, right = self._heard(first, spot.start), self._heard(spot.end, last)
        if left and _letter(self._heard(0, first)[-1:]):  # the end of a word of which the start stays in the text
            _, space, left = left.partition(" ")
            left = space + left
        if right and _letter(self._heard(last, len(self.log_probs))[:1]):
            right, space, _ = right.rpartition(" ")
            right += space
        return left, right

    def _heard(self, start: int, end: int) -> str:
        """The greedy CTC text of some frames, with the spaces at its ends."""
        labels = (int(label) for label, _ in groupby(self.log_probs[start:end].argmax(1)))
        return to_text([label for label in labels if label != BLANK])

    @staticmethod
    def _bonus(length: int) -> float:
        return BONUS * (length - PLAIN)

    def _words(self, change: _Change, first: int, last: int) -> list[str]:
        """Words `first` to `last` (excluded) of the present text after a change."""
        return [*self.words[first : change.first], *change.written.split(), *self.words[change.last : last]]

    def _region(self, change: _Change) -> tuple[int, int, int, int]:
        """The words with which a change is scored, and their frames: first and last (excluded) of both."""
        first, last = max(0, change.first - CONTEXT), min(len(self.words), change.last + CONTEXT)
        start = 0 if first == 0 else (self.frames[first - 1][1] + self.frames[first][0]) // 2
        end = len(self.log_probs) if last == len(self.words) else (self.frames[last - 1][1] + self.frames[last][0]) // 2
        return first, last, min(start, change.spot.start), max(end, change.spot.end)


def _between(left: str, keyword: str, right: str) -> str:
    """A keyword between greedy CTC texts, of which whole words stay, and what an apostrophe joins: l'aspirine's."""
    before, _, elided = left.rpartition(" ")
    suffix, _, after = right.partition(" ")
    before, elided = (before, elided) if not elided or ELIDED.fullmatch(elided) else ("", "")
    after, suffix = (after, suffix) if not suffix or SUFFIX.fullmatch(suffix) else ("", "")
    return join_texts([before.strip(), f"{elided}{keyword}{suffix}", after.strip()])


def _phrases(words: Sequence[str]) -> set[str]:
    """All phrases of some words that follow one another, without punctuation."""
    ends = range(1, len(words) + 1)
    return {_plain(" ".join(words[start:end])) for end in ends for start in range(end)}


def _letter(char: str) -> bool:
    return bool(char) and not char.isspace()


def _plain(text: str) -> str:
    """Words in lower case, without apostrophes and the punctuation around them: whether they are the same keyword."""
    return _core(text).lower().translate(APOSTROPHES)


def _core(text: str) -> str:
    """Words without the punctuation around them."""
    return EDGES.match(text).group(2)  # type: ignore[union-attr]
