"""Transcribes files in several processes, one for each GPU, or several on a CPU.

The text of a window does not depend on its batch. So each process transcribes whole files, and the transcripts are
those of one process.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

import torch

from finetune.core.errors import DataError
from finetune.core.options import TranscribeOptions
from finetune.core.worker_pool import WorkerPool
from finetune.inference.transcribe import load, transcripts
from finetune.inference.transcript import Transcript
from finetune.model.granite import SpeechModel

Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """A file for a process, which has one model on one device and computes with some threads."""

    model: str
    device: int
    threads: int
    path: str
    options: TranscribeOptions


@dataclass(frozen=True)
class Outcome:
    """The transcripts of a file, one for each channel that was asked for, or why there are none."""

    transcripts: list[Transcript]
    error: DataError | None


_models: dict[str, SpeechModel] = {}  # of this process


def transcribe_file(job: Job) -> Outcome:
    """Transcribes a file in a worker process, which loads the model once."""
    if job.model not in _models:
        torch.set_num_threads(job.threads)
        if torch.cuda.device_count():
            torch.cuda.set_device(job.device)
        _models[job.model] = load(job.model)
    errors = list[DataError]()
    results = list(transcripts(_models[job.model], [job.path], job.options, lambda path, error: errors.append(error)))
    return Outcome(results, errors[0] if errors else None)


def deal(
    paths: Sequence[str], processes: int, submit: Callable[[int, str], "Future[Result]"]
) -> Iterator[tuple[str, Result]]:
    """Results of files in their order. A process gets a file when it has finished one, so a long file delays no other.

    Args:
        processes: their number.
        submit: gives a file to a process.
    """
    waiting, running = deque[tuple[str, "Future[Result]"]](), dict["Future[Result]", int]()
    free, rest = deque(range(processes)), iter(paths)
    while True:
        while free and (path := next(rest, None)) is not None:
            process = free.popleft()
            future = submit(process, path)
            running[future] = process
            waiting.append((path, future))
        if not waiting:
            return
        if not waiting[0][1].done():
            free.extend(running.pop(future) for future in wait(running, return_when=FIRST_COMPLETED).done)
            continue
        path, future = waiting.popleft()
        if future in running:
            free.append(running.pop(future))
        yield path, future.result()


def shared_transcripts(
    model: str,
    paths: Sequence[str],
    options: TranscribeOptions,
    failed: Callable[[str, DataError], None],
    processes: int,
) -> Iterator[Transcript]:
    """`transcripts` of files in `processes` processes, in the order of the files. Processes share GPUs if need be.

    Raises:
        ModelError: the model cannot be loaded, or does not accept this prompt.
        WorkerDied: a process ended, such as for lack of memory.
    """
    gpus, threads = max(1, torch.cuda.device_count()), max(1, torch.get_num_threads() // processes)
    with ExitStack() as stack:
        pools = [stack.enter_context(WorkerPool(1, processes=True)) for _ in range(processes)]

        def submit(process: int, path: str) -> "Future[Outcome]":
            return pools[process].submit(transcribe_file, Job(model, process % gpus, threads, path, options))

        for path, outcome in deal(paths, processes, submit):
            if outcome.error:
                failed(path, outcome.error)
            yield from outcome.transcripts
