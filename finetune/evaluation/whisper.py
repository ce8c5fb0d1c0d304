"""Whisper through whichever engine is installed: faster-whisper, openai-whisper, or transformers, with its defaults."""

import time
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.core.errors import ModelError
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.manifest import Utterance

PACKAGES = {"faster_whisper": "faster-whisper", "whisper": "openai-whisper", "transformers": "transformers"}
HEARD_AT_ONCE = 30  # seconds
Wave = NDArray[np.float32]
Hear = Callable[[Wave, str], str]  # samples at 16 kHz and the language ("" is unknown) to text


def transcribe(model: str, clips: Sequence[Utterance]) -> tuple[list[tuple[str, float]], str]:
    """Text and seconds of each clip, one after another, the reading of the file left out; and the engine's name.

    Args:
        model: a size such as `small` or `large-v3`, or a local folder: one with model.bin is faster-whisper's, any
            other is opened with transformers.

    Raises:
        ModelError: no engine is installed, or the model cannot be had.
        DataError: the audio of a clip cannot be read.
    """
    name = _engine(model)
    try:
        hear = _LOADERS[name](model)
    except Exception as error:  # network, cache, files, names: the engines have no common base for them
        raise ModelError(
            f"whisper:{model}: {PACKAGES[name]} cannot load it ({str(error).strip()[:300]}). Without "
            "network give a folder that holds it: whisper:FOLDER"
        ) from error
    found = []
    for clip in clips:
        wave = load_audio(clip.audio_filepath, clip.offset, clip.duration)
        started = time.perf_counter()
        text = hear(wave, clip.language.split("-")[0])
        found.append((" ".join(text.split()), time.perf_counter() - started))
    return found, f"{PACKAGES[name]} {version(PACKAGES[name])}"


def _engine(model: str) -> str:
    wanted = list(PACKAGES)
    if Path(model).is_dir():
        wanted = ["faster_whisper"] if (Path(model) / "model.bin").is_file() else ["transformers"]
    for name in wanted:
        if find_spec(name):
            return name
    raise ModelError(
        f"whisper:{model}: needs one of {', '.join(PACKAGES[name] for name in wanted)}, and none is "
        "installed; pip install faster-whisper"
    )


def _faster(model: str) -> Hear:
    loaded = import_module("faster_whisper").WhisperModel(model)

    def hear(wave: Wave, language: str) -> str:
        segments, _ = loaded.transcribe(wave, language=language or None)
        return " ".join(segment.text for segment in segments)

    return hear


def _openai(model: str) -> Hear:
    loaded = import_module("whisper").load_model(model)

    def hear(wave: Wave, language: str) -> str:
        return str(loaded.transcribe(wave, language=language or None)["text"])

    return hear


def _transformers(model: str) -> Hear:
    import torch
    from transformers import AutoProcessor, WhisperForConditionalGeneration

    source = model if Path(model).is_dir() or "/" in model else f"openai/whisper-{model}"
    processor = AutoProcessor.from_pretrained(source)
    loaded = WhisperForConditionalGeneration.from_pretrained(source).eval()
    loaded.to("cuda" if torch.cuda.is_available() else "cpu")

    def hear(wave: Wave, language: str) -> str:
        long = len(wave) > HEARD_AT_ONCE * SAMPLE_RATE
        whole = {"truncation": False, "padding": "longest"} if long else {}
        inputs = processor(wave, sampling_rate=SAMPLE_RATE, return_tensors="pt", return_attention_mask=True, **whole)
        tells = language and getattr(loaded.generation_config, "is_multilingual", False)  # whisper-small.en refuses
        asked = {"task": "transcribe", "language": language} if tells else {}
        with torch.inference_mode():
            tokens = loaded.generate(**inputs.to(loaded.device), return_timestamps=long, **asked)
        return str(processor.batch_decode(tokens, skip_special_tokens=True)[0])

    return hear


_LOADERS: dict[str, Callable[[str], Hear]] = {
    "faster_whisper": _faster,
    "whisper": _openai,
    "transformers": _transformers,
}
