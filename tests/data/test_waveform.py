"""Arrays and tensors of odd types, shapes and rates: the same recording, or a DataError."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from finetune.core.errors import DataError
from finetune.data.waveform import to_recording

WAVE = np.linspace(-0.5, 0.5, 500, dtype=np.float32)


def read_only() -> Any:
    wave = WAVE.copy()
    wave.flags.writeable = False
    return wave


@pytest.mark.parametrize(
    "array",
    [read_only(), WAVE[::-1].copy()[::-1], np.repeat(WAVE, 2)[::2], torch._neg_view(torch.from_numpy(-WAVE))],
    ids=["read-only", "negative stride", "stride", "negative bit"],
)
def test_an_array_in_another_memory_layout_is_the_same_recording(array: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        samples = to_recording(array, 16_000, "a").samples
        torch.from_numpy(samples)
    assert np.array_equal(samples, WAVE) and samples.flags.c_contiguous


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (torch.zeros(500, device="meta"), "a: not an array of samples"),
        (torch.zeros(500).to_sparse(), "a: not an array of samples"),
        (torch.zeros(500, dtype=torch.complex64).conj(), "a: not an array of samples (its type is complex64)"),
        (np.zeros((2, 0)), "a: too short: 0 samples"),
        (np.zeros((0, 0)), "a: too short: 0 samples"),
        (np.full(500, 1e300), "a: contains samples that are not finite"),
        (np.array(1.0), "a: shape ()"),
        (np.zeros(500, object), "a: not an array of samples (its type is object)"),
    ],
)
def test_a_wrong_array_is_an_error_without_a_warning(array: Any, message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError) as error:
            to_recording(array, 16_000, "a")
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("rate", ["16000", [16_000], np.array([16_000, 1]), "x", 1 + 2j])
def test_a_sample_rate_that_is_not_a_number_is_an_error(rate: Any) -> None:
    with pytest.raises(DataError, match="a: sample_rate must be a number in Hz, got"):
        to_recording(WAVE, rate, "a")


@pytest.mark.parametrize("rate", [16_000, 16_000.0, np.int64(16_000), np.float32(16_000), torch.tensor(16_000)])
def test_a_sample_rate_may_be_any_kind_of_number(rate: Any) -> None:
    assert np.array_equal(to_recording(WAVE, rate, "a").samples, WAVE)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32])
def test_integers_are_divided_by_the_range_of_their_type(kind: Any) -> None:
    """The smallest integer is exactly -1, as in a file."""
    samples = to_recording(np.full(500, np.iinfo(kind).min, kind), 16_000, "a").samples
    assert (samples == -1.0).all()
