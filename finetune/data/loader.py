"""Which clips make up which optimizer step: a plan that is a pure function of its arguments."""

import random
from collections.abc import Iterator

import numpy as np
from torch.utils.data import DataLoader, Dataset

from finetune.data.audio import load_audio
from finetune.data.augment import WaveAugment, augment_wave, sample_rng
from finetune.data.manifest import Utterance


def plan_epoch(durations: list[float], batch_seconds: float, group: int, seed: int,
               epoch: int) -> list[list[list[int]]]:
    """Optimizer steps of one epoch, each a list of micro-batches, each a list of clip indices.

    Clips of like duration share a micro-batch of at most `batch_seconds` of padded audio; each clip
    occurs exactly once. A step has `group` micro-batches (ranks times accumulation), the last one
    perhaps fewer, so that any split of `group` sees the same clips in the same step.
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = sorted(range(len(durations)), key=lambda i: durations[i] * rng.uniform(0.85, 1.15))
    batches: list[list[int]] = []
    longest = 0.0
    for index in order:
        longest = max(longest, durations[index])
        if batches and longest * (len(batches[-1]) + 1) <= batch_seconds:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = durations[index]
    rng.shuffle(batches)
    return [batches[i : i + group] for i in range(0, len(batches), group)]


def share(step: list[list[int]], rank: int, ranks: int, accumulation: int) -> list[list[int]]:
    """This rank's micro-batches of a step, always `accumulation` of them; an empty list is one with nothing to do."""
    mine = step[rank::ranks]
    return mine + [[]] * (accumulation - len(mine))


class Clips(Dataset[np.ndarray]):
    """Augmented waveforms (N,) of utterances; the draw depends on seed, epoch and id only, not on workers."""

    def __init__(self, utterances: list[Utterance], augment: WaveAugment, seed: int, epoch: int) -> None:
        self.utterances, self.augment, self.seed, self.epoch = utterances, augment, seed, epoch

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: int) -> np.ndarray:
        item = self.utterances[index]
        wave = load_audio(item.audio_filepath, item.offset, item.duration)
        return augment_wave(wave, self.augment, sample_rng(self.seed, self.epoch, item.id))


def _as_list(waves: list[np.ndarray]) -> list[np.ndarray]:
    return waves


def waves_of(clips: Clips, batches: list[list[int]], workers: int) -> Iterator[list[np.ndarray]]:
    """The waveforms of each micro-batch, in order, decoded ahead by `workers` processes."""
    return iter(DataLoader(clips, batch_sampler=batches, collate_fn=_as_list, num_workers=workers))
