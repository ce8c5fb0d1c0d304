"""Chooses what a part of a stage trains on: clips by weight, joined ones, sounds without speech; and their batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from finetune.data.audio import SAMPLE_RATE
from nano.clips import Clips, join_texts

LONGEST = 30.0  # seconds of joined clips
NO_SPEECH = (0.5, 10.0)  # seconds
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Shares:
    """How often things occur in training.

    Attributes:
        languages: the share of the seconds of each language, of those that have clips.
        kinds, engines: factors of the probability of a clip, 1 for a name that is absent.
        joined: probability that other clips of the language follow a clip.
        no_speech: fraction of the items that are sounds without speech.
    """

    languages: Mapping[str, float]
    kinds: Mapping[str, float] = field(default_factory=dict)
    engines: Mapping[str, float] = field(default_factory=dict)
    joined: float = 0.0
    no_speech: float = 0.0


@dataclass(frozen=True)
class Item:
    """One example: clips in their order, or none for a sound without speech.

    `key` and `epoch` are those of its random numbers (`sample_rng`); `language` is "" without speech.
    """

    rows: tuple[int, ...]
    seconds: float
    language: str
    text: str
    phrase: str
    key: str
    epoch: int


def draw(clips: Clips, shares: Shares, seconds: float, seed: int, number: int) -> list[Item]:
    """The items of a round of about `seconds` of audio, in random order.

    Clips are drawn by weight, and none twice before the others of its language. The same arguments give the same items.
    """
    items = list[Item]()
    names, languages = clips.columns["language"]
    total = sum(shares.languages.get(name, 0.0) for name in names)
    for place, name in enumerate(names):
        share = shares.languages.get(name, 0.0)
        rows = np.flatnonzero(languages == place)
        if share and len(rows):
            rng = np.random.default_rng((seed, number, 1, place))
            drawn = _weighted(clips, rows, shares, seconds * share / total, rng)
            items += _joined(clips, drawn, name, shares.joined, number, rng)
    rng = np.random.default_rng((seed, number, 2))
    for place in range(round(len(items) * shares.no_speech / (1 - shares.no_speech))):
        items.append(Item((), float(rng.uniform(*NO_SPEECH)), "", "", "", f"no speech {place}", number))
    return [items[place] for place in rng.permutation(len(items))]


def _weighted(clips: Clips, rows: Numbers, shares: Shares, seconds: float, rng: np.random.Generator) -> Numbers:
    """Rows drawn without replacement by weight (Efraimidis and Spirakis 2006), and again if all were drawn."""
    weights = np.ones(len(rows))
    for column, factors in (("kind", shares.kinds), ("engine", shares.engines)):
        names, numbers = clips.columns[column]
        weights *= np.array([factors.get(name, 1.0) for name in names])[numbers[rows]]
    rows, weights = rows[weights > 0], weights[weights > 0]
    lengths, parts, rest = clips.num_samples[rows] / SAMPLE_RATE, list[Numbers](), seconds
    while rest > 0 and lengths.sum() > 0:
        order = np.argsort(rng.exponential(size=len(rows)) / weights, kind="stable")
        kept = int(np.searchsorted(np.cumsum(lengths[order]), rest)) + 1
        parts.append(rows[order[:kept]])
        rest -= float(lengths[order[:kept]].sum())
    return np.concatenate(parts) if parts else rows[:0]


def _joined(
    clips: Clips, rows: Numbers, language: str, share: float, number: int, rng: np.random.Generator
) -> list[Item]:
    items, place = list[Item](), 0
    lengths = clips.num_samples / SAMPLE_RATE
    while place < len(rows):
        size, total = 1, float(lengths[rows[place]])
        if rng.random() < share:
            limit = rng.uniform(total, LONGEST)
            while place + size < len(rows) and total + lengths[rows[place + size]] < limit:
                total += float(lengths[rows[place + size]])
                size += 1
        part = tuple(rows[place : place + size].tolist())
        text = join_texts([clips.texts[row] for row in part], language)
        phrase = clips.phrases[part[0]] if size == 1 else ""
        items.append(Item(part, total, language, text, phrase, f"{language} {place}", number))
        place += size
    return items


def make_batches(
    sizes: Sequence[tuple[float, ...]], limits: tuple[float, ...], rng: np.random.Generator
) -> list[list[int]]:
    """Groups items of similar size into batches, in random order.

    Args:
        sizes: sizes of each item, such as seconds and tokens; they are sorted by the last one.
        limits: for each of these, the most that a batch has when all its items are padded to the largest.
        rng: orders the batches, and varies which items are together.
    """
    table = np.array(sizes, float).reshape(len(sizes), len(limits))
    order = np.argsort(table[:, -1] * rng.uniform(0.9, 1.1, len(table)), kind="stable")
    batches, batch, largest = list[list[int]](), list[int](), np.zeros(len(limits))
    for index in order.tolist():
        grown = np.maximum(largest, table[index])
        if batch and np.any(grown * (len(batch) + 1) > np.array(limits)):
            batches.append(batch)
            batch, grown = [], table[index]
        batch, largest = [*batch, index], grown
    if batch:
        batches.append(batch)
    return [batches[place] for place in rng.permutation(len(batches))]
