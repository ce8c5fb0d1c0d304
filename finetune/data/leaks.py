"""Finds leaks: audio, sentences and speakers of an evaluation split that are also in the training data."""

import math
import os
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable
from functools import cache
from itertools import pairwise

from finetune.data.manifest import Utterance
from finetune.data.problems import Problem
from finetune.data.scripts import is_unspaced

MIN_OVERLAP = 0.5  # seconds; shorter overlaps of two segments are padding, unless half of the shorter segment
SHORT_SENTENCE = 4  # words; a sentence with fewer words is often spoken again (commands, digits, greetings)
CHARACTERS_PER_WORD = 2  # of a script without spaces
REFUSED = ("audio", "overlapping audio")  # kinds that stop a run; the others are warnings


def find_leaks(train: Iterable[Utterance], scored: Iterable[Utterance], split: str = "train") -> list[Problem]:
    """Finds what `scored` (valid, test or canary) has in common with `train`.

    Kinds, each followed by " also in SPLIT":
        "audio": the same samples, whatever the file is called and whatever the transcript is.
        "overlapping audio": segments of the same file and channel overlap by more than `MIN_OVERLAP` seconds, or by
            more than half of the shorter segment.
        "sentence", "short sentence": another recording of the same sentence, compared without case, width and
            punctuation. A short sentence has fewer than `SHORT_SENTENCE` words.
        "speaker": one problem for each speaker.

    Args:
        train: utterances of a training split.
        scored: utterances of a split that is scored.
        split: name of the split `train`, for the kinds and the details.
    """
    train = list(train)
    sentences = {_comparison_key(item.text): item for item in train}
    digests = {item.audio_digest: item for item in train if item.audio_digest}
    segments, speakers = _Segments(train), {item.speaker: item for item in train}
    problems, reported = list[Problem](), set[str]()

    def add(kind: str, item: Utterance, detail: str) -> None:
        problems.append(Problem(f"{kind} also in {split}", item.id, item.audio_filepath, detail))

    for item in scored:
        key = _comparison_key(item.text)
        if match := digests.get(item.audio_digest):
            transcripts = "the same transcript" if _comparison_key(match.text) == key else f"there {match.text[:60]!r}"
            add("audio", item, f"same samples as {match.id} ({match.audio_filepath}), {transcripts}")
        elif overlapping := segments.find(item):
            match, seconds = overlapping
            add("overlapping audio", item, f"{seconds:.2f} s are also in {match.id}")
        elif key and (match := sentences.get(key)):
            short = num_words(key) < SHORT_SENTENCE
            add("short sentence" if short else "sentence", item, f"{match.id}: {match.text[:80]!r}")
        if item.speaker and item.speaker not in reported and (match := speakers.get(item.speaker)):
            reported.add(item.speaker)
            add("speaker", item, f"{item.speaker!r}, as in {match.id}")
    return problems


def is_refused(leak: Problem) -> bool:
    """Whether a leak stops the run."""
    return leak.kind.partition(" also in ")[0] in REFUSED


class _Segments:
    """The segments of utterances by file, sorted by time."""

    def __init__(self, utterances: Iterable[Utterance]) -> None:
        by_file: dict[tuple[int, int] | str, list[Utterance]] = {}
        for item in utterances:
            by_file.setdefault(_file_key(item.audio_filepath), []).append(item)
        self.by_file = {path: sorted(items, key=lambda item: item.offset) for path, items in by_file.items()}
        self.starts = {path: [item.offset for item in items] for path, items in self.by_file.items()}
        self.longest = {path: max(item.duration for item in items) for path, items in self.by_file.items()}

    def find(self, item: Utterance) -> tuple[Utterance, float] | None:
        """A segment that overlaps `item`, and the seconds of the overlap."""
        path = _file_key(item.audio_filepath)
        if path not in self.by_file:
            return None
        end, starts = item.offset + item.duration, self.starts[path]
        first, last = bisect_left(starts, item.offset - self.longest[path]), bisect_left(starts, end)
        for other in self.by_file[path][first:last]:
            seconds = min(end, other.offset + other.duration) - max(item.offset, other.offset)
            shorter = min(item.duration, other.duration)
            if seconds > min(MIN_OVERLAP, shorter / 2) and _share_a_channel(item, other):
                return other, seconds
        return None


def _share_a_channel(first: Utterance, second: Utterance) -> bool:
    """No channel is the average of all channels, and contains each of them."""
    return None in (first.channel, second.channel) or first.channel == second.channel


@cache
def _file_key(path: str) -> tuple[int, int] | str:
    """One key for a file and all links to it."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return path
    return status.st_dev, status.st_ino


def num_words(text: str) -> int:
    """Words of a text; in scripts without spaces, `CHARACTERS_PER_WORD` characters count as one."""
    unspaced = sum(map(is_unspaced, text))
    return max(len(text.split()), math.ceil(unspaced / CHARACTERS_PER_WORD))


def _comparison_key(text: str) -> str:
    """The text in one form for all widths, cases, punctuation and spacing."""
    text = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(" " if unicodedata.category(char)[0] in "PSZ" else char for char in text).split()
    joined = words[:1]
    for before, word in pairwise(words):
        joined += [word] if is_unspaced(before[-1]) or is_unspaced(word[0]) else [" ", word]
    return "".join(joined)
