"""How large a batch fits into memory: tried by halving, and remembered for the machine."""

import gc
import json
import logging
import math
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from finetune.core.errors import ModelError
from finetune.core.files import read_json, write_json

log = logging.getLogger(__name__)

# How torch says it where the error's type does not: cuBLAS and the CUDA driver, and the CPU's allocator.
OUT_OF_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory", "not enough memory")


def largest_that_fits(start: float, floor: float, attempt: Callable[[float], None]) -> float:
    """Halves `start` until `attempt` no longer runs out of memory.

    Several processes may each come to another value and should take the least, so `attempt` must not wait for
    the others.

    Args:
        start: padded seconds of audio to begin with.
        floor: seconds of the longest clip, which is tried last.
        attempt: runs a whole step, backward and optimizer too, on the worst batch of so many seconds.

    Raises:
        ModelError: not even `floor` fits. Any error of `attempt` other than want of memory is passed on.
    """
    seconds = max(start, floor)
    while True:
        found = _attempted(attempt, seconds)
        gc.collect()
        torch.cuda.empty_cache()
        if found is None:
            return seconds
        if seconds <= floor:
            raise ModelError(
                f"not even the longest clip ({floor:.1f} s) fits into memory; lower data.max_duration, turn on "
                f"machine.gradient_checkpointing, train fewer parts, or set model.quantize: 4bit ({found})"
            )
        log.info("a batch of %.1f s does not fit into memory", seconds)
        seconds = max(seconds / 2, floor)


def _attempted(attempt: Callable[[float], None], seconds: float) -> str | None:
    """None when it fits, else what was said; the error, whose frames hold the tensors, ends here."""
    try:
        attempt(seconds)
        return None
    except (RuntimeError, MemoryError) as error:
        if (found := _want_of_memory(error)) is None:
            raise
        return found


def _want_of_memory(error: Exception) -> str | None:
    """What is said of it; None where the error is another."""
    if isinstance(error, RuntimeError) and not any(words in str(error) for words in OUT_OF_MEMORY):
        return None
    return (str(error).strip() or "MemoryError").splitlines()[0]


@contextmanager
def memory_watched() -> Iterator[None]:
    """Says what to do where memory runs out inside the block.

    Raises:
        ModelError: it did. Any other error is passed on.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if (found := _want_of_memory(error)) is None:
            raise
        raise ModelError(
            f"out of memory ({found}); with machine.gradient_checkpointing: true the run goes on from its "
            "last checkpoint; else begin anew with train.batch: auto or fewer train.batch_seconds; where "
            "valid was being decoded, lower decode.batch_seconds"
        ) from error


def remembered(path: Path, device: torch.device, key: str) -> float | None:
    """The seconds that `remember` wrote for a device like this and this key; None when there are none."""
    seconds = _entries(path).get(_machine(device, key))
    return seconds if isinstance(seconds, float) and 0 < seconds < math.inf else None


def remember(path: Path, device: torch.device, key: str, seconds: float) -> None:
    """Notes what fits on a device like this.

    Args:
        path: a JSON file of the user's, shared by all runs; where it cannot be written, that is a warning.
        key: what memory depends on besides: base, parts that train, dtype.
    """
    try:
        write_json(path, {**_entries(path), _machine(device, key): float(seconds)})
    except OSError as error:
        log.warning("%s: the size of a batch that fits is not remembered (%s)", path, error.strerror)


def _entries(path: Path) -> dict[str, object]:
    """What the file holds; nothing when it is missing or damaged."""
    try:
        entries = read_json(path)
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _machine(device: torch.device, key: str) -> str:
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        name, memory = card.name, card.total_memory
    else:
        name, memory = platform.machine(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return json.dumps([device.type, name, memory, key])
