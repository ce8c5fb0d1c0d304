"""Finds the largest batch that fits into memory, caches the result for this machine, explains memory errors."""

import gc
import json
import logging
import math
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from finetune.core.errors import DataError, ModelError
from finetune.core.extras import DISTRIBUTION
from finetune.core.files import cache_home, read_json, write_json

log = logging.getLogger(__name__)

# Messages of a RuntimeError that means out of memory, from CUDA, cuBLAS and the CPU allocator.
OUT_OF_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory", "not enough memory")
CACHE_FILE = cache_home() / DISTRIBUTION / "batch.json"


def release_memory() -> None:
    """Frees the tensors of a failed attempt, including those in reference cycles, and CUDA's cached blocks."""
    gc.collect()
    torch.cuda.empty_cache()


def largest_that_fits(
    start: float, floor: float, attempt: Callable[[float], None], release: Callable[[], None] = release_memory
) -> float:
    """Halves `start` until `attempt` no longer runs out of memory.

    With several processes, each process can find a different value, and the caller uses the smallest. So `attempt` must
    not wait for the other processes.

    Args:
        start: seconds of padded audio to begin with.
        floor: seconds of the longest clip, the last value to try.
        attempt: runs forward and backward on the worst batch with this number of seconds.
        release: runs after each attempt.

    Raises:
        ModelError: `floor` does not fit. Other errors of `attempt` are raised unchanged.
    """
    seconds = max(start, floor)
    while True:
        problem = _run_attempt(attempt, seconds)
        release()
        if problem is None:
            return seconds
        if seconds <= floor:
            raise ModelError(
                f"the longest clip ({floor:.1f} s) does not fit into memory ({problem}); lower data.max_duration, "
                "set machine.gradient_checkpointing: true, train fewer parts, or set model.quantize: 4bit"
            )
        log.info("a batch of %.1f s does not fit into memory", seconds)
        seconds = max(seconds / 2, floor)


def _run_attempt(attempt: Callable[[float], None], seconds: float) -> str | None:
    """Returns None if it fits, otherwise the text of the error. The error is not kept: its frames hold the tensors."""
    try:
        attempt(seconds)
        return None
    except (RuntimeError, MemoryError) as error:
        if (problem := _memory_problem(error)) is None:
            raise
        return problem


def _memory_problem(error: Exception) -> str | None:
    """The first line of an out-of-memory error; None for any other error."""
    if isinstance(error, RuntimeError) and not any(text in str(error) for text in OUT_OF_MEMORY):
        return None
    return (str(error).strip() or "MemoryError").splitlines()[0]


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Replaces an out-of-memory error inside the block by an error that states what to do.

    Raises:
        ModelError: out of memory.
        DataError: a process of `machine.workers` was killed. Other errors are raised unchanged.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if "DataLoader worker" in str(error):
            raise DataError(
                f"a process of machine.workers ended ({str(error).strip()}), usually because memory was full; rerun to "
                "resume from the last checkpoint, with fewer machine.workers"
            ) from error
        if (problem := _memory_problem(error)) is None:
            raise
        raise ModelError(
            f"out of memory ({problem}); set machine.gradient_checkpointing: true and rerun to resume from the last "
            "checkpoint, or start a new run with train.batch: auto or a lower train.batch_seconds; if this was during "
            "validation, lower decode.batch_seconds"
        ) from error


class BatchSizeCache:
    """The batch sizes that fit, by device and key, in one JSON file for all runs of the user.

    Args:
        path: the file. A missing or damaged file is an empty cache.
        properties: name and memory of a CUDA device.
    """

    def __init__(
        self, path: Path = CACHE_FILE, properties: Callable[[torch.device], Any] = torch.cuda.get_device_properties
    ) -> None:
        self.path, self.properties = path, properties

    def get(self, device: torch.device, key: str) -> float | None:
        """The cached seconds of padded audio for this type of device; None without a valid entry."""
        seconds = self._entries().get(self._entry_key(device, key))
        return seconds if isinstance(seconds, float) and 0 < seconds < math.inf else None

    def put(self, device: torch.device, key: str, seconds: float) -> None:
        """Adds an entry. If the file cannot be written, a warning is logged.

        Args:
            device: the device that ran the attempts.
            key: everything else that the memory depends on: base model, trained parts, dtype.
            seconds: of padded audio.
        """
        try:
            write_json(self.path, {**self._entries(), self._entry_key(device, key): float(seconds)})
        except OSError as error:
            log.warning("%s: cannot be written, so the batch size is not cached (%s)", self.path, error.strerror)

    def _entries(self) -> dict[str, object]:
        try:
            entries = read_json(self.path)
        except (OSError, ValueError, RecursionError):
            return {}
        return entries if isinstance(entries, dict) else {}

    def _entry_key(self, device: torch.device, key: str) -> str:
        if device.type == "cuda":
            card = self.properties(device)
            name, memory = card.name, card.total_memory
        else:
            name, memory = platform.machine(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return json.dumps([device.type, name, memory, key])
