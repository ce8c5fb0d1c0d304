"""The audio of an utterance as the bytes of a file of its own, for archives and data sets.

A complete file keeps its bytes, unless it is uncompressed: FLAC stores the same samples in half of the size. A
segment or a channel of a file becomes mono FLAC at the sampling rate of the file. 16-bit and 24-bit samples are exact;
samples above full scale, which FLAC cannot store, become floating-point WAV.
"""

import io
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from finetune.data.audio import SAMPLE_RATE, load_source_rate, load_utterance
from finetune.data.audio_file import open_audio
from finetune.data.audio_readers import TOLERANCE
from finetune.data.audio_source import audio_source
from finetune.data.byte_range import pure_path
from finetune.data.manifest import Utterance

Codec = Literal["flac", "opus"]
UNCOMPRESSED = ("WAV", "WAVEX", "AIFF", "AU", "CAF", "W64", "RF64")
MAX_FLAC_CHANNELS = 8
OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)


@dataclass(frozen=True)
class ClipAudio:
    """The bytes of an audio file and their suffix, such as `.flac`. `exact`: the samples are those of the source."""

    data: bytes
    suffix: str
    exact: bool


def encode_clip(item: Utterance, codec: Codec = "flac") -> ClipAudio:
    """The audio of an utterance as a file of its own.

    Args:
        item: the utterance.
        codec: flac keeps the samples; opus is lossy and about a tenth of the size.

    Raises:
        DataError: the audio cannot be read.
    """
    if codec == "opus":
        return _opus(item)
    if is_whole_file(item):
        return _whole_file(item)
    return _lossless(*load_source_rate(item.audio_filepath, item.offset, item.duration, item.channel))


def moved_to(item: Utterance, audio_filepath: str, audio: ClipAudio) -> Utterance:
    """The utterance with its audio as a file of its own."""
    digest = item.audio_digest if audio.exact else ""
    return replace(item, audio_filepath=audio_filepath, offset=0.0, channel=None, audio_digest=digest)


def write_clips(folder: Path, clips: Iterable[tuple[Utterance, ClipAudio]]) -> Iterator[Utterance]:
    """Writes each clip as the file `NNNNNNNN.flac` (or another suffix), and yields its utterance with this file."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (item, audio) in enumerate(clips):
        path = folder.absolute() / f"{number:08d}{audio.suffix}"
        path.write_bytes(audio.data)
        yield moved_to(item, str(path), audio)


def is_whole_file(item: Utterance) -> bool:
    """Whether an utterance is a complete file with all its channels.

    Raises:
        DataError: the file cannot be opened.
    """
    if item.offset or item.channel is not None:
        return False
    with open_audio(item.audio_filepath) as file:
        return abs(file.frames / file.samplerate - item.duration) <= TOLERANCE


def audio_suffix(path: str) -> str:
    """The suffix of a file or of a member of an archive, in lower case; `.audio` without one."""
    return pure_path(path).suffix.lower() or ".audio"


def _file_bytes(path: str) -> bytes:
    with closing(audio_source(path).open()) as file:
        return file.read()


def _whole_file(item: Utterance) -> ClipAudio:
    data = _file_bytes(item.audio_filepath)
    channels = _uncompressed_channels(data)
    if not 1 <= channels <= MAX_FLAC_CHANNELS:
        return ClipAudio(data, audio_suffix(item.audio_filepath), exact=True)
    wave, rate = load_source_rate(item.audio_filepath, item.offset, item.duration)  # also says what is damaged
    return _lossless(wave if channels == 1 else soundfile.read(io.BytesIO(data), dtype="float32")[0], rate)


def _uncompressed_channels(data: bytes) -> int:
    """The channels of an uncompressed file; 0 for any other."""
    try:
        info = soundfile.info(io.BytesIO(data))
    except (soundfile.LibsndfileError, RuntimeError):
        return 0
    pcm = info.subtype.startswith("PCM") or info.subtype in ("FLOAT", "DOUBLE")
    return info.channels if info.format in UNCOMPRESSED and pcm else 0


def _lossless(wave: NDArray[np.float32], rate: int) -> ClipAudio:
    """Samples (N,) or (N, C) as FLAC with 16 bits if that is exact, otherwise 24 bits; above full scale as WAV."""
    if wave.size and np.abs(wave).max() > 1:
        return ClipAudio(_write(wave, rate, "WAV", "FLOAT"), ".wav", exact=True)
    for bits, subtype, dtype in ((16, "PCM_16", np.int16), (24, "PCM_24", np.int32)):
        full_scale = 1 << (bits - 1)
        exact = wave.astype(np.float64) * full_scale
        samples = np.round(exact).clip(-full_scale, full_scale - 1)
        if np.array_equal(samples, exact) or bits == 24:
            shift = np.dtype(dtype).itemsize * 8 - bits  # 24 bits are the upper ones of an int32
            data = _write((samples.astype(np.int64) << shift).astype(dtype), rate, "FLAC", subtype)
            return ClipAudio(data, ".flac", bool(np.array_equal(samples, exact)))
    raise AssertionError("unreachable")


def _opus(item: Utterance) -> ClipAudio:
    wave, rate = load_source_rate(item.audio_filepath, item.offset, item.duration, item.channel)
    if rate not in OPUS_RATES:
        wave, rate = load_utterance(item), SAMPLE_RATE
    return ClipAudio(_write(wave.clip(-1, 1), rate, "OGG", "OPUS"), ".opus", exact=False)


def _write(samples: NDArray[Any], rate: int, container: str, subtype: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, format=container)
    return file.getvalue()
