"""Transcribes clips with Whisper: faster-whisper, openai-whisper or transformers, with the defaults of each."""

import time
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.core.errors import ModelError
from finetune.data.audio import SAMPLE_RATE, load_utterance
from finetune.data.manifest import Utterance
from finetune.metrics.scorecard import SystemOutput

PACKAGES = {"faster_whisper": "faster-whisper", "whisper": "openai-whisper", "transformers": "transformers"}
WINDOW_SECONDS = 30  # the length of Whisper's input; longer audio needs timestamps
Wave = NDArray[np.float32]
Recognize = Callable[[Wave, str], str]  # samples (N,) at 16 kHz and a language ("" if unknown) to text


class Packages:
    """The installed Python packages."""

    def has(self, module: str) -> bool:
        return find_spec(module) is not None

    def load(self, module: str) -> Any:
        return import_module(module)

    def version(self, distribution: str) -> str:
        return version(distribution)


def transcribe(
    model: str, clips: Sequence[Utterance], packages: Packages | None = None
) -> tuple[list[SystemOutput], str]:
    """Transcribes clips one after another with the first engine of `PACKAGES` that is installed.

    Args:
        model: a size such as `small` or `large-v3`, or a local folder. A folder with model.bin is opened with
            faster-whisper, any other folder with transformers.
        clips: the clips.
        packages: the default is the installed packages.

    Returns:
        The text and the seconds of each clip, without the time to read the file; and the name of the engine.

    Raises:
        ModelError: no engine is installed, or it cannot load the model.
        DataError: the audio of a clip cannot be read.
    """
    packages = packages or Packages()
    engine = _choose_engine(model, packages)
    try:
        recognize = _LOADERS[engine](model, packages)
    except Exception as error:  # the errors of the engines have no common base class
        raise ModelError(
            f"whisper:{model}: {PACKAGES[engine]} cannot load it ({str(error).strip()[:300]}). Without network access, "
            "use a local folder of the model: whisper:FOLDER"
        ) from error
    outputs = []
    for clip in clips:
        wave = load_utterance(clip)
        started = time.perf_counter()
        text = recognize(wave, clip.language.split("-")[0])
        outputs.append(SystemOutput(" ".join(text.split()), time.perf_counter() - started, False))
    return outputs, f"{PACKAGES[engine]} {packages.version(PACKAGES[engine])}"


def _choose_engine(model: str, packages: Packages) -> str:
    engines = list(PACKAGES)
    if Path(model).is_dir():
        engines = ["faster_whisper"] if (Path(model) / "model.bin").is_file() else ["transformers"]
    for engine in engines:
        if packages.has(engine):
            return engine
    raise ModelError(
        f"whisper:{model}: needs {' or '.join(PACKAGES[engine] for engine in engines)}, which is not installed; "
        "pip install faster-whisper"
    )


def _load_faster_whisper(model: str, packages: Packages) -> Recognize:
    loaded = packages.load("faster_whisper").WhisperModel(model)

    def recognize(wave: Wave, language: str) -> str:
        segments, _ = loaded.transcribe(wave, language=language or None)
        return " ".join(segment.text for segment in segments)

    return recognize


def _load_openai_whisper(model: str, packages: Packages) -> Recognize:
    loaded = packages.load("whisper").load_model(model)

    def recognize(wave: Wave, language: str) -> str:
        return str(loaded.transcribe(wave, language=language or None)["text"])

    return recognize


def _load_transformers(model: str, packages: Packages) -> Recognize:
    from finetune.model.granite import default_device

    torch, transformers = packages.load("torch"), packages.load("transformers")
    source = model if Path(model).is_dir() or "/" in model else f"openai/whisper-{model}"
    processor = transformers.AutoProcessor.from_pretrained(source, trust_remote_code=False)
    loaded = transformers.WhisperForConditionalGeneration.from_pretrained(source, trust_remote_code=False).eval()
    loaded.to(default_device())

    def recognize(wave: Wave, language: str) -> str:
        long = len(wave) > WINDOW_SECONDS * SAMPLE_RATE
        padding = {"truncation": False, "padding": "longest"} if long else {}
        inputs = processor(wave, sampling_rate=SAMPLE_RATE, return_tensors="pt", return_attention_mask=True, **padding)
        multilingual = getattr(loaded.generation_config, "is_multilingual", False)  # whisper-small.en takes no language
        prompt = {"task": "transcribe", "language": language} if language and multilingual else {}
        with torch.inference_mode():
            tokens = loaded.generate(**inputs.to(loaded.device), return_timestamps=long, **prompt)
        return str(processor.batch_decode(tokens, skip_special_tokens=True)[0])

    return recognize


_LOADERS: dict[str, Callable[[str, Packages], Recognize]] = {
    "faster_whisper": _load_faster_whisper,
    "whisper": _load_openai_whisper,
    "transformers": _load_transformers,
}
