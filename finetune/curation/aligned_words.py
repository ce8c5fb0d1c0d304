"""Words with their places in a recording, and tests of whether a word is in the audio at all."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from finetune.curation.posteriors import Posteriors
from finetune.curation.star_alignment import WordFrames, path_score

# Measured with scripts/bench_segment.py. In nats for each character of a word:
SURELY_ABSENT = 7.5  # a word that makes its neighbours less probable by this much is certainly not between them
DOUBTFUL_SCORE, ABSENT_GAIN = -1.6, 1.5  # a word with a lower score is absent if silence or noise explains more
MAX_FRAMES = 500  # on each side of a word; the tests look no further


@dataclass(frozen=True)
class AlignedWord:
    """A word of the transcript and its place; None if it was not found, or if it has no labels."""

    text: str
    labels: tuple[int, ...]
    place: WordFrames | None


def without_absent(posteriors: Posteriors, words: Sequence[AlignedWord]) -> list[AlignedWord]:
    """The words; those that have a low score, and are less probable at their place than no word at all, have no place.

    The alignment puts a word into silence or noise if that costs less than to skip it.
    """
    starts = next_starts(words, len(posteriors.speech))
    checked, end = list[AlignedWord](), 0
    for word, start in zip(words, starts, strict=True):
        place = word.place
        if place and place.score < DOUBTFUL_SCORE:
            first, last = max(end, place.start - MAX_FRAMES), min(start, place.end + MAX_FRAMES)
            gain = path_score(posteriors, [], first, last) - path_score(posteriors, [word.labels], first, last)
            if gain >= ABSENT_GAIN * len(word.labels):
                word, place = replace(word, place=None), None
        end = place.end if place else end
        checked.append(word)
    return checked


def surely_absent(posteriors: Posteriors, left: AlignedWord, absent: Sequence[AlignedWord], right: AlignedWord) -> bool:
    """Whether two neighbours are much more probable without the words that the transcript has between them."""
    first, last = left.place, right.place
    if first is None or last is None or last.end - first.start > MAX_FRAMES:
        return False
    without = path_score(posteriors, [left.labels, right.labels], first.start, last.end)
    words = [left.labels, *(word.labels for word in absent), right.labels]
    complete = path_score(posteriors, words, first.start, last.end)
    return without - complete >= SURELY_ABSENT * sum(len(word.labels) for word in absent)


def next_starts(words: Sequence[AlignedWord], total: int) -> list[int]:
    """For each word, the first frame of the next word with a place; `total` if there is none."""
    starts, following = list[int](), total
    for word in reversed(words):
        starts.append(following)
        following = word.place.start if word.place else following
    return starts[::-1]


def previous_ends(words: Sequence[AlignedWord]) -> list[int]:
    """For each word, the frame after the last word before it that has a place; 0 if there is none."""
    ends, before = list[int](), 0
    for word in words:
        ends.append(before)
        before = word.place.end if word.place else before
    return ends
