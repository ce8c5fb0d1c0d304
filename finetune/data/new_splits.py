"""Divides one corpus into train, valid and test, so that the scores are of other speakers or other sentences."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.data.manifest import Utterance

SHARES = {"test": 0.1, "valid": 0.1}  # of the audio; train has the rest
LEAST_SPEAKERS = 10  # with fewer, a split would have one or two speakers


@dataclass(frozen=True)
class NewSplits:
    """Split of each utterance, in their order, and what no two splits share: `speaker` or `text`."""

    names: list[str]
    disjoint: str


def divide(utterances: Sequence[Utterance]) -> NewSplits:
    """Assigns whole groups to splits, in the order of the hash of the group: the same corpus gives the same splits.

    A group is a speaker if there are at least `LEAST_SPEAKERS`, else a text. Memory grows by the groups.
    """
    speakers = {item.speaker for item in utterances}
    disjoint = "speaker" if len(speakers) >= LEAST_SPEAKERS and "" not in speakers else "text"
    keys = [_key(item, disjoint) for item in utterances]
    seconds = dict.fromkeys(keys, 0.0)
    for key, item in zip(keys, utterances, strict=True):
        seconds[key] += item.duration
    total, names, order = sum(seconds.values()), dict[bytes, str](), iter(sorted(seconds))
    for split, share in SHARES.items():
        filled = 0.0
        while filled < share * total and len(names) < len(seconds) - 1:
            key = next(order)
            names[key], filled = split, filled + seconds[key]
    return NewSplits([names.get(key, "train") for key in keys], disjoint)


def _key(item: Utterance, disjoint: str) -> bytes:
    text = item.speaker if disjoint == "speaker" else " ".join(item.text.casefold().split())
    return hashlib.sha256(text.encode()).digest()[:8]
