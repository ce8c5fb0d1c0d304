"""Loads the audio of a plan: augmented waveforms, decoded ahead by worker processes."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from finetune.core.errors import DataError
from finetune.data.audio import load_utterance
from finetune.training.augment import WaveAugment, augment_wave, sample_rng
from finetune.training.clip_table import ClipTable


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

    def __init__(self, clips: ClipTable, augment: WaveAugment, seed: int, epoch: int) -> None:
        self.clips, self.augment, self.seed, self.epoch = clips, augment, seed, epoch

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Audio:
        waves, reasons, sources = list[np.ndarray](), dict[str, str](), self.clips.sources(index)
        for item in sources:
            try:
                waves.append(load_utterance(item))
            except DataError as error:
                reasons[item.id] = str(error)
        if reasons:
            return Unreadable(reasons)
        rng = sample_rng(self.seed, self.epoch, self.clips.combined(index, sources).id)
        return augment_wave(np.concatenate(waves), self.augment, rng)


def _as_list(waves: list[Audio]) -> list[Audio]:
    return waves


def _own_process_group(worker: int) -> None:
    """Protects a worker from signals to the process group, such as Ctrl-C; the training process stops its workers."""
    os.setpgrp()


def waves_of(clips: Clips, batches: Iterable[list[int]], workers: int) -> Iterator[list[Audio]]:
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
