"""Decodes audio files to 16 kHz mono waveforms, and raises a DataError for every damaged file.

libsndfile decodes (WAV, FLAC, MP3, Ogg, Opus, AIFF and others; the suffix does not matter), soxr resamples. libsndfile
reports no error for a truncated WAV or a header without samples, so this module checks for both. An Ogg stream does
not state its length: a truncated one cannot be detected here, only by a transcript that is too long for its audio.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from finetune.core.errors import DataError
from finetune.data.manifest import Utterance

SAMPLE_RATE = 16_000
MIN_SAMPLES = 257  # the reflection padding of the log-mel needs one sample more than half of its 512-point window
MIN_SOURCE_RATE, MAX_SOURCE_RATE = 4_000, 384_000  # Hz; outside this range the header is damaged
TOLERANCE = 0.1  # seconds by which a segment can exceed its file, or a compressed file can be shorter than its header
BLOCK_FRAMES = 1 << 20
FULL_SCALE_LIMIT = 8.0  # full scale is 1; lossy codecs exceed it slightly, but never reach this value
UNKNOWN_SIZE = 0x7FFF_F000  # ffmpeg and sox write at least this data size when they stream a WAV of unknown size


@dataclass(frozen=True)
class AudioInfo:
    """Properties of a decoded segment: seconds, channels of the file, silence, a hash of the mono samples."""

    duration: float
    channels: int
    silent: bool
    digest: str


def load_utterance(item: Utterance) -> NDArray[np.float32]:
    """The samples of an utterance, from `load_audio`. Everything that reads the audio of a manifest calls this."""
    return load_audio(item.audio_filepath, item.offset, item.duration, item.channel)


def load_audio(
    path: str | Path, offset: float = 0.0, duration: float | None = None, channel: int | None = None
) -> NDArray[np.float32]:
    """Decodes a file or a segment of it to 16 kHz mono.

    Other sample rates are resampled with soxr "HQ".

    Args:
        path: an audio file.
        offset: seconds from the start of the file.
        duration: seconds; None decodes to the end of the file.
        channel: number of the channel, from 0; None averages all channels.

    Returns:
        (N,) float32 at 16 kHz, N >= 257.

    Raises:
        DataError: the file is missing, not audio, empty, truncated or shorter than the segment; it has no such channel;
            its samples are not finite or out of range; the result has fewer than 257 samples.
    """
    return load_segments(path, [(offset, duration, channel)])[0]


def load_segments(
    path: str | Path, segments: Iterable[tuple[float, float | None, int | None]]
) -> list[NDArray[np.float32]]:
    """`load_audio` for several segments, each an offset, a duration and a channel. The file is opened once.

    Raises:
        DataError: see `load_audio`.
    """
    waves = []
    with _opened(path) as file:
        for offset, duration, channel in segments:
            wave = np.concatenate(list(_mono_blocks(file, path, offset, duration, channel)))
            if file.samplerate != SAMPLE_RATE:
                wave = soxr.resample(wave, file.samplerate, SAMPLE_RATE, quality="HQ").astype(np.float32, copy=False)
            if len(wave) < MIN_SAMPLES:
                raise DataError(f"{path}: {_too_short(len(wave) / SAMPLE_RATE)}")
            waves.append(wave)
    return waves


def stream_audio(path: str | Path, channel: int | None = None) -> Iterator[NDArray[np.float32]]:
    """`load_audio` for a complete file, in blocks (n,), so memory is bounded.

    Raises:
        DataError: see `load_audio`; a damaged file raises it at the damaged position.
    """
    num_samples = 0
    with _opened(path) as file:
        rate = file.samplerate
        resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, quality="HQ") if rate != SAMPLE_RATE else None
        for block in _mono_blocks(file, path, 0.0, None, channel):
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
    path: str | Path, offset: float = 0.0, duration: float | None = None, channel: int | None = None
) -> AudioInfo:
    """Decodes the segment that `load_audio` decodes, in bounded memory, and returns its properties.

    Raises:
        DataError: see `load_audio`.
    """
    digest, num_samples, low, high = hashlib.blake2b(digest_size=16), 0, np.inf, -np.inf
    with _opened(path) as file:
        for block in _mono_blocks(file, path, offset, duration, channel):
            digest.update(block.data)
            num_samples += len(block)
            low, high = min(low, float(block.min())), max(high, float(block.max()))
        seconds, channels = num_samples / file.samplerate, file.channels
    if round(seconds * SAMPLE_RATE) < MIN_SAMPLES:
        raise DataError(f"{path}: {_too_short(seconds)}")
    silent = high - low < 2e-4  # below -80 dB, with any DC offset
    return AudioInfo(seconds, channels, silent, digest.hexdigest())


def _too_short(seconds: float) -> str:
    return f"too short: {1000 * seconds:.1f} ms of audio; the minimum is {1000 * MIN_SAMPLES / SAMPLE_RATE:.1f} ms"


@contextmanager
def _opened(path: str | Path) -> Iterator[soundfile.SoundFile]:
    """Opens an audio file after checks of its header."""
    try:
        if "://" in str(path):
            raise DataError(f"{path}: this is a URL; download the file first")
        if not Path(path).exists():
            raise DataError(f"{path}: no such file")
        if not Path(path).is_file():
            raise DataError(f"{path}: this is a folder or a device, not a file")
        with open(path, "rb") as raw:
            head = raw.read(64)
        if not head:
            raise DataError(f"{path}: the file is empty (0 bytes)")
        _check_wav_size(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(f"{path}: cannot be read ({error})") from error
    try:
        file = soundfile.SoundFile(path)
    except UnicodeEncodeError as error:
        raise DataError(f"{path}: the file name is not UTF-8; rename the file") from error
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise DataError(f"{path}: {_not_audio(head)} ({error})") from error
    with file:
        if not MIN_SOURCE_RATE <= file.samplerate <= MAX_SOURCE_RATE:
            raise DataError(
                f"{path}: the header states {file.samplerate} Hz, outside the range {MIN_SOURCE_RATE} to "
                f"{MAX_SOURCE_RATE} Hz; the header is damaged, encode the audio again"
            )
        if file.frames <= 0:
            raise DataError(f"{path}: the file has a header without samples; replace it")
        yield file


def _mono_blocks(
    file: soundfile.SoundFile, path: str | Path, offset: float, duration: float | None, channel: int | None
) -> Iterator[NDArray[np.float32]]:
    """The samples of a segment at the file's sample rate, one channel or the average, in blocks (n,) float32."""
    rate, length = file.samplerate, file.frames
    if channel is not None and not 0 <= channel < file.channels:
        raise DataError(f"{path}: channel {channel} does not exist; the file has {file.channels}, numbered from 0")
    start = round(offset * rate)
    if not 0 <= start < length:
        raise DataError(f"{path}: offset {offset:.3f} s is outside the file, which has {length / rate:.3f} s")
    requested = length - start if duration is None else round(duration * rate)
    if start + requested > length + TOLERANCE * rate:
        raise DataError(
            f"{path}: the segment {offset:.3f} to {offset + requested / rate:.3f} s ends after the end of "
            f"the file at {length / rate:.3f} s"
        )
    requested = remaining = max(min(requested, length - start), 0)
    if not requested:
        raise DataError(f"{path}: {_too_short(0.0)}")
    try:
        if file.tell() != start:
            file.seek(start)
        while remaining > 0:
            block = file.read(min(remaining, BLOCK_FRAMES), dtype="float32", always_2d=True)
            if not len(block):
                break
            remaining -= len(block)
            mono: NDArray[np.float32] = (
                block.mean(axis=1) if channel is None and file.channels > 1 else block[:, channel or 0]
            )
            peak = float(np.abs(mono).max())
            if not np.isfinite(peak):
                raise DataError(f"{path}: some samples are NaN or infinite; write the file again as 16-bit PCM")
            if peak > FULL_SCALE_LIMIT:
                raise DataError(
                    f"{path}: samples reach {peak:.0f}, but full scale is 1: the floating-point audio "
                    "was not divided by its integer range; write the file again as 16-bit PCM"
                )
            yield np.ascontiguousarray(mono)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DataError(
            f"{path}: decoding failed: the file is damaged or truncated ({error}); copy or download it again"
        ) from error
    # The header of a compressed file gives an estimated length, so a small difference is not an error.
    if remaining > TOLERANCE * rate + 0.01 * requested or remaining == requested:
        raise DataError(
            f"{path}: truncated: the header states {length / rate:.2f} s, but only "
            f"{(start + requested - remaining) / rate:.2f} s can be decoded; copy or download it again"
        )


