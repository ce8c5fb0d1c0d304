"""Selects the clips of an epoch, groups them into optimizer steps, and loads the audio of a plan."""

import math
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from finetune.core.errors import DataError
from finetune.data.audio import load_utterance
from finetune.data.manifest import Utterance
from finetune.training.augment import WaveAugment, augment_wave, sample_rng

WINDOW = 0.06  # clips whose durations differ by less than this fraction are sorted by positions instead
JITTER = 0.05  # fraction by which positions vary at random within a window, so that epochs have different batches


def sample_replay(count_train: int, count_replay: int, replay_weight: float, seed: int, epoch: int) -> list[int]:
    """The indices of one epoch's clips: all of train once, and those of replay `replay_weight` times on average.

    The replay clips come after the clips of train. The fractional part of the weight is a random sample of the replay
    clips, different in each epoch: with 1.5, each clip occurs once and half of the clips occur twice. A fractional
    sample size is rounded up or down at random, so it is correct on average.
    """
    rng = random.Random(f"{seed}/{epoch}/replay")
    replay = range(count_train, count_train + count_replay)
    times, fraction = divmod(replay_weight, 1)
    sample = rng.sample(replay, int(fraction * count_replay + rng.random()))
    return [*range(count_train), *list(replay) * int(times), *sorted(sample)]


def concat_utterances(
    chosen: Sequence[int],
    durations: Sequence[float],
    languages: Sequence[str],
    probability: float,
    max_duration: float,
    seed: int,
    epoch: int,
) -> list[tuple[int, ...]]:
    """Groups clips to be concatenated, to create long speech and new word contexts from short clips.

    In a random order, each clip is appended to the previous one with `probability`. So a fraction of
    (1 - probability) * probability ** (k - 1) of the groups has k clips. A group has one language and at most
    `max_duration` seconds.
    """
    if not probability:
        return [(index,) for index in chosen]
    rng = random.Random(f"{seed}/{epoch}/join")
    groups: list[tuple[list[int], float]] = []
    newest_group: dict[str, int] = {}  # the newest group of each language
    for index in rng.sample(chosen, len(chosen)):
        group_index = newest_group.get(languages[index], -1)
        follows = group_index >= 0 and rng.random() < probability
        if follows and groups[group_index][1] + durations[index] <= max_duration:
            groups[group_index] = ([*groups[group_index][0], index], groups[group_index][1] + durations[index])
        else:
            newest_group[languages[index]] = len(groups)
            groups.append(([index], durations[index]))
    return [tuple(group) for group, _ in groups]


def plan_epoch(
    durations: Sequence[float],
    positions: Sequence[int],
    batch_seconds: float,
    batch_tokens: int,
    group: int,
    seed: int,
    epoch: int,
    chosen: Sequence[int],
) -> list[list[list[int]]]:
    """Optimizer steps of one epoch, each a list of micro-batches, each a list of clip indices.

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
    phase = rng.random()

    def sort_key(index: int) -> tuple[int, float]:
        """A sort key: the clip's window of durations, then its positions, ascending and descending in turn."""
        window = math.floor(math.log(durations[index]) / WINDOW + phase)
        return window, positions[index] * rng.uniform(1 - JITTER, 1 + JITTER) * (1 if window % 2 else -1)

    batches: list[list[int]] = []
    longest, widest = 0.0, 0
    for index in sorted(
        chosen, key=sort_key, reverse=rng.random() < 0.5
    ):  # reversed at random: clips at the borders of windows get different neighbours
        size = len(batches[-1]) + 1 if batches else 1
        longest, widest = max(longest, durations[index]), max(widest, positions[index])
        if batches and longest * size <= batch_seconds and widest * size <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest, widest = durations[index], positions[index]
    rng.shuffle(batches)
    return [batches[i : i + group] for i in range(0, len(batches), group)]


def padding_fraction(plan: list[list[list[int]]], durations: Sequence[float]) -> float:
    """The fraction of a plan's padded audio that is padding; for positions as `durations`, of its positions."""
    batches = [[durations[index] for index in batch] for step in plan for batch in step]
    return 1 - math.fsum(map(math.fsum, batches)) / math.fsum(max(batch) * len(batch) for batch in batches)


def shard_for_rank(step: list[list[int]], rank: int, ranks: int) -> list[list[int]]:
    """This rank's micro-batches of a step, the same number on every rank; missing micro-batches are empty lists."""
    local = step[rank::ranks]
    return local + [[]] * (-(-len(step) // ranks) - len(local))


@dataclass(frozen=True)
class Unreadable:
    """Takes the place of a waveform: why the audio of some utterances of a clip cannot be read, by their ids."""

    reasons: dict[str, str]


Audio = np.ndarray | Unreadable


class Clips(Dataset[Audio]):
    """Augmented waveforms (N,), each of one utterance or of several concatenated ones.

    The augmentation depends only on seed, epoch and id, not on workers. A clip is unreadable if one of its utterances
    is.
    """

    def __init__(
        self, ids: Sequence[str], sources: Sequence[Sequence[Utterance]], augment: WaveAugment, seed: int, epoch: int
    ) -> None:
        self.ids, self.sources, self.augment, self.seed, self.epoch = ids, sources, augment, seed, epoch

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Audio:
        waves, reasons = list[np.ndarray](), dict[str, str]()
        for item in self.sources[index]:
            try:
                waves.append(load_utterance(item))
            except DataError as error:
                reasons[item.id] = str(error)
        if reasons:
            return Unreadable(reasons)
        return augment_wave(np.concatenate(waves), self.augment, sample_rng(self.seed, self.epoch, self.ids[index]))


def _as_list(waves: list[Audio]) -> list[Audio]:
    return waves


def _own_process_group(worker: int) -> None:
    """Protects a worker from signals to the process group, such as Ctrl-C; the training process stops its workers."""
    os.setpgrp()


def waves_of(clips: Clips, batches: list[list[int]], workers: int) -> Iterator[list[Audio]]:
    """The waveforms of each micro-batch, in order, decoded ahead by `workers` processes.

    It uses no random numbers of torch's global generator, so dropout is the same in a resumed run.
    """
    yield from DataLoader(
        clips,
        batch_sampler=batches,
        collate_fn=_as_list,
        num_workers=workers,
        generator=torch.Generator(),
        worker_init_fn=_own_process_group,
    )
