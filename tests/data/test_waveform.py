"""Arrays and tensors of all types, shapes and rates: the same recording, or a DataError."""

import warnings
from typing import Any

import numpy as np
import pytest
import soxr
import torch
from numpy.typing import NDArray

from finetune.core.errors import DataError
from finetune.data.waveform import MAX_CHANNELS, Recording, to_recordings

WAVE = np.linspace(-0.5, 0.5, 500, dtype=np.float32)


def to_recording(array: Any, sample_rate: Any, name: str) -> Recording:
    return to_recordings(array, sample_rate, name, "")[0]


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
        (np.array([0, -30_000, 12] * 200), "a: samples of 64-bit integers reach only 30000; convert the array"),
        (np.array([0, -(2**15), 12] * 200, np.int32), "a: samples of 32-bit integers reach only 32768; convert"),
        (torch.tensor([0, 2**23, 12] * 200), "a: samples of 64-bit integers reach only 8388608; convert the array"),
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


def noise(samples: int = 16_000, seed: int = 0) -> NDArray[np.float32]:
    """Samples (N,) between -0.5 and 0.5."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)


@pytest.mark.parametrize(
    ("dtype", "full_scale"), [(np.int8, 2**7), (np.int16, 2**15), (np.int32, 2**31), (np.int64, 2**63)]
)
def test_integers_are_divided_by_the_range_of_their_type(dtype: type[np.signedinteger], full_scale: int) -> None:
    integers = np.tile(np.array([-full_scale, -full_scale // 2, 0, full_scale // 4], dtype), 1000)
    expected = np.tile(np.array([-1.0, -0.5, 0.0, 0.25], np.float32), 1000)
    np.testing.assert_array_equal(to_recording(integers, 16_000, "a").samples, expected)
    np.testing.assert_array_equal(to_recording(torch.from_numpy(integers), 16_000, "a").samples, expected)


@pytest.mark.parametrize("channels", [1, 2, MAX_CHANNELS])
def test_channels_are_averaged(channels: int) -> None:
    waves = np.stack([noise(seed=number) for number in range(channels)])
    expected = waves.mean(axis=0)
    for array in (waves, waves.T, torch.from_numpy(waves)):
        np.testing.assert_allclose(to_recording(array, 16_000, "a").samples, expected, atol=1e-7)
    with pytest.raises(DataError, match=r"shape \(9, 16000\)"):
        to_recording(np.zeros((MAX_CHANNELS + 1, 16_000), np.float32), 16_000, "a")


def test_one_channel_each_channel_or_the_first_of_opposite_channels() -> None:
    left, right = noise(seed=1), noise(seed=2)
    stereo = np.stack([left, right])
    assert [item.channel for item in to_recordings(stereo, 16_000, "a", "each")] == [0, 1]
    np.testing.assert_array_equal(to_recordings(stereo.T, 16_000, "a", "each")[1].samples, right)
    np.testing.assert_array_equal(to_recordings(stereo, 16_000, "a", "1")[0].samples, right)
    assert to_recording(stereo, 16_000, "a").note == "2 channels, averaged"
    assert to_recordings(stereo, 16_000, "a", "mix")[0].note == to_recording(left, 16_000, "a").note == ""
    opposite = to_recordings(np.stack([left, -0.9 * left]), 16_000, "a", "mix")[0]
    np.testing.assert_array_equal(opposite.samples, left)
    assert "cancel each other" in opposite.note and "channel 0 is used" in opposite.note
    with pytest.raises(DataError, match="channel 2 does not exist; the array has 2"):
        to_recordings(stereo, 16_000, "a", "2")


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_other_rates_are_resampled(rate: int) -> None:
    samples = to_recording(noise(rate), rate, "a").samples
    expected = noise(rate) if rate == 16_000 else soxr.resample(noise(rate), rate, 16_000, quality="HQ")
    assert samples.shape == (16_000,) and samples.dtype == np.float32
    np.testing.assert_array_equal(samples, expected)


def test_bfloat16_tensors_are_converted() -> None:
    tensor = torch.from_numpy(noise()).to(torch.bfloat16)
    np.testing.assert_array_equal(to_recording(tensor, 16_000, "a").samples, tensor.float().numpy())


@pytest.mark.parametrize("scale", [1e30, -1e30, np.inf, -np.inf])
def test_samples_beyond_full_scale_are_refused(scale: float) -> None:
    with pytest.raises(DataError, match="^a: (samples reach|contains samples that are not finite)"):
        to_recording(np.full(16_000, scale, np.float32), 16_000, "a")
