"""The largest batch that fits: halved down to the longest clip, memory released in between, and cached."""

import gc
import itertools
import weakref
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from finetune.core.errors import DataError, ModelError
from finetune.training.batch_size import BatchSizeCache, explain_out_of_memory, largest_that_fits

CPU = torch.device("cpu")


@settings(max_examples=50, deadline=None)
@given(st.floats(1.0, 1000.0), st.floats(1.0, 60.0), st.floats(0.5, 2000.0))
def test_seconds_are_halved_until_they_fit(start: float, floor: float, memory: float) -> None:
    tried = list[float]()

    def attempt(seconds: float) -> None:
        tried.append(seconds)
        if seconds > memory:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    releases = list[float]()
    try:  # the real `release` is slow and has no effect on this test
        seconds = largest_that_fits(start, floor, attempt, release=lambda: releases.append(tried[-1]))
    except ModelError as error:
        assert memory < floor == tried[-1]
        assert f"the longest clip ({floor:.1f} s) does not fit" in str(error)
        assert "machine.gradient_checkpointing" in str(error) and "Tried to allocate 2.00 GiB" in str(error)
    else:
        assert floor <= seconds == tried[-1] <= memory
    assert releases == tried
    assert tried[0] == max(start, floor)
    assert all(later == max(earlier / 2, floor) for earlier, later in itertools.pairwise(tried))


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_every_out_of_memory_error_is_recognized(error: Exception) -> None:
    def attempt(seconds: float) -> None:
        if seconds > 30.0:
            raise error

    assert largest_that_fits(100.0, 10.0, attempt) == 25.0
    with pytest.raises(ModelError, match=r"gradient_checkpointing: true .* train.batch: auto"), explain_out_of_memory():
        raise error


def test_a_killed_worker_is_named_with_its_setting() -> None:
    killed = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    with pytest.raises(DataError, match=r"machine.workers ended \(.*Killed\.\).*rerun.*fewer"), explain_out_of_memory():
        raise killed


def test_the_cpu_allocators_own_error_is_recognized() -> None:
    def attempt(seconds: float) -> None:
        if seconds > 1.0:
            torch.empty(2**50)

    assert largest_that_fits(4.0, 1.0, attempt) == 1.0


def test_another_error_is_raised_without_a_retry() -> None:
    tried = list[float]()

    def attempt(seconds: float) -> None:
        tried.append(seconds)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)")

    with pytest.raises(RuntimeError, match="mat1 and mat2"), explain_out_of_memory():
        largest_that_fits(100.0, 10.0, attempt)
    assert tried == [100.0]


def test_memory_of_a_failed_attempt_is_released_before_the_next_attempt() -> None:
    held = list[weakref.ref[Tensor]]()

    def attempt(seconds: float) -> None:
        assert all(tensor() is None for tensor in held), "the tensors of the previous attempt are still alive"
        tensor = torch.zeros(10)
        cycle: list[object] = [tensor]
        cycle.append(cycle)
        held.append(weakref.ref(tensor))
        if seconds > 10.0:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    gc.disable()
    try:
        assert largest_that_fits(80.0, 5.0, attempt) == 10.0
    finally:
        gc.enable()
    assert len(held) == 4 and held[-1]() is None


# The cache


def test_the_cache_has_one_size_per_key(tmp_path: Path) -> None:
    cache = BatchSizeCache(tmp_path / "cache" / "fit.json")
    assert cache.get(CPU, "1b") is None
    cache.put(CPU, "1b", 60)
    cache.put(CPU, "2b", 30.0)
    cache.put(CPU, "2b", 15.0)
    assert (cache.get(CPU, "1b"), cache.get(CPU, "2b"), cache.get(CPU, "3b")) == (60.0, 15.0, None)


def test_another_gpu_model_has_no_entry(tmp_path: Path) -> None:
    class Card:
        name, total_memory = "A card", 24 * 2**30

    cuda, cache = torch.device("cuda", 0), BatchSizeCache(tmp_path / "fit.json", properties=lambda device: Card)
    cache.put(cuda, "1b", 60.0)
    assert cache.get(torch.device("cuda", 1), "1b") == 60.0 and cache.get(CPU, "1b") is None
    Card.total_memory *= 2
    assert cache.get(cuda, "1b") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b'{"a": 1}', b"[" * 100_000])
def test_a_damaged_file_is_an_empty_cache_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fit.json"
    path.write_bytes(content)
    assert BatchSizeCache(path).get(CPU, "1b") is None
    BatchSizeCache(path).put(CPU, "1b", 60.0)
    assert BatchSizeCache(path).get(CPU, "1b") == 60.0


@pytest.mark.parametrize("value", ['"60"', "true", "null", "-1.0", "0.0", "NaN", "Infinity", "[60.0]"])
def test_an_invalid_size_is_ignored(tmp_path: Path, value: str) -> None:
    path = tmp_path / "fit.json"
    BatchSizeCache(path).put(CPU, "1b", 12345.0)
    path.write_text(path.read_text().replace("12345.0", value))
    assert BatchSizeCache(path).get(CPU, "1b") is None


def test_a_cache_that_cannot_be_written_is_only_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    cache = BatchSizeCache(tmp_path / "file" / "fit.json")
    cache.put(CPU, "1b", 60.0)
    assert "cannot be written, so the batch size is not cached" in caplog.text
    assert cache.get(CPU, "1b") is None
