"""Finds the largest batch that fits into memory by halving, caches it for the machine, and explains memory errors."""

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

from finetune.core.errors import ModelError
from finetune.core.files import read_json, write_json

log = logging.getLogger(__name__)

# Texts of a RuntimeError that means out of memory: of CUDA, cuBLAS and the CPU allocator.
OUT_OF_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory", "not enough memory")
CACHE_FILE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune-granite-speech" / "batch.json"


def release_memory() -> None:
    """Frees the tensors of a failed attempt, also those in reference cycles, and returns CUDA's cached blocks."""
    gc.collect()
    torch.cuda.empty_cache()


def largest_that_fits(
    start: float, floor: float, attempt: Callable[[float], None], release: Callable[[], None] = release_memory
) -> float:
    """Halves `start` until `attempt` no longer runs out of memory.

    With several processes, each may find another value, and the caller takes the smallest. So `attempt` must not wait
    for the other processes.

    Args:
        start: seconds of padded audio to begin with.
        floor: seconds of the longest clip, the last value to try.
        attempt: runs forward and backward on the worst batch of so many seconds.
        release: runs after each attempt.

    Raises:
        ModelError: not even `floor` fits. Any error of `attempt` other than out of memory is passed on.
    """
    seconds = max(start, floor)
    while True:
        problem = _run_attempt(attempt, seconds)
        release()
        if problem is None:
            return seconds
        if seconds <= floor:
            raise ModelError(
                f"not even the longest clip ({floor:.1f} s) fits into memory ({problem}); lower data.max_duration, "
                "set machine.gradient_checkpointing: true, train fewer parts, or set model.quantize: 4bit"
            )
        log.info("a batch of %.1f s does not fit into memory", seconds)
        seconds = max(seconds / 2, floor)


def _run_attempt(attempt: Callable[[float], None], seconds: float) -> str | None:
    """None when it fits, else the error's text. The error itself ends here, because its frames hold the tensors."""
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
    """Turns an out-of-memory error inside the block into a message that says what to do.

    Raises:
        ModelError: memory ran out. Any other error is passed on.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if (problem := _memory_problem(error)) is None:
            raise
        raise ModelError(
            f"out of memory ({problem}); set machine.gradient_checkpointing: true and rerun to resume from the last "
            "checkpoint, or start a new run with train.batch: auto or a lower train.batch_seconds; if this was during "
            "validation, lower decode.batch_seconds"
        ) from error


class BatchSizeCache:
    """The batch sizes that fit, by device and key, in a JSON file of the user that all runs share.

    Args:
        path: the file. A missing or damaged file is an empty cache.
        properties: name and memory of a CUDA device.
    """

    def __init__(
        self, path: Path = CACHE_FILE, properties: Callable[[torch.device], Any] = torch.cuda.get_device_properties
    ) -> None:
        self.path, self.properties = path, properties

    def get(self, device: torch.device, key: str) -> float | None:
        """The seconds of padded audio cached for a device like this one; None without a valid entry."""
        seconds = self._entries().get(self._entry_key(device, key))
        return seconds if isinstance(seconds, float) and 0 < seconds < math.inf else None

    def put(self, device: torch.device, key: str, seconds: float) -> None:
        """Adds an entry; where the file cannot be written, this is a warning.

        Args:
            device: the device that ran the attempts.
            key: everything else that memory depends on: base model, trained parts, dtype.
            seconds: of padded audio.
        """
        try:
            write_json(self.path, {**self._entries(), self._entry_key(device, key): float(seconds)})
        except OSError as error:
            log.warning("%s: cannot cache the batch size that fits (%s)", self.path, error.strerror)

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
