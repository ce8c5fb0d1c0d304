"""Transcribes with several processes, one for each GPU, or several on a CPU; the result is that of one process.

The text of an utterance does not depend on its batch, so each process forms batches of its own share. This one takes
the first share. The other processes load the same system once, and end with this one.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType

import torch

from finetune.core.config import Recipe
from finetune.core.options import DecodingOptions
from finetune.core.progress import advance
from finetune.core.run_dir import RunDir
from finetune.core.worker_pool import WorkerPool
from finetune.data.manifest import Utterance, seconds_of
from finetune.evaluation.decode_run import Backend, load_system
from finetune.inference.recognize import Hypothesis, recognize
from finetune.model.granite import SpeechModel


@dataclass(frozen=True)
class System:
    """What a process loads: the base model, or the adapted one of a run, on a device."""

    recipe: Recipe
    run: str
    name: str
    device: int

    def load(self) -> SpeechModel:
        """Loads the model on this device, which becomes the current one."""
        if torch.cuda.device_count():
            torch.cuda.set_device(self.device)
        return load_system(self.recipe, RunDir(self.run), self.name)


@dataclass(frozen=True)
class Share:
    """What a process transcribes, and with how many threads."""

    system: System
    utterances: list[Utterance]
    instruction: str
    options: DecodingOptions
    threads: int


_loaded: list[tuple[System, SpeechModel]] = []  # of this process


def transcribe_share(share: Share) -> list[Hypothesis]:
    """The hypotheses of a share. Runs in a worker process, which keeps the model of its last share."""
    torch.set_num_threads(share.threads)
    if not _loaded or _loaded[0][0] != share.system:
        _loaded.clear()  # two models may not fit
        _loaded.append((share.system, share.system.load()))
    return recognize(_loaded[0][1], share.utterances, share.instruction, share.options)


def deal(durations: Sequence[float], parts: int) -> list[list[int]]:
    """Indices of the utterances of each part, with about the same audio: longest first, each to the shortest part."""
    shares, seconds = [list[int]() for _ in range(parts)], [0.0] * parts
    for index in sorted(range(len(durations)), key=lambda index: -durations[index]):
        shortest = min(range(parts), key=lambda part: seconds[part])
        shares[shortest].append(index)
        seconds[shortest] += durations[index]
    return shares


class SharedDecoding:
    """Transcribes in `processes` processes inside of a `with` block; its value is the backend for `evaluate`."""

    def __init__(self, processes: int) -> None:
        self.processes, self._threads = processes, torch.get_num_threads()
        self._threads_of_each = max(1, self._threads // processes)
        self._stack = ExitStack()
        self._pools = list[WorkerPool]()
        self._current: tuple[SpeechModel, System] | None = None

    def __enter__(self) -> Backend:
        if self.processes == 1:
            return Backend()
        self._pools = [self._stack.enter_context(WorkerPool(1, processes=True)) for _ in range(self.processes - 1)]
        if not torch.cuda.device_count():
            torch.set_num_threads(self._threads_of_each)
        return Backend(load=self.load, recognize=self.recognize)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        torch.set_num_threads(self._threads)

    def load(self, recipe: Recipe, run: RunDir, name: str) -> SpeechModel:
        """Loads a system here; the other processes load it when they get a share."""
        system = System(recipe, str(run.root), name, 0)
        self._current = system.load(), system
        return self._current[0]

    def recognize(
        self, model: SpeechModel, utterances: Sequence[Utterance], instruction: str, options: DecodingOptions
    ) -> list[Hypothesis]:
        """Hypotheses of the utterances, in order.

        Raises:
            ValueError: the model is not the one that `load` returned last.
            DataError: unusable audio.
            WorkerDied: a process ended, such as for lack of memory.
        """
        if self._current is None or self._current[0] is not model:
            raise ValueError("this is not the model that was loaded last")
        own, *others = deal([item.duration for item in utterances], self.processes)
        jobs = list[tuple[list[int], Future[list[Hypothesis]]]]()
        for number, (pool, indices) in enumerate(zip(self._pools, others, strict=True), 1):
            if indices:
                system = replace(self._current[1], device=number)
                items = [utterances[index] for index in indices]
                share = Share(system, items, instruction, options, self._threads_of_each)
                jobs.append((indices, pool.submit(transcribe_share, share)))
        hypotheses = dict(
            zip(own, recognize(model, [utterances[index] for index in own], instruction, options), strict=True)
        )
        for indices, job in jobs:
            hypotheses |= dict(zip(indices, job.result(), strict=True))
            advance(seconds_of(utterances[index] for index in indices))
        return [hypotheses[index] for index in range(len(utterances))]