def _check_wav_size(path: str | Path) -> None:
    """Compares the stated size of a WAV's data chunk with the file; libsndfile ignores a difference."""
    with open(path, "rb") as raw:
        header = raw.read(12)
        if header[:4] != b"RIFF" or header[8:] != b"WAVE":
            return
        size = Path(path).stat().st_size
        while len(chunk := raw.read(8)) == 8:
            stated = int.from_bytes(chunk[4:], "little")
            present = size - raw.tell()
            if chunk[:4] != b"data":
                raw.seek(stated + stated % 2, 1)
                continue
            if not stated and present > 1024:
                raise DataError(
                    f"{path}: the header states 0 samples, but {present} bytes follow: the recorder did not "
                    "close the file; repair the header, such as with `ffmpeg -i IN -c copy OUT`"
                )
            if stated < UNKNOWN_SIZE and stated - present > 1024:
                raise DataError(
                    f"{path}: truncated: the header states {stated} bytes of audio, "
                    f"but the file has {present}; copy or download it again"
                )
            return


def _not_audio(head: bytes) -> str:
    """The likely reason why libsndfile cannot open a file, from its first bytes."""
    if head.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the audio; run `git lfs pull`"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"<", b"{", b"["):
        return "this is a web page or JSON, not audio; the download probably failed, download it again"
    if head[4:8] == b"ftyp" or head[:4] == b"\x1aE\xdf\xa3":
        return "this is a video or m4a container; convert it, such as with `ffmpeg -i IN OUT.flac`"
    return "not audio in a supported format; convert it, such as with `ffmpeg -i IN OUT.flac`"
