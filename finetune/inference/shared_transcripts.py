"""Transcribes files in several processes, one for each GPU, or several on a CPU.

The text of a window does not depend on its batch. So each process transcribes whole files, and the transcripts are
those of one process.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice

import torch

from finetune.core.errors import DataError
from finetune.core.options import TranscribeOptions
from finetune.core.worker_pool import WorkerPool
from finetune.inference.transcribe import load, transcripts
from finetune.inference.transcript import Transcript
from finetune.model.granite import SpeechModel

AHEAD = 4  # files that each process has in its queue


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
    found = list(transcripts(_models[job.model], [job.path], job.options, lambda path, error: errors.append(error)))
    return Outcome(found, errors[0] if errors else None)


def place(number: int, processes: int, gpus: int) -> tuple[int, int]:
    """The process of the file with this number, and its GPU. If there are fewer GPUs, processes share them."""
    process = number % processes
    return process, process % max(1, gpus)


def shared_transcripts(
    model: str,
    paths: Sequence[str],
    options: TranscribeOptions,
    failed: Callable[[str, DataError], None],
    processes: int,
) -> Iterator[Transcript]:
    """`transcripts` of files in `processes` processes, in the order of the files.

    Raises:
        ModelError: the model cannot be loaded, or does not accept this prompt.
        WorkerDied: a process ended, such as for lack of memory.
    """
    gpus, threads = torch.cuda.device_count(), max(1, torch.get_num_threads() // processes)
    with ExitStack() as stack:
        pools = [stack.enter_context(WorkerPool(1, processes=True)) for _ in range(processes)]
        waiting = deque[tuple[str, Future[Outcome]]]()
        rest = iter(enumerate(paths))
        while True:
            for number, path in islice(rest, AHEAD * processes - len(waiting)):
                process, device = place(number, processes, gpus)
                job = Job(model, device, threads, path, options)
                waiting.append((path, pools[process].submit(transcribe_file, job)))
            if not waiting:
                return
            path, future = waiting.popleft()
            outcome = future.result()
            if outcome.error:
                failed(path, outcome.error)
            yield from outcome.transcripts
