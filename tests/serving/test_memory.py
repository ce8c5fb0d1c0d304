"""The server gives free memory back to the system."""

import asyncio
import ctypes
import platform
from pathlib import Path

import pytest

from finetune.serving.memory import give_back, give_back_regularly


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_free_memory_goes_back() -> None:
    malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
    malloc.restype, free.argtypes, size, count = ctypes.c_void_p, [ctypes.c_void_p], 60_000, 2000
    blocks = [malloc(size) for _ in range(count)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks[:-1]:  # the last one keeps the others inside of the heap
        free(block)
    before = resident()
    give_back()
    after = resident()
    free(blocks[-1])
    assert before - after > 0.8 * size * count


def test_it_happens_again_and_again_until_the_server_ends() -> None:
    calls = list[int]()

    async def serve() -> None:
        task = asyncio.create_task(give_back_regularly(0.01, lambda: calls.append(1)))
        while len(calls) < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        count = len(calls)
        await asyncio.sleep(0.1)
        assert len(calls) == count

    asyncio.run(asyncio.wait_for(serve(), 30))
