"""Which clips an epoch hears and which make up which optimizer step: pure functions, and the audio to a plan."""

import math
import os
import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from finetune.core.errors import DataError
from finetune.data.audio import load_audio
from finetune.data.manifest import Utterance
from finetune.training.augment import WaveAugment, augment_wave, sample_rng

WINDOW = 0.06  # clips whose lengths differ by less than this share count as alike, and are mixed
JITTER = 0.05  # share by which positions are shaken within a window, so that epochs have other batches


def sample_replay(count_train: int, count_replay: int, replay_weight: float, seed: int, epoch: int) -> list[int]:
    """The clips of one epoch: all of train once, those of replay (which stand after them) `replay_weight` times.

    Of a weight's fraction as large a share of the replay clips is drawn, anew for each epoch: with 1.5 each is
    heard once and half of them twice. A share that is no whole number of clips is rounded up or down by chance,
    so that it holds over the epochs.
    """
    rng = random.Random(f"{seed}/{epoch}/replay")
    replay = range(count_train, count_train + count_replay)
    times, part = divmod(replay_weight, 1)
    some = rng.sample(replay, int(part * count_replay + rng.random()))
    return [*range(count_train), *list(replay) * int(times), *sorted(some)]


def concat_utterances(
    chosen: Sequence[int],
    durations: Sequence[float],
    languages: Sequence[str],
    share: float,
    longest: float,
    seed: int,
    epoch: int,
) -> list[tuple[int, ...]]:
    """Clips that are spoken one after another as one: long speech and new neighbours for words, out of short clips.

    In a random order, each clip follows the one before with probability `share`, so groups of k clips have a share of
    (1 - share) * share ** (k - 1); only clips of one language meet, in at most `longest` seconds.
    """
    if not share:
        return [(index,) for index in chosen]
    rng = random.Random(f"{seed}/{epoch}/join")
    groups: list[tuple[list[int], float]] = []
    last: dict[str, int] = {}  # the group of a language that may grow
    for index in rng.sample(chosen, len(chosen)):
        place = last.get(languages[index], -1)
        follows = place >= 0 and rng.random() < share
        if follows and groups[place][1] + durations[index] <= longest:
            groups[place] = ([*groups[place][0], index], groups[place][1] + durations[index])
        else:
            last[languages[index]] = len(groups)
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

    Clips of like duration, and among them of like text, share a micro-batch; which ones, differs between epochs.
    Each clip occurs as often as `chosen` says. A step has `group` micro-batches (ranks times accumulation), the
    last one perhaps fewer, so that any split of `group` sees the same clips in the same step.

    Args:
        durations: seconds of each clip; with a change of speed by a share s, pass duration / (1 - s), the longest
            that it can become.
        positions: of the language model, for each clip: prompt, audio tokens and text.
        batch_seconds: longest duration times clips, at most. A clip that is longer stands alone.
        batch_tokens: largest number of positions times clips, at most; likewise.
        group: micro-batches in a step.
        seed: of the run.
        epoch: from 0.
        chosen: the indices that this epoch hears, as `sample_replay` gives them.
    """
    rng = random.Random(f"{seed}/{epoch}")
    phase = rng.random()

    def place(index: int) -> tuple[int, float]:
        """A clip's window of durations, and where in it: by positions, up and down in turn."""
        window = math.floor(math.log(durations[index]) / WINDOW + phase)
        return window, positions[index] * rng.uniform(1 - JITTER, 1 + JITTER) * (1 if window % 2 else -1)

    batches: list[list[int]] = []
    longest, widest = 0.0, 0
    for index in sorted(chosen, key=place, reverse=rng.random() < 0.5):  # so that other clips meet at the seams
        size = len(batches[-1]) + 1 if batches else 1
        longest, widest = max(longest, durations[index]), max(widest, positions[index])
        if batches and longest * size <= batch_seconds and widest * size <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest, widest = durations[index], positions[index]
    rng.shuffle(batches)
    return [batches[i : i + group] for i in range(0, len(batches), group)]


def padding_share(plan: list[list[list[int]]], durations: Sequence[float]) -> float:
    """The share of a plan's padded audio that is empty; with positions for `durations`, that of the positions."""
    batches = [[durations[index] for index in batch] for step in plan for batch in step]
    return 1 - math.fsum(map(math.fsum, batches)) / math.fsum(max(batch) * len(batch) for batch in batches)


def shard_for_rank(step: list[list[int]], rank: int, ranks: int) -> list[list[int]]:
    """This rank's micro-batches of a step, as many on every rank; an empty list is one with nothing to do."""
    mine = step[rank::ranks]
    return mine + [[]] * (-(-len(step) // ranks) - len(mine))


class Clips(Dataset[np.ndarray]):
    """Augmented waveforms (N,), each of one utterance or of several in a row.

    What is drawn depends on seed, epoch and id only, not on workers.
    """

    def __init__(
        self, ids: Sequence[str], spoken: Sequence[Sequence[Utterance]], augment: WaveAugment, seed: int, epoch: int
    ) -> None:
        self.ids, self.spoken, self.augment, self.seed, self.epoch = ids, spoken, augment, seed, epoch

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> np.ndarray:
        waves = [load_audio(item.audio_filepath, item.offset, item.duration) for item in self.spoken[index]]
        return augment_wave(np.concatenate(waves), self.augment, sample_rng(self.seed, self.epoch, self.ids[index]))


def _as_list(waves: list[np.ndarray]) -> list[np.ndarray]:
    return waves


def _apart(worker: int) -> None:
    """Ctrl-C, or a SIGTERM to the whole group, is for the training process: it stops its workers itself."""
    os.setpgrp()


def waves_of(clips: Clips, batches: list[list[int]], workers: int) -> Iterator[list[np.ndarray]]:
    """The waveforms of each micro-batch, in order, decoded ahead by `workers` processes.

    Starting it leaves torch's own random numbers alone, so dropout is the same in a run that was resumed.

    Raises:
        DataError: a clip cannot be decoded any more.
    """
    loader = DataLoader(
        clips,
        batch_sampler=batches,
        collate_fn=_as_list,
        num_workers=workers,
        generator=torch.Generator(),
        worker_init_fn=_apart,
    )
    try:
        yield from loader
    except DataError as error:  # a worker's comes with its whole traceback, of which the last line is the message
        raise DataError(str(error).strip().splitlines()[-1].removeprefix("finetune.core.errors.DataError: ")) from None
