"""Audio files to 16 kHz mono waveforms, with every fault of a file named instead of decoded over.

libsndfile decodes (WAV, FLAC, MP3, Ogg, Opus, AIFF ...; the suffix does not matter), soxr resamples. libsndfile
keeps silent about a WAV cut in half or a header without samples, so those are looked for here. An Ogg stream
states no length: one that was cut short shows only by a text that is too long for it.
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

SAMPLE_RATE = 16_000
MIN_SAMPLES = 257  # the log-mel's reflected edges need one sample more than half its 512-point window
MIN_SOURCE_RATE, MAX_SOURCE_RATE = 4_000, 384_000  # outside of this a header is damaged or forged
SLACK = 0.1  # seconds by which a segment may overshoot its file, or a compressed file its header
BLOCK_FRAMES = 1 << 20
FULL_SCALE_LIMIT = 8.0  # full scale is 1; lossy codecs overshoot by a little, never by this
UNKNOWN_SIZE = 0x7FFF_F000  # ffmpeg and sox write this much or more when they stream a WAV and cannot know its size


@dataclass(frozen=True)
class AudioFacts:
    """What decoding a segment showed: seconds, Hz, channels, the mono peak, a fingerprint of the samples."""

    duration: float
    sample_rate: int
    channels: int
    peak: float
    silent: bool
    digest: str


def load_audio(path: str | Path, offset: float = 0.0, duration: float | None = None) -> NDArray[np.float32]:
    """Decode a file, or the segment of `duration` seconds from `offset` on.

    Channels are averaged; other rates are resampled with soxr "HQ".

    Returns:
        (N,) float32 at 16 kHz, N at least 257.

    Raises:
        DataError: the file is missing, not audio, empty, cut short, or shorter than the segment; its samples
            are not finite or not in the range of audio; fewer than 257 samples remain.
    """
    return load_segments(path, [(offset, duration)])[0]


def load_segments(path: str | Path, segments: Iterable[tuple[float, float | None]]) -> list[NDArray[np.float32]]:
    """What `load_audio` gives for each offset and duration; in a long MP3 a place is searched once, not for each.

    Raises:
        DataError: as `load_audio` does.
    """
    waves = []
    with _opened(path) as file:
        for offset, duration in segments:
            wave = np.concatenate(list(_mono_blocks(file, path, offset, duration)))
            if file.samplerate != SAMPLE_RATE:
                wave = soxr.resample(wave, file.samplerate, SAMPLE_RATE, quality="HQ").astype(np.float32, copy=False)
            if len(wave) < MIN_SAMPLES:
                raise DataError(f"{path}: {_too_short(len(wave) / SAMPLE_RATE)}")
            waves.append(wave)
    return waves


def stream_audio(path: str | Path) -> Iterator[NDArray[np.float32]]:
    """What `load_audio` gives for a whole file, in blocks (n,) and so in bounded memory.

    Raises:
        DataError: as `load_audio` does, once the reading has come that far.
    """
    num_samples = 0
    with _opened(path) as file:
        rate = file.samplerate
        resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, quality="HQ") if rate != SAMPLE_RATE else None
        for block in _mono_blocks(file, path, 0.0, None):
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


def measure(path: str | Path, offset: float = 0.0, duration: float | None = None) -> AudioFacts:
    """Decode what `load_audio` would, in bounded memory, and tell what is there.

    Raises:
        DataError: as `load_audio` does.
    """
    digest, num_samples, low, high = hashlib.blake2b(digest_size=16), 0, np.inf, -np.inf
    with _opened(path) as file:
        for block in _mono_blocks(file, path, offset, duration):
            digest.update(block.data)
            num_samples += len(block)
            low, high = min(low, float(block.min())), max(high, float(block.max()))
        seconds, rate, channels = num_samples / file.samplerate, file.samplerate, file.channels
    if round(seconds * SAMPLE_RATE) < MIN_SAMPLES:
        raise DataError(f"{path}: {_too_short(seconds)}")
    silent = high - low < 2e-4  # below -80 dB, whatever its DC offset
    return AudioFacts(seconds, rate, channels, max(abs(low), abs(high)), silent, digest.hexdigest())


def _too_short(seconds: float) -> str:
    return f"too short: {1000 * seconds:.1f} ms of audio, at least {1000 * MIN_SAMPLES / SAMPLE_RATE:.1f} ms are needed"


@contextmanager
def _opened(path: str | Path) -> Iterator[soundfile.SoundFile]:
    """Open an audio file whose header can be believed."""
    try:
        if "://" in str(path):
            raise DataError(f"{path}: a URL, not a file; download it first")
        if not Path(path).exists():
            raise DataError(f"{path}: no such file")
        if not Path(path).is_file():
            raise DataError(f"{path}: not a file but a folder or a device")
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
        raise DataError(f"{path}: its name is not UTF-8; rename the file") from error
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise DataError(f"{path}: {_not_audio(head)} ({error})") from error
    with file:
        if not MIN_SOURCE_RATE <= file.samplerate <= MAX_SOURCE_RATE:
            raise DataError(
                f"{path}: the header gives {file.samplerate} Hz, outside of {MIN_SOURCE_RATE} to "
                f"{MAX_SOURCE_RATE} Hz; it is damaged, encode the audio again"
            )
        if file.frames <= 0:
            raise DataError(f"{path}: a header without samples")
        yield file


def _mono_blocks(
    file: soundfile.SoundFile, path: str | Path, offset: float, duration: float | None
) -> Iterator[NDArray[np.float32]]:
    """The segment's samples at the file's own rate, block by block, channels averaged: each (n,) float32."""
    rate, length = file.samplerate, file.frames
    start = round(offset * rate)
    if not 0 <= start < length:
        raise DataError(f"{path}: offset {offset:.3f} s is outside of the file, which has {length / rate:.3f} s")
    wanted = length - start if duration is None else round(duration * rate)
    if start + wanted > length + SLACK * rate:
        raise DataError(
            f"{path}: the segment {offset:.3f} to {offset + wanted / rate:.3f} s goes beyond the end of "
            f"the file at {length / rate:.3f} s"
        )
    wanted = remaining = max(min(wanted, length - start), 0)
    if not wanted:
        raise DataError(f"{path}: {_too_short(0.0)}")
    try:
        if file.tell() != start:
            file.seek(start)
        while remaining > 0:
            block = file.read(min(remaining, BLOCK_FRAMES), dtype="float32", always_2d=True)
            if not len(block):
                break
            remaining -= len(block)
            mono: NDArray[np.float32] = block[:, 0] if file.channels == 1 else block.mean(axis=1)
            peak = float(np.abs(mono).max())
            if not np.isfinite(peak):
                raise DataError(f"{path}: holds samples that are not finite (NaN or infinity)")
            if peak > FULL_SCALE_LIMIT:
                raise DataError(
                    f"{path}: samples reach {peak:.0f} where full scale is 1: floating-point audio that "
                    "was not divided by its integer range; write it again as 16-bit PCM"
                )
            yield np.ascontiguousarray(mono)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DataError(f"{path}: decoding broke off: the file is damaged or cut short ({error})") from error
    # A compressed file's length is an estimate of its header, so a little less is no fault.
    if remaining > SLACK * rate + 0.01 * wanted or remaining == wanted:
        raise DataError(
            f"{path}: cut short: the header promises {length / rate:.2f} s, only "
            f"{(start + wanted - remaining) / rate:.2f} s can be decoded"
        )


def _check_wav_size(path: str | Path) -> None:
    """Compare what a WAV's data chunk promises with what the file holds; libsndfile reads on without a word."""
    with open(path, "rb") as raw:
        header = raw.read(12)
        if header[:4] != b"RIFF" or header[8:] != b"WAVE":
            return
        size = Path(path).stat().st_size
        while len(chunk := raw.read(8)) == 8:
            promised = int.from_bytes(chunk[4:], "little")
            present = size - raw.tell()
            if chunk[:4] != b"data":
                raw.seek(promised + promised % 2, 1)
                continue
            if not promised and present > 1024:
                raise DataError(
                    f"{path}: the header says 0 samples but {present} bytes follow: a recording that was "
                    "not closed; repair the header, such as with `ffmpeg -i IN -c copy OUT`"
                )
            if promised < UNKNOWN_SIZE and promised - present > 1024:
                raise DataError(
                    f"{path}: cut short: the header promises {promised} bytes of audio, "
                    f"the file holds {present}; copy or download it again"
                )
            return


def _not_audio(head: bytes) -> str:
    """Why libsndfile may have refused a file, from its first bytes."""
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the audio itself; run `git lfs pull`"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"<", b"{", b"["):
        return "holds a web page or JSON, not audio; most likely a download that failed"
    if head[4:8] == b"ftyp" or head[:4] == b"\x1aE\xdf\xa3":
        return "a video or m4a container; convert it, such as with `ffmpeg -i IN OUT.flac`"
    return "not audio that can be decoded"
