"""Selects the clips of an epoch and groups them into optimizer steps: a function of data, seed and epoch only.

Clips and plans are arrays of clip indices, so that a million clips need megabytes and not gigabytes. The random numbers
are those of `random.Random`: numpy continues its stream.
"""

import math
import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.core.lazy_sequence import LazySequence

Indices = NDArray[np.int32]
Seconds = NDArray[np.float64]

WINDOW = 0.06  # clips whose durations differ by less than this fraction are sorted by positions instead
JITTER = 0.05  # fraction by which positions vary at random within a window, so that epochs have different batches
BLOCK = 65_536  # numbers that are Python objects at a time


@dataclass(frozen=True)
class Groups(LazySequence[tuple[int, ...]]):
    """Groups of clips; a group is a tuple of clip indices.

    Attributes:
        members: the clip indices of all groups.
        bounds: (groups + 1,) where each group begins in `members`, and their end.
    """

    members: Indices
    bounds: NDArray[np.int64]

    @classmethod
    def of(cls, groups: Sequence[Sequence[int]]) -> Self:
        """Groups from lists."""
        bounds = np.cumsum([0, *map(len, groups)], dtype=np.int64)
        return cls(np.fromiter((index for group in groups for index in group), np.int32, bounds[-1]), bounds)

    @classmethod
    def joined(cls, parts: Sequence["Groups"]) -> Self:
        """The groups of all parts, one part after another."""
        sizes = np.concatenate([part.sizes for part in parts])
        return cls(np.concatenate([part.members for part in parts]), np.concatenate([[0], np.cumsum(sizes)]))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def item(self, index: int) -> tuple[int, ...]:
        return tuple(self.members[self.bounds[index] : self.bounds[index + 1]].tolist())

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The number of clips of each group."""
        return np.diff(self.bounds)

    def select(self, numbers: NDArray[Any]) -> "Groups":
        """Some groups, in the order of `numbers`."""
        starts, sizes = self.bounds[numbers], self.sizes[numbers]
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        places = np.repeat(starts - bounds[:-1], sizes) + np.arange(bounds[-1])
        return Groups(self.members[places], bounds)


@dataclass(frozen=True)
class EpochPlan(LazySequence[list[list[int]]]):
    """Optimizer steps of one epoch, each a list of micro-batches, each a list of clip indices; made when asked for.

    Attributes:
        batches: the micro-batches.
        group: micro-batches in a step; the last step can have fewer.
    """

    batches: Groups
    group: int

    def __len__(self) -> int:
        return -(-len(self.batches) // self.group)

    def item(self, index: int) -> list[list[int]]:
        first = index * self.group
        return [list(batch) for batch in self.batches[first : first + self.group]]


def sample_replay(count_train: int, count_replay: int, replay_weight: float, seed: int, epoch: int) -> Indices:
    """The indices of one epoch's clips: all of train once, and those of replay `replay_weight` times on average.

    The replay clips come after the clips of train. The fractional part of the weight is a random sample of the replay
    clips, different in each epoch: with 1.5, each clip occurs once and half of the clips occur twice. A fractional
    sample size is rounded up or down at random, so it is correct on average.
    """
    rng = random.Random(f"{seed}/{epoch}/replay")
    times, fraction = divmod(replay_weight, 1)
    replay = range(count_train, count_train + count_replay)
    sample = np.array(rng.sample(replay, int(fraction * count_replay + rng.random())), np.int32)
    every = np.arange(count_train + count_replay, dtype=np.int32)
    return np.concatenate([every[:count_train], np.tile(every[count_train:], int(times)), np.sort(sample)])


def sample_weighted(chosen: Indices, weights: Seconds, seed: int, epoch: int) -> Indices:
    """One epoch's clips with each clip `weight` times on average, each time next to itself.

    The fractional part of a weight is a random sample of the clips with this weight, as in `sample_replay`. An epoch
    has at least one clip.

    Args:
        chosen: indices of clips.
        weights: (clips,) the weight of each clip, by index.
    """
    own = weights[chosen]
    times = np.floor(own).astype(np.int64)
    fractional = np.flatnonzero(own != times)
    ordered = fractional[np.argsort(own[fractional], kind="stable")]
    for places in np.split(ordered, np.flatnonzero(np.diff(own[ordered])) + 1) if len(ordered) else ():
        weight = float(own[places[0]])
        rng = random.Random(f"{seed}/{epoch}/weight/{weight!r}")
        times[rng.sample(places.tolist(), int(weight % 1 * len(places) + rng.random()))] += 1
    if not times.any():
        times[random.Random(f"{seed}/{epoch}/weight").randrange(len(times))] = 1
    return np.repeat(chosen, times)


def concat_utterances(
    chosen: ArrayLike,
    durations: ArrayLike,
    languages: ArrayLike,
    probability: float,
    max_duration: float,
    seed: int,
    epoch: int,
) -> Groups:
    """Groups clips to be concatenated, to create long speech and new word contexts from short clips.

    In a random order, each clip is appended to the previous one with `probability`. So a fraction of
    (1 - probability) * probability ** (k - 1) of the groups has k clips. A group has one language and at most
    `max_duration` seconds.
    """
    clips = np.asarray(chosen, np.int32)
    if not probability:
        return Groups(clips, np.arange(len(clips) + 1))
    rng = random.Random(f"{seed}/{epoch}/join")
    clips = clips[np.array(rng.sample(range(len(clips)), len(clips)), np.int32)]
    seconds, codes = np.asarray(durations, np.float64)[clips], np.asarray(languages)[clips]
    follows = iter(objects(_uniform(rng, len(clips)) < probability))  # the first clip of a language needs no number
    newest: dict[object, tuple[int, float]] = {}  # by language, its newest group and the seconds of that
    numbers, count = array("i"), 0
    for language, duration in zip(objects(codes), objects(seconds), strict=True):
        if language in newest and next(follows):
            number, total = newest[language]
            if total + duration <= max_duration:
                numbers.append(number)
                newest[language] = number, total + duration
                continue
        numbers.append(count)
        newest[language] = count, duration
        count += 1
    group_of = np.frombuffer(numbers, np.int32) if numbers else np.zeros(0, np.int32)
    bounds = np.concatenate([[0], np.cumsum(np.bincount(group_of, minlength=count))])
    return Groups(clips[np.argsort(group_of, kind="stable")], bounds)


def no_speech_durations(
    durations: Seconds, chosen: Indices, clips: int, fraction: float, seed: int, epoch: int
) -> Seconds:
    """Seconds of the clips without speech of an epoch: those of random other clips, so that batches stay as full.

    Args:
        durations: seconds of all rows.
        chosen: the rows of this epoch.
        clips: the clips of this epoch with speech, at most as many as `chosen`.
        fraction: of all clips of the epoch, which is kept on average.
        seed: seed of the run.
        epoch: epoch, from 0.
    """
    if not fraction or not len(chosen):
        return np.zeros(0)
    rng = random.Random(f"{seed}/{epoch}/no-speech")
    count = int(clips * fraction / (1 - fraction) + rng.random())
    places = (_uniform(rng, count) * len(chosen)).astype(np.int64)
    return np.asarray(durations, np.float64)[chosen[places]]


def occurrences(groups: Groups) -> Indices:
    """For each group, how often it has occurred up to there: 1 for the first time."""
    times = np.ones(len(groups), np.int32)
    if not len(groups.members) or np.bincount(groups.members).max() == 1:
        return times
    single = np.flatnonzero(groups.sizes == 1)
    firsts = groups.members[groups.bounds[single]]
    order = np.argsort(firsts, kind="stable")
    new = np.diff(firsts[order], prepend=-1) != 0
    times[single[order]] = np.arange(len(order)) - np.flatnonzero(new)[np.cumsum(new) - 1] + 1
    seen: dict[tuple[int, ...], int] = {}
    for number in np.flatnonzero(groups.sizes > 1).tolist():
        group = groups[number]
        times[number] = seen[group] = seen.get(group, 0) + 1
    return times


def plan_epoch(
    durations: ArrayLike,
    positions: ArrayLike,
    batch_seconds: float,
    batch_tokens: int,
    group: int,
    seed: int,
    epoch: int,
    chosen: ArrayLike,
) -> EpochPlan:
    """Optimizer steps of one epoch.

    A micro-batch has clips of similar duration and, among those, of similar text length; the combinations differ
    between epochs. Each clip occurs as often as in `chosen`. A step has `group` micro-batches (ranks times
    accumulation), the last step can have fewer. So a step has the same clips for each way to divide `group` over ranks.

    Args:
        durations: seconds of each clip; with speed augmentation by a fraction s, pass the maximum, duration / (1 - s).
        positions: language model positions of each clip: prompt, audio tokens and text.
        batch_seconds: limit of the longest duration times the number of clips. A longer clip is a batch of its own.
        batch_tokens: limit of the largest number of positions times the number of clips. The same rule for
            a longer clip.
        group: micro-batches in a step.
        seed: seed of the run.
        epoch: epoch, from 0.
        chosen: the indices of this epoch's clips.
    """
    rng = random.Random(f"{seed}/{epoch}")
    clips = np.asarray(chosen, np.int32)
    seconds, tokens = np.asarray(durations, np.float64)[clips], np.asarray(positions, np.int32)[clips]
    # The sort keys: the clip's window of durations, then its positions, ascending and descending in turn. Reversed at
    # random, so that clips at the borders of windows get different neighbours.
    phase, reverse = rng.random(), rng.random() < 0.5
    logs = np.fromiter(map(math.log, objects(seconds)), np.float64, len(clips))  # np.log can differ in the last bit
    windows = np.floor(logs / WINDOW + phase).astype(np.int64)
    low, high = 1 - JITTER, 1 + JITTER
    keys = tokens * (low + (high - low) * _uniform(rng, len(clips))) * np.where(windows % 2, 1, -1)
    order = np.lexsort((-keys, -windows) if reverse else (keys, windows))
    starts = _batch_starts(seconds[order], tokens[order], batch_seconds, batch_tokens)
    shuffled = list(range(len(starts)))
    rng.shuffle(shuffled)
    batches = Groups(clips[order], np.append(starts, len(clips)))
    return EpochPlan(batches.select(np.array(shuffled, np.int64)), group)


def _batch_starts(seconds: Seconds, tokens: Indices, batch_seconds: float, batch_tokens: int) -> NDArray[np.int64]:
    """Where batches begin, if each clip in turn joins the batch before it unless a limit is exceeded."""
    starts, size, longest, widest = array("q"), 0, 0.0, 0
    for number, (duration, count) in enumerate(zip(objects(seconds), objects(tokens), strict=True)):
        size += 1
        longest = duration if duration > longest else longest
        widest = count if count > widest else widest
        if not number or longest * size > batch_seconds or widest * size > batch_tokens:
            starts.append(number)
            size, longest, widest = 1, duration, count
    return np.frombuffer(starts, np.int64) if starts else np.zeros(0, np.int64)


def _uniform(rng: random.Random, count: int) -> Seconds:
    """The next `count` numbers of `rng.random()`, bit for bit; `rng` continues after them."""
    version, (*key, position), gauss = rng.getstate()
    stream = np.random.RandomState(0)
    stream.set_state(("MT19937", np.array(key, np.uint32), position, 0, 0.0))
    numbers = stream.random_sample(count)
    state: dict[str, Any] = stream.get_state(legacy=False)["state"]
    rng.setstate((version, (*state["key"].tolist(), state["pos"]), gauss))
    return numbers


def objects(values: NDArray[Any]) -> Iterator[Any]:
    """The values as Python objects, a block at a time."""
    for start in range(0, len(values), BLOCK):
        yield from values[start : start + BLOCK].tolist()


def padding_fraction(plan: Sequence[Sequence[Sequence[int]]], durations: ArrayLike) -> float:
    """The fraction of a plan's padded audio that is padding; for positions as `durations`, of its positions."""
    values = np.asarray(durations)

    def batches() -> Iterator[list[float]]:
        return (values[batch].tolist() for step in plan for batch in step)

    return 1 - math.fsum(map(math.fsum, batches())) / math.fsum(max(batch) * len(batch) for batch in batches())


def shard_for_rank(step: list[list[int]], rank: int, ranks: int) -> list[list[int]]:
    """This rank's micro-batches of a step, the same number on every rank; missing micro-batches are empty lists."""
    local = step[rank::ranks]
    return local + [[]] * (-(-len(step) // ranks) - len(local))
