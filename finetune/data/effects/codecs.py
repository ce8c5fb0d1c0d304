"""Encodes and decodes a waveform to add the losses of a codec.

libsndfile has the telephone codecs (mu-law and A-law of ITU-T G.711, GSM 06.10), PyAV the others.
"""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from finetune.core.errors import DataError
from finetune.data.audio import SAMPLE_RATE

Wave = NDArray[np.float32]

PACKET = 960  # samples; a multiple of the packets of Opus (320) and of no importance to MP3


@dataclass(frozen=True)
class Codec:
    """How a codec is written.

    Attributes:
        rate: sampling rate, in Hz.
        encoder: a subtype of WAV in libsndfile, or an encoder of FFmpeg.
        container: of FFmpeg; "" for libsndfile.
        bit_rates: bits a second from which one is chosen; empty for a codec with one rate.
        options: of the encoder of FFmpeg.
    """

    rate: int
    encoder: str
    container: str = ""
    bit_rates: tuple[int, ...] = ()
    options: tuple[tuple[str, str], ...] = ()


CODECS = {
    "mu-law": Codec(8000, "ULAW"),
    "a-law": Codec(8000, "ALAW"),
    "gsm": Codec(8000, "GSM610"),
    # The fastest search of the encoder, which is a quarter of the time of the best.
    "opus": Codec(16_000, "libopus", "ogg", (6000, 8000, 12_000, 16_000, 24_000), (("compression_level", "0"),)),
    "mp3": Codec(16_000, "libmp3lame", "mp3", (16_000, 24_000, 32_000)),
}


def apply_codec(wave: Wave, name: str, rng: np.random.Generator) -> tuple[Wave, int]:
    """Encodes and decodes a waveform.

    Args:
        wave: (N,) at 16 kHz. Samples beyond full scale are scaled down for the codec, and up again.
        name: a key of CODECS.
        rng: chooses the bit rate.

    Returns:
        (N,) at 16 kHz, and the bits a second, 0 for a codec with one rate.

    Raises:
        DataError: this build cannot encode or decode it.
    """
    codec, scale = CODECS[name], np.float32(max(1.0, float(np.abs(wave).max(initial=0.0))))
    bit_rate = int(codec.bit_rates[rng.integers(len(codec.bit_rates))]) if codec.bit_rates else 0
    changed = _resampled(wave / scale, SAMPLE_RATE, codec.rate)
    try:
        coded = _with_ffmpeg(changed, codec, bit_rate) if codec.container else _with_libsndfile(changed, codec)
    except (OSError, ValueError, RuntimeError) as error:  # those of soundfile and of av
        raise DataError(f"augment.codecs: {name} cannot be applied ({error}); remove it") from error
    result = np.zeros(len(wave), np.float32)
    coded = _resampled(coded, codec.rate, SAMPLE_RATE)[: len(wave)]
    result[: len(coded)] = coded * scale
    return result, bit_rate


def check_codecs(names: Iterable[str], try_codec: Callable[..., object] = apply_codec) -> None:
    """Applies each codec once.

    Raises:
        DataError: this build has not all of them; the message has each.
    """
    wave, missing = np.zeros(SAMPLE_RATE // 2, np.float32), list[str]()
    for name in dict.fromkeys(names):
        try:
            try_codec(wave, name, np.random.default_rng(0))
        except DataError as error:
            missing.append(str(error))
    if missing:
        versions = f"libsndfile {soundfile.__libsndfile_version__}, PyAV {av.__version__}"
        raise DataError("\n".join(missing) + f"\n(this installation has {versions})")


def _resampled(wave: Wave, rate: int, target: int) -> Wave:
    return wave if rate == target else soxr.resample(wave, rate, target).astype(np.float32, copy=False)


def _with_libsndfile(wave: Wave, codec: Codec) -> Wave:
    file = io.BytesIO()
    soundfile.write(file, wave, codec.rate, format="WAV", subtype=codec.encoder)
    file.seek(0)
    return np.asarray(soundfile.read(file, dtype="float32")[0])


def _with_ffmpeg(wave: Wave, codec: Codec, bit_rate: int) -> Wave:
    """The container states how many samples the encoder adds in front, so that the decoder omits them."""
    file = io.BytesIO()
    with av.open(file, "w", format=codec.container) as container:
        stream: Any = container.add_stream(codec.encoder, rate=codec.rate, options=dict(codec.options))
        stream.bit_rate, stream.layout = bit_rate, "mono"
        padding = -len(wave) % PACKET + PACKET  # libsndfile does not open some Opus files that end within a packet
        samples = np.rint(np.pad(wave, (0, padding)) * 32767).clip(-32768, 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.rate = codec.rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    file.seek(0)
    decoded, rate = soundfile.read(file, dtype="float32")
    return _resampled(decoded, rate, codec.rate)
