"""Decodes audio files to 16 kHz mono waveforms, and raises a DataError for every damaged file.

`audio_file` opens every format, soxr resamples. An Ogg stream and some other files do not state their length: that they
are truncated is no error here; `truncation` looks for signs of it.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from finetune.core.errors import DataError
from finetune.data.audio_file import AudioFile, open_audio
from finetune.data.audio_readers import TOLERANCE
from finetune.data.audio_source import AudioSource, SourceCache, audio_source
from finetune.data.downmix import channel_for_mix
from finetune.data.manifest import Utterance

SAMPLE_RATE = 16_000
MIN_SAMPLES = 257  # the reflection padding of the log-mel needs one sample more than half of its 512-point window
BLOCK_FRAMES = 1 << 20
FULL_SCALE_LIMIT = 8.0  # full scale is 1; lossy codecs exceed it slightly, but never reach this value

Audio = str | Path | AudioSource  # a file, a member of an archive or a URL, or the bytes of one of these
_channels_for_mix = SourceCache[int | None](1 << 16)


@dataclass(frozen=True)
class AudioInfo:
    """Properties of a decoded segment: seconds, channels of the file, silence, a hash of the mono samples.

    `channel` is the channel that was decoded, None for the average. A segment that is too long is not decoded, and has
    no digest.
    """

    duration: float
    channels: int
    silent: bool
    digest: str
    channel: int | None = None


def load_utterance(item: Utterance, source: AudioSource | None = None) -> NDArray[np.float32]:
    """The samples of an utterance, from `load_audio`. Everything that reads the audio of a manifest calls this.

    `source` has the bytes of its audio, if they were read before.
    """
    return load_audio(source or item.audio_filepath, item.offset, item.duration, item.channel)


def load_audio(
    path: Audio, offset: float = 0.0, duration: float | None = None, channel: int | None = None
) -> NDArray[np.float32]:
    """Decodes a file or a segment of it to 16 kHz mono.

    Other sample rates are resampled with soxr "HQ".

    Args:
        path: an audio file, a member of an archive (`byte_range`) or a URL of fsspec.
        offset: seconds from the start of the file.
        duration: seconds; None decodes to the end of the file.
        channel: number of the channel, from 0; None averages all channels, or takes one if they cancel each other.

    Returns:
        (N,) float32 at 16 kHz, N >= 257.

    Raises:
        DataError: the file is missing, not audio, empty, truncated or shorter than the segment; it has no such channel;
            its samples are not finite or out of range; the result has fewer than 257 samples.
    """
    return load_segments(path, [(offset, duration, channel)])[0]


def load_segments(path: Audio, segments: Iterable[tuple[float, float | None, int | None]]) -> list[NDArray[np.float32]]:
    """`load_audio` for several segments, each an offset, a duration and a channel. The file is opened once.

    Raises:
        DataError: see `load_audio`.
    """
    waves, source = [], audio_source(path)
    with open_audio(source) as file:
        for offset, duration, channel in segments:
            wave = np.concatenate(list(_mono_blocks(file, source, offset, duration, channel)))
            if file.samplerate != SAMPLE_RATE:
                wave = soxr.resample(wave, file.samplerate, SAMPLE_RATE, quality="HQ").astype(np.float32, copy=False)
            if len(wave) < MIN_SAMPLES:
                raise DataError(f"{path}: {_too_short(len(wave) / SAMPLE_RATE)}")
            waves.append(wave)
    return waves


def load_source_rate(
    path: Audio, offset: float, duration: float | None, channel: int | None = None
) -> tuple[NDArray[np.float32], int]:
    """`load_audio` without resampling.

    Returns:
        (N,) float32, and the sampling rate of the file in Hz.

    Raises:
        DataError: see `load_audio`.
    """
    source = audio_source(path)
    with open_audio(source) as file:
        return np.concatenate(list(_mono_blocks(file, source, offset, duration, channel))), file.samplerate


def stream_audio(path: Audio, channel: int | None = None) -> Iterator[NDArray[np.float32]]:
    """`load_audio` for a complete file, in blocks (n,), so memory is bounded.

    Raises:
        DataError: see `load_audio`; a damaged file raises it at the damaged position.
    """
    num_samples, source = 0, audio_source(path)
    with open_audio(source) as file:
        rate = file.samplerate
        resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, quality="HQ") if rate != SAMPLE_RATE else None
        for block in _mono_blocks(file, source, 0.0, None, channel):
            if resampler:
                block = resampler.resample_chunk(block)
            num_samples += len(block)
            yield block
    if resampler:
        block = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        num_samples += len(block)
        yield block
    if num_samples < MIN_SAMPLES:
        raise DataError(f"{path}: {_too_short(num_samples / SAMPLE_RATE)}")


def inspect_audio(
    path: Audio,
    offset: float = 0.0,
    duration: float | None = None,
    channel: int | None = None,
    max_duration: float = math.inf,
) -> AudioInfo:
    """Decodes the segment that `load_audio` decodes, in bounded memory, and returns its properties.

    Args:
        path, offset, duration, channel: as in `load_audio`.
        max_duration: a segment of more seconds is not decoded.

    Raises:
        DataError: see `load_audio`.
    """
    digest, num_samples, low, high = hashlib.blake2b(digest_size=16), 0, np.inf, -np.inf
    source = audio_source(path)
    with open_audio(source) as file:
        rest = file.frames / file.samplerate - offset
        length = rest if duration is None else min(duration, rest)
        if offset >= 0 and length > max_duration + TOLERANCE:
            return AudioInfo(length, file.channels, False, "", channel)
        channel = _channel_to_read(file, source, channel)
        for block in _mono_blocks(file, source, offset, duration, channel):
            digest.update(block.data)
            num_samples += len(block)
            low, high = min(low, float(block.min())), max(high, float(block.max()))
        seconds, channels = num_samples / file.samplerate, file.channels
    if round(seconds * SAMPLE_RATE) < MIN_SAMPLES:
        raise DataError(f"{path}: {_too_short(seconds)}")
    silent = high - low < 2e-4  # below -80 dB, with any DC offset
    return AudioInfo(seconds, channels, silent, digest.hexdigest(), channel)


def audio_channels(path: Audio) -> tuple[int, int | None]:
    """The number of channels of a file, and the one that is read in place of their average, if any.

    Raises:
        DataError: the file cannot be opened.
    """
    source = audio_source(path)
    with open_audio(source) as file:
        return file.channels, _channel_to_read(file, source, None)


def _channel_to_read(file: AudioFile, source: AudioSource, channel: int | None) -> int | None:
    """The given channel; without one, the channel that replaces the average, None if there is no need."""
    if channel is None and file.channels == 1:
        return None
    if channel is not None:
        if not 0 <= channel < file.channels:
            raise DataError(
                f"{source}: channel {channel} does not exist; the file has {file.channels}, numbered from 0"
            )
        return channel
    return _channels_for_mix.get(source, lambda: _channel_for_mix(source))


def _channel_for_mix(source: AudioSource) -> int | None:
    """Opens the file anew, because decoders do not return to the start bit by bit."""
    with open_audio(source) as file:
        return channel_for_mix(_readable_blocks(file), file.samplerate)


def _readable_blocks(file: AudioFile) -> Iterator[NDArray[np.float32]]:
    """The file in blocks (n, C) of a second, up to its end or a damaged place; the reader of a segment reports that."""
    try:
        while len(block := file.read(file.samplerate)):
            yield block
    except DataError:
        return


def _too_short(seconds: float) -> str:
    return f"too short: {1000 * seconds:.1f} ms of audio; the minimum is {1000 * MIN_SAMPLES / SAMPLE_RATE:.1f} ms"


def _mono_blocks(
    file: AudioFile, source: AudioSource, offset: float, duration: float | None, channel: int | None
) -> Iterator[NDArray[np.float32]]:
    """The samples of a segment at the file's sample rate, one channel or the average, in blocks (n,) float32."""
    rate, length = file.samplerate, file.frames
    channel = _channel_to_read(file, source, channel)
    start = round(offset * rate)
    if not 0 <= start < length:
        raise DataError(f"{source}: offset {offset:.3f} s is outside the file, which has {length / rate:.3f} s")
    requested = length - start if duration is None else round(duration * rate)
    if start + requested > length + TOLERANCE * rate:
        raise DataError(
            f"{source}: the segment {offset:.3f} to {offset + requested / rate:.3f} s ends after the end of "
            f"the file at {length / rate:.3f} s"
        )
    requested = remaining = max(min(requested, length - start), 0)
    if not requested:
        raise DataError(f"{source}: {_too_short(0.0)}")
    if start or file.tell():
        file.seek(start)  # also if the file is there already: the samples must not depend on what was read before
    while remaining > 0:
        block = file.read(min(remaining, BLOCK_FRAMES))
        if not len(block):
            break
        remaining -= len(block)
        mono: NDArray[np.float32] = (
            block.mean(axis=1) if channel is None and file.channels > 1 else block[:, channel or 0]
        )
        peak = float(np.abs(mono).max())
        if not np.isfinite(peak):
            raise DataError(f"{source}: some samples are NaN or infinite; write the file again as 16-bit PCM")
        if peak > FULL_SCALE_LIMIT:
            raise DataError(
                f"{source}: samples reach {peak:.0f}, but full scale is 1: the floating-point audio "
                "was not divided by its integer range; write the file again as 16-bit PCM"
            )
        yield np.ascontiguousarray(mono)
    # The header of a compressed file gives an estimated length, so a small difference is not an error.
    if remaining > TOLERANCE * rate + 0.01 * requested or remaining == requested:
        raise DataError(
            f"{source}: truncated: the header states {length / rate:.2f} s, but only "
            f"{(start + requested - remaining) / rate:.2f} s can be decoded; copy or download it again"
        )
