"""Loads the audio of a plan: augmented waveforms, decoded ahead by worker processes."""

import multiprocessing
import multiprocessing.context
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from finetune.core.config import AugmentSection
from finetune.core.errors import DataError
from finetune.data.audio import load_utterance
from finetune.data.manifest import Utterance
from finetune.data.read_ahead import ReadAhead
from finetune.training.augment import Applied, WaveAugment, change_level, change_speed, sample_rng
from finetune.training.clip_table import ClipTable
from finetune.training.effects import Effects, mix_voices

AHEAD = 8  # micro-batches of each worker whose bytes can be fetched before they are needed


@dataclass(frozen=True)
class Unreadable:
    """Takes the place of a waveform: why the audio of some utterances of a clip cannot be read, by their ids."""

    reasons: dict[str, str]


Audio = np.ndarray | Unreadable


@dataclass(frozen=True)
class _Task:
    """A micro-batch to load, and others that the same worker will get, whose bytes it can fetch from now on."""

    batch: list[int]
    added: list[list[int]]


class Clips(Dataset[Audio]):
    """Augmented waveforms (N,), each of one utterance or of several concatenated ones, or without speech.

    The augmentation depends only on seed, epoch and id, not on workers. A clip is unreadable if one of its utterances
    is.
    """

    def __init__(
        self, clips: ClipTable, augment: WaveAugment, seed: int, epoch: int, effects: Effects | None = None
    ) -> None:
        self.clips, self.augment, self.seed, self.epoch, self.effects = clips, augment, seed, epoch, effects

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Audio:
        return self.load(index, load_utterance)

    def load(self, index: int, read: Callable[[Utterance], np.ndarray]) -> Audio:
        """The waveform of a clip, whose utterances `read` decodes."""
        return self.load_and_explain(index, read, [])

    def load_and_explain(self, index: int, read: Callable[[Utterance], np.ndarray], applied: list[Applied]) -> Audio:
        """`load`; what was done to the clip is appended to `applied`."""
        waves, reasons, sources = list[np.ndarray](), dict[str, str](), self.clips.sources(index)
        for item in sources:
            try:
                waves.append(read(item))
            except DataError as error:
                reasons[item.id] = str(error)
        if reasons:
            return Unreadable(reasons)
        clip = self.clips.combined(index, sources)
        if not sources:
            effects = self.effects or Effects(AugmentSection(), self.seed, (), ())
            return effects.make_no_speech(clip.duration, clip.id, self.epoch, applied)
        rng = sample_rng(self.seed, self.epoch, clip.id)
        wave = change_speed(np.concatenate(waves), self.augment, rng, applied)
        if self.effects is None:
            return change_level(wave, self.augment, rng, applied)
        babble = partial(mix_voices, self.clips.base, [item.id for item in sources])
        wave = self.effects.add_scene(wave, clip.id, self.epoch, babble, applied)
        wave = change_level(wave, self.augment, rng, applied)
        return self.effects.add_line(wave, clip.id, self.epoch, applied)


class _Batches(Dataset[list[Audio] | DataError]):
    """The waveforms of micro-batches. An index is a `_Task`, from the plan.

    An error is returned, because torch adds the traceback of a worker to the message of an exception.
    """

    def __init__(self, clips: Clips) -> None:
        self.clips = clips
        self._reader: ReadAhead | None = None  # of this process

    def __getitem__(self, task: _Task) -> list[Audio] | DataError:
        if self._reader is None:
            self._reader = ReadAhead()
        reader, sources = self._reader, self.clips.clips.sources
        for batch in task.added:
            reader.add(item.audio_filepath for index in batch for item in sources(index))

        def read(item: Utterance) -> np.ndarray:
            return load_utterance(item, reader.source(item.audio_filepath))

        try:
            return [self.clips.load(index, read) for index in task.batch]
        except DataError as error:
            return error

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()


def _as_list(waves: list[Audio] | DataError) -> list[Audio] | DataError:
    return waves


def _own_process_group(worker: int) -> None:
    """Protects a worker from signals to the process group, such as Ctrl-C; the training process stops its workers."""
    os.setpgrp()


def _tasks(batches: Iterable[list[int]], workers: int) -> Iterator[_Task]:
    """A task for each micro-batch. Workers get them in turn, and each knows AHEAD of its own before it needs them."""
    workers, rest = max(1, workers), iter(batches)
    waiting = deque(islice(rest, AHEAD * workers))
    for number in count():
        waiting.extend(islice(rest, 1))
        if not waiting:
            return
        added = list(waiting)[::workers] if number < workers else list(waiting)[AHEAD * workers :]
        yield _Task(waiting.popleft(), added)


def _fork() -> multiprocessing.context.BaseContext:
    """How workers start. Others, the default from Python 3.14 on, would run the user's script again.

    Raises:
        DataError: there is no place for their locks.
    """
    context = multiprocessing.get_context("fork")
    try:
        context.Lock()
    except OSError as error:
        raise DataError(
            f"the processes of machine.workers cannot start ({error.strerror or error}); they need a /dev/shm that can "
            "be written (`finetune doctor`); set machine.workers: 0"
        ) from error
    return context


def waves_of(clips: Clips, batches: Iterable[list[int]], workers: int) -> Iterator[list[Audio]]:
    """The waveforms of each micro-batch, in order, decoded ahead by `workers` processes.

    It uses no random numbers of torch's global generator, so dropout is the same in a resumed run.

    Raises:
        DataError: a recording of the augmentation cannot be read, or the processes cannot start.
    """
    loaded = _Batches(clips)
    try:
        loader = DataLoader(
            loaded,
            batch_size=None,
            sampler=_tasks(batches, workers),
            collate_fn=_as_list,
            num_workers=workers,
            multiprocessing_context=_fork() if workers else None,
            generator=torch.Generator(),
            worker_init_fn=_own_process_group,
        )
        for waves in loader:
            if isinstance(waves, DataError):
                raise waves
            yield waves
    finally:
        loaded.close()
