"""Divides one corpus into train, valid and test, so that the scores are of other speakers or other sentences."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from finetune.core.wording import count, verb
from finetune.data.kept_rows import cached_status, file_key
from finetune.data.leak_text import comparison_key
from finetune.data.leaks import MIN_OVERLAP
from finetune.data.manifest import Utterance
from finetune.data.splits import SPLIT_COLUMNS, stated_split

SHARES = {"test": 0.1, "valid": 0.1}  # of the audio; train has the rest
LARGEST = 0.2  # of the audio; a larger group trains, unless three splits need it
LEAST_SPEAKERS = 10  # with fewer, a split would have one or two speakers


@dataclass(frozen=True)
class NewSplits:
    """Split of each utterance, in their order, what no two splits share (`speaker` or `text`), and how many there are.

    At least three different ones are needed for three splits. `speakers` is the number of speakers, `unnamed` that of
    rows without one. `column` states the splits, or is "". `added` are those that it lacks: parts of its train.
    `repeated` is the number of clips of valid and test whose text is also in train.
    """

    names: list[str]
    disjoint: str
    different: int
    speakers: int
    unnamed: int
    column: str = ""
    added: tuple[str, ...] = ()
    repeated: int = 0

    def note(self) -> str:
        """What no two splits share, and why speakers do, if they do."""
        if self.disjoint == "speaker":
            texts = f", but the text of {count(self.repeated, 'clip')} of valid or test is also in train"
            return f"no speaker is in two of them{texts if self.repeated else ''}"
        reason = f"{count(self.speakers, 'speaker')} {verb(self.speakers, 'is', 'are')} fewer than {LEAST_SPEAKERS}"
        if self.unnamed:
            reason = f"{count(self.unnamed, 'clip')} {verb(self.unnamed, 'has', 'have')} no speaker (column speaker)"
        return f"no text is in two of them, but speakers can be: {reason}"


def new_splits(utterances: Sequence[Utterance]) -> NewSplits:
    """The splits that a column states for each utterance, or those of `divide`.

    If the column states no valid or no test, it is divided from its train.
    """
    for column in dict.fromkeys(name for item in utterances for name in item.extra if name.lower() in SPLIT_COLUMNS):
        names = [stated_split(item.extra.get(column, "")) for item in utterances]
        if "" in names or "train" not in names or len({*names}) < 2:
            continue
        train = [item for item, name in zip(utterances, names, strict=True) if name == "train"]
        missing = {split: share for split, share in SHARES.items() if split not in names}
        parts = divide(train, missing)
        of_train = iter(parts.names)
        names = [next(of_train) if name == "train" else name for name in names]
        return NewSplits(names, parts.disjoint, parts.different, parts.speakers, parts.unnamed, column, tuple(missing))
    return divide(utterances)


def divide(utterances: Sequence[Utterance], shares: Mapping[str, float] = SHARES) -> NewSplits:
    """Assigns whole groups to splits, in the order of the hash of the group: the same corpus gives the same splits.

    Groups with more than `LARGEST` of the audio come last, so that they train.

    A group is a speaker if there are at least `LEAST_SPEAKERS`, else a text without case and punctuation. Groups with a
    clip of the same samples, or with segments of one recording that overlap, are one group.

    Args:
        utterances: the utterances.
        shares: of each split but train, the share of the audio.
    """
    speakers, unnamed = {item.speaker for item in utterances} - {""}, sum(not item.speaker for item in utterances)
    disjoint = "speaker" if len(speakers) >= LEAST_SPEAKERS and not unnamed else "text"
    keys = _joined([_key(item, disjoint) for item in utterances], utterances)
    seconds = dict.fromkeys(keys, 0.0)
    for key, item in zip(keys, utterances, strict=True):
        seconds[key] += item.duration
    total, names = sum(seconds.values()), dict[bytes, str]()
    order = iter(sorted(seconds, key=lambda key: (seconds[key] > LARGEST * total, key)))
    for left, (split, share) in zip(range(len(shares), 0, -1), shares.items(), strict=True):  # that also need a group
        filled = 0.0
        while filled < share * total and len(names) < len(seconds) - left:
            key = next(order)
            names[key], filled = split, filled + seconds[key]
    split_of = [names.get(key, "train") for key in keys]
    texts = [comparison_key(item.text) for item in utterances]
    trained = {text for text, split in zip(texts, split_of, strict=True) if split == "train" and text}
    repeated = sum(split != "train" and text in trained for text, split in zip(texts, split_of, strict=True))
    return NewSplits(split_of, disjoint, len(seconds), len(speakers), unnamed, repeated=repeated)


def _key(item: Utterance, disjoint: str) -> bytes:
    text = item.speaker if disjoint == "speaker" else comparison_key(item.text)
    return hashlib.sha256(text.encode()).digest()[:8]


def _joined(keys: list[bytes], utterances: Sequence[Utterance]) -> list[bytes]:
    """The group of each utterance, where groups with the same audio are the first of them."""
    parents = dict[bytes, bytes]()

    def first(key: bytes) -> bytes:
        while key in parents:
            key = parents[key]
        return key

    for one, other in chain(_copies(utterances), _overlaps(utterances)):
        low, high = sorted((first(keys[one]), first(keys[other])))
        if low != high:
            parents[high] = low
    return [first(key) for key in keys]


def _copies(utterances: Sequence[Utterance]) -> Iterator[tuple[int, int]]:
    """Pairs of utterances with the same samples."""
    owners = dict[str, int]()
    for number, item in enumerate(utterances):
        if item.audio_digest:
            yield owners.setdefault(item.audio_digest, number), number


def _overlaps(utterances: Sequence[Utterance]) -> Iterator[tuple[int, int]]:
    """Pairs of segments of one recording with common audio, which `find_leaks` refuses in two splits."""
    files, status_of = dict[str, list[int]](), cached_status()
    for number, item in enumerate(utterances):
        files.setdefault(file_key(item.audio_filepath, status_of(item.audio_filepath)), []).append(number)
    for numbers in files.values():
        open_ones = dict[tuple[float, float, int | None], int]()  # by their times, so that equal ones are kept once
        for number in sorted(numbers, key=lambda number: utterances[number].offset):
            item = utterances[number]
            open_ones = {key: other for key, other in open_ones.items() if key[0] + key[1] > item.offset}
            for other in open_ones.values():
                if _overlap(utterances[other], item):
                    yield other, number
            open_ones.setdefault((item.offset, item.duration, item.channel), number)


def _overlap(one: Utterance, other: Utterance) -> bool:
    """Whether two segments of a file overlap as in `find_leaks`; `other` does not start before `one`."""
    if None not in (one.channel, other.channel) and one.channel != other.channel:
        return False
    seconds = min(one.offset + one.duration, other.offset + other.duration) - other.offset
    return seconds > min(MIN_OVERLAP, one.duration / 2, other.duration / 2)
