"""Converts audio arrays of any rate and shape to 16 kHz mono, with the same checks as for files."""

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from finetune.core.errors import DataError
from finetune.core.wording import count
from finetune.data.audio import FULL_SCALE_LIMIT, MIN_SAMPLES, SAMPLE_RATE
from finetune.data.audio_file import MAX_SOURCE_RATE, MIN_SOURCE_RATE
from finetune.data.downmix import channel_for_mix, describe_mix

MAX_CHANNELS = 8  # the shorter side of a 2-D array counts channels


@dataclass(frozen=True, eq=False)
class Recording:
    """Audio in memory: `samples` (N,) float32, mono, 16 kHz. Messages use its `name`.

    `channel` is the channel that was chosen, `note` says how several channels became one.
    """

    name: str
    samples: NDArray[np.float32]
    channel: int | None = None
    note: str = ""


def to_recordings(array: Any, sample_rate: int | None, name: str, channel: str) -> list[Recording]:
    """Converts an array to 16 kHz mono recordings, in the same way as a file is read.

    Other rates are resampled with soxr "HQ".

    Args:
        array: NumPy array, torch tensor or list of numbers: (N,), (C, N) or (N, C) with at most 8 channels. Floats
            have full scale 1; integers are divided by the range of their type.
        sample_rate: in Hz; required, because an array does not contain it.
        name: name of this audio in messages.
        channel: as `TranscribeOptions.channel`; `each` gives one recording for each channel.

    Raises:
        DataError: no sample rate, no such channel, another shape or type, samples that are not finite or exceed full
            scale, too few samples.
    """
    values = _numbers(array, name)
    if sample_rate is None:
        raise DataError(f"{name}: an array needs its sample rate, such as sample_rate=16000")
    if not isinstance(sample_rate, Real) and getattr(sample_rate, "ndim", None) != 0:  # 0-D tensors are numbers too
        raise DataError(f"{name}: sample_rate must be a number in Hz, got {sample_rate!r}")
    if not MIN_SOURCE_RATE <= sample_rate <= MAX_SOURCE_RATE:
        raise DataError(f"{name}: sample_rate {sample_rate} is not between {MIN_SOURCE_RATE} and {MAX_SOURCE_RATE} Hz")
    samples = _by_frame(values, name)
    count, rate = samples.shape[1], float(sample_rate)
    if channel not in ("", "mix"):
        chosen = range(count) if channel == "each" else [int(channel)]
        if chosen[-1] >= count:
            raise DataError(f"{name}: channel {channel} does not exist; the array has {count}, numbered from 0")
        return [Recording(name, _resampled(samples[:, number], rate, name), number) for number in chosen]
    if count == 1:
        return [Recording(name, _resampled(samples[:, 0], rate, name))]
    step = round(rate)
    with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite are refused later
        used = channel_for_mix((samples[at : at + step] for at in range(0, len(samples), step)), rate)
    note = describe_mix(count, used) if used is not None or not channel else ""
    mono = samples.mean(axis=1) if used is None else samples[:, used]
    return [Recording(name, _resampled(mono, rate, name), None, note)]


def _resampled(wave: NDArray[np.float32], sample_rate: float, name: str) -> NDArray[np.float32]:
    """Checked samples (N,) at 16 kHz."""
    peak = float(np.abs(wave).max(initial=0.0))
    if not np.isfinite(peak):
        raise DataError(f"{name}: contains samples that are not finite (NaN or infinity)")
    if peak > FULL_SCALE_LIMIT:
        raise DataError(f"{name}: samples reach {peak:.0f}, but full scale of a float array is 1; scale them first")
    if sample_rate != SAMPLE_RATE and len(wave):
        wave = soxr.resample(wave, sample_rate, SAMPLE_RATE, quality="HQ")
    if len(wave) < MIN_SAMPLES:
        raise DataError(f"{name}: too short: {count(len(wave), 'sample')} at 16 kHz, at least {MIN_SAMPLES} are needed")
    return np.require(wave, np.float32, ["C", "W"])  # torch warns about a read-only array


def _numbers(array: Any, name: str) -> NDArray[Any]:
    """The array as float32 with full scale 1."""
    try:
        if hasattr(array, "detach"):  # a torch tensor; bfloat16 has no NumPy type
            array = array.detach().cpu().resolve_conj().resolve_neg()
            array = (array.float() if array.is_floating_point() else array).numpy()
        values = np.asarray(array)
        if values.dtype.kind == "u":
            raise TypeError("unsigned integers; convert them to signed integers or floats")
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a tensor on the meta device
        raise DataError(f"{name}: not an array of samples ({error})") from error
    if values.dtype.kind not in "fi":
        raise DataError(f"{name}: not an array of samples (its type is {values.dtype})")
    if values.dtype.kind == "i":
        peak = max(map(abs, (int(values.max(initial=0)), int(values.min(initial=0)))))
        bits = 8 * values.dtype.itemsize
        if 0 < peak <= {64: 2**31, 32: 2**15}.get(bits, 0):  # a list of 16-bit samples becomes such an array
            raise DataError(
                f"{name}: samples of {bits}-bit integers reach only {peak}; convert the array to the type of its "
                "samples, such as array.astype('int16')"
            )
        return values.astype(np.float32) / np.float32(-int(np.iinfo(values.dtype).min))
    with np.errstate(over="ignore"):  # infinity is refused later
        return values.astype(np.float32, copy=False)


def _by_frame(values: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """The samples (N, C)."""
    if values.ndim == 2 and not values.size:
        return values.reshape(-1, 1)
    if values.ndim == 2 and min(values.shape) <= MAX_CHANNELS:
        return values.T if values.shape[0] <= values.shape[1] else values
    if values.ndim != 1:
        raise DataError(f"{name}: shape {values.shape}; expected (N,), (C, N) or (N, C), C at most {MAX_CHANNELS}")
    return values[:, None]
