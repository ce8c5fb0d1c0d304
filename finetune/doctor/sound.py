"""Self-tests of audio: decoding of each format, resampling, and the front end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray

from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.features import log_mel
from finetune.doctor.finding import Finding, failed, passed

SECONDS, TONE = 1.0, 440.0  # Hz
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
CONTAINERS = {"m4a": "aac"}  # files that PyAV opens, with their codec
OTHER_RATE = 44_100
TOLERANCE = 1e-3
# Mean over time of some log-mel features of `tone(16000)`, by transformers' GraniteSpeechFeatureExtractor (transformers
# 5.19.0, torchaudio 2.11.0).
EXPECTED = {0: -0.381698, 5: -0.288970, 12: 0.884296, 20: 0.240497, 40: -0.494824, 79: -0.501640}
Wave = NDArray[np.float32]


def tone(rate: int) -> Wave:
    """A quiet sine: (rate * SECONDS,)."""
    time = np.arange(int(rate * SECONDS)) / rate
    return (0.1 * np.sin(2 * np.pi * TONE * time)).astype(np.float32)


def frequency(wave: Wave) -> float:
    """The strongest frequency of a wave at 16 kHz, in Hz."""
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(spectrum.argmax()) * SAMPLE_RATE / len(wave)


def _write(path: Path, rate: int) -> None:
    """A file with `tone`, in the format of the suffix."""
    suffix = path.suffix[1:]
    if suffix in FORMATS:
        kind, subtype = FORMATS[suffix]
        soundfile.write(path, tone(rate), rate, format=kind, subtype=subtype)
        return
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(CONTAINERS[suffix], rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(rate)[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        container.mux([*stream.encode(frame), *stream.encode(None)])


def check_decoding(folder: Path, load: Callable[[Path], Wave] = load_audio) -> Finding:
    """Each format: a tone that is written, read and still is that tone."""
    wrong = list[str]()
    for suffix in (*FORMATS, *CONTAINERS):
        path = folder / f"tone.{suffix}"
        try:
            _write(path, SAMPLE_RATE if suffix != "m4a" else OTHER_RATE)
            wave = load(path)
            if abs(len(wave) / SAMPLE_RATE - SECONDS) > 0.1 or abs(frequency(wave) - TONE) > 5:
                wrong.append(f"{suffix}: other samples than were written")
        except Exception as error:  # of the libraries, of any type
            wrong.append(f"{suffix}: {type(error).__name__}: {error}")
    if wrong:
        return failed("decoding", "; ".join(wrong), "pip install --force-reinstall soundfile av")
    return passed("decoding", ", ".join((*FORMATS, *CONTAINERS)))


def check_resampling(resample: Callable[..., Wave] = soxr.resample) -> Finding:
    """A tone at 44.1 kHz is the same tone at 16 kHz, and as loud."""
    wave = resample(tone(OTHER_RATE), OTHER_RATE, SAMPLE_RATE, quality="HQ")
    level, expected = float(np.abs(wave[1000:-1000]).max()), 0.1
    if abs(frequency(wave) - TONE) > 5 or abs(level - expected) > 0.01 * expected:
        return failed(
            "resampling", f"{frequency(wave):.0f} Hz, level {level:.3f}", "pip install --force-reinstall soxr"
        )
    return passed("resampling", f"{OTHER_RATE} Hz to {SAMPLE_RATE} Hz")


def check_front_end(features: Callable[[torch.Tensor], torch.Tensor] = log_mel) -> Finding:
    """The log-mel features of a tone equal those of the model's own processor."""
    means = features(torch.from_numpy(tone(SAMPLE_RATE))).mean(0)
    difference = max(abs(float(means[mel]) - value) for mel, value in EXPECTED.items())
    if difference > TOLERANCE:
        return failed("front end", f"features differ by {difference:.3g}", "report this, with the versions above")
    return passed("front end", f"features as those of the model's processor (largest difference {difference:.1g})")
