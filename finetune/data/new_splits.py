"""Divides one corpus into train, valid and test, so that the scores are of other speakers or other sentences."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.data.leak_text import comparison_key
from finetune.data.manifest import Utterance

SHARES = {"test": 0.1, "valid": 0.1}  # of the audio; train has the rest
LEAST_SPEAKERS = 10  # with fewer, a split would have one or two speakers


@dataclass(frozen=True)
class NewSplits:
    """Split of each utterance, in their order, what no two splits share (`speaker` or `text`), and how many there are.

    At least three different ones are needed for three splits.
    """

    names: list[str]
    disjoint: str
    different: int


def divide(utterances: Sequence[Utterance]) -> NewSplits:
    """Assigns whole groups to splits, in the order of the hash of the group: the same corpus gives the same splits.

    A group is a speaker if there are at least `LEAST_SPEAKERS`, else a text without case and punctuation. Groups with a
    clip of the same samples are one group.
    """
    speakers = {item.speaker for item in utterances}
    disjoint = "speaker" if len(speakers) >= LEAST_SPEAKERS and "" not in speakers else "text"
    keys = _joined([_key(item, disjoint) for item in utterances], utterances)
    seconds = dict.fromkeys(keys, 0.0)
    for key, item in zip(keys, utterances, strict=True):
        seconds[key] += item.duration
    total, names, order = sum(seconds.values()), dict[bytes, str](), iter(sorted(seconds))
    for left, (split, share) in zip((2, 1), SHARES.items(), strict=True):  # splits that also need a group
        filled = 0.0
        while filled < share * total and len(names) < len(seconds) - left:
            key = next(order)
            names[key], filled = split, filled + seconds[key]
    return NewSplits([names.get(key, "train") for key in keys], disjoint, len(seconds))


def _key(item: Utterance, disjoint: str) -> bytes:
    text = item.speaker if disjoint == "speaker" else comparison_key(item.text)
    return hashlib.sha256(text.encode()).digest()[:8]


def _joined(keys: list[bytes], utterances: Sequence[Utterance]) -> list[bytes]:
    """The group of each utterance, where groups with the same audio are the first of them."""
    parents, owners = dict[bytes, bytes](), dict[str, bytes]()

    def first(key: bytes) -> bytes:
        while key in parents:
            key = parents[key]
        return key

    for key, item in zip(keys, utterances, strict=True):
        if item.audio_digest:
            one, other = sorted((first(key), first(owners.setdefault(item.audio_digest, key))))
            if one != other:
                parents[other] = one
    return [first(key) for key in keys]
