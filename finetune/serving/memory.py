"""Gives free memory back to the system: glibc keeps what the largest batches needed once, in each of its arenas."""

import asyncio
import ctypes
from collections.abc import Callable

SECONDS = 60.0


def give_back() -> None:
    """Calls glibc's `malloc_trim`; with another C library this does nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


async def give_back_regularly(seconds: float = SECONDS, release: Callable[[], None] = give_back) -> None:
    """Calls `release` every `seconds`, until it is cancelled."""
    while True:
        await asyncio.sleep(seconds)
        await asyncio.to_thread(release)
