"""The largest batch that fits: halved down to the longest clip, with memory given back, and remembered."""

import gc
import itertools
import weakref
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from finetune.core.errors import ModelError
from finetune.training.batch_size import largest_that_fits, memory_watched, remember, remembered

CPU = torch.device("cpu")


@settings(max_examples=50, deadline=None)
@given(st.floats(1.0, 1000.0), st.floats(1.0, 60.0), st.floats(0.5, 2000.0))
def test_halves_until_it_fits_and_no_further(start: float, floor: float, memory: float) -> None:
    tried = list[float]()

    def attempt(seconds: float) -> None:
        tried.append(seconds)
        if seconds > memory:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda: 0)  # slow, and there is nothing to collect
        try:
            found = largest_that_fits(start, floor, attempt)
        except ModelError as error:
            assert memory < floor == tried[-1]
            assert f"not even the longest clip ({floor:.1f} s) fits" in str(error)
            assert "machine.gradient_checkpointing" in str(error) and "Tried to allocate 2.00 GiB" in str(error)
        else:
            assert floor <= found == tried[-1] <= memory
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
def test_each_way_to_run_out_of_memory_is_known(error: Exception) -> None:
    def attempt(seconds: float) -> None:
        if seconds > 30.0:
            raise error

    assert largest_that_fits(100.0, 10.0, attempt) == 25.0
    with pytest.raises(ModelError, match=r"gradient_checkpointing: true .* train.batch: auto"), memory_watched():
        raise error


def test_the_real_error_of_the_cpu_is_known() -> None:
    def attempt(seconds: float) -> None:
        if seconds > 1.0:
            torch.empty(2**50)

    assert largest_that_fits(4.0, 1.0, attempt) == 1.0


def test_another_error_is_passed_on_at_once() -> None:
    tried = list[float]()

    def attempt(seconds: float) -> None:
        tried.append(seconds)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)")

    with pytest.raises(RuntimeError, match="mat1 and mat2"), memory_watched():
        largest_that_fits(100.0, 10.0, attempt)
    assert tried == [100.0]


def test_memory_of_a_failed_attempt_is_given_back_before_the_next() -> None:
    held = list[weakref.ref[Tensor]]()

    def attempt(seconds: float) -> None:
        assert all(tensor() is None for tensor in held), "the attempt before still holds its tensors"
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


# Remembered


def test_what_fits_is_remembered_for_each_key(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "fit.json"
    assert remembered(path, CPU, "1b") is None
    remember(path, CPU, "1b", 60)
    remember(path, CPU, "2b", 30.0)
    remember(path, CPU, "2b", 15.0)
    assert (remembered(path, CPU, "1b"), remembered(path, CPU, "2b"), remembered(path, CPU, "3b")) == (60.0, 15.0, None)


def test_another_card_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Card:
        name, total_memory = "A card", 24 * 2**30

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Card)
    cuda, path = torch.device("cuda", 0), tmp_path / "fit.json"
    remember(path, cuda, "1b", 60.0)
    assert remembered(path, torch.device("cuda", 1), "1b") == 60.0 and remembered(path, CPU, "1b") is None
    Card.total_memory *= 2
    assert remembered(path, cuda, "1b") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b'{"a": 1}', b"[" * 100_000])
def test_a_damaged_file_is_nothing_remembered_and_written_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fit.json"
    path.write_bytes(content)
    assert remembered(path, CPU, "1b") is None
    remember(path, CPU, "1b", 60.0)
    assert remembered(path, CPU, "1b") == 60.0


@pytest.mark.parametrize("value", ['"60"', "true", "null", "-1.0", "0.0", "NaN", "Infinity", "[60.0]"])
def test_a_value_that_is_no_size_is_not_used(tmp_path: Path, value: str) -> None:
    path = tmp_path / "fit.json"
    remember(path, CPU, "1b", 12345.0)
    path.write_text(path.read_text().replace("12345.0", value))
    assert remembered(path, CPU, "1b") is None


def test_a_place_that_cannot_be_written_is_only_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    remember(tmp_path / "file" / "fit.json", CPU, "1b", 60.0)
    assert "is not remembered" in caplog.text
    assert remembered(tmp_path / "file" / "fit.json", CPU, "1b") is None
