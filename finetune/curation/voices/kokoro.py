"""Kokoro: one neural model with about 50 voices in eight languages (extra [kokoro])."""

import logging
from functools import cache
from pathlib import Path
from typing import Any

from finetune.core.errors import VoiceError
from finetune.core.extras import require
from finetune.core.wording import count
from finetune.curation.voices.voice import Line, Sound

INSTALL = (
    "download kokoro-v1.0.onnx and voices-v1.0.bin of github.com/thewh1teagle/kokoro-onnx into it, or run "
    "scripts/fetch_voices of this repository"
)
LANGUAGES = {  # of espeak-ng, by the first letter of a voice
    "a": "en-us",
    "b": "en-gb",
    "e": "es",
    "f": "fr-fr",
    "h": "hi",
    "i": "it",
    "p": "pt-br",
    "j": "ja",
    "z": "cmn",
}


class KokoroVoice:
    """A voice such as `FOLDER#af_heart`; the folder has one .onnx file and one file of voices (.bin or .npz).

    `threads` is the number of threads of the model; 0 is one for each core.
    """

    engine = "kokoro"
    takes_ipa, parallel = True, False
    identity = ""

    def __init__(self, name: str, threads: int = 0) -> None:
        self.name, self.threads = name, threads
        self.folder, _, self.style = name.partition("#")

    def check(self) -> None:
        require("kokoro_onnx", extra="kokoro")
        voices = sorted(self._model().voices)
        if self.style not in voices:
            raise VoiceError(f"{self.folder}: no voice {self.style!r}; it has {', '.join(voices)}")
        if self.style[0] not in LANGUAGES:
            raise VoiceError(f"{self.folder}: the first letter of {self.style!r} must be one of {', '.join(LANGUAGES)}")

    def speak(self, line: Line) -> Sound:
        model = self._model()
        try:
            phonemes = " ".join(
                part.text if part.ipa else model.tokenizer.phonemize(part.text, LANGUAGES[self.style[0]])
                for part in line.parts
                if part.text.strip()
            )
            samples, rate = model.create(phonemes, self.style, speed=line.speed, is_phonemes=True)
        except Exception as error:  # of onnxruntime and phonemizer, whose classes are many
            raise VoiceError(f"{self.folder}: {error}") from error
        return Sound(samples, rate)

    def _model(self) -> Any:
        models = sorted(Path(self.folder).glob("*.onnx"))
        styles = sorted([*Path(self.folder).glob("*.bin"), *Path(self.folder).glob("*.npz")])
        if len(models) != 1 or len(styles) != 1:
            raise VoiceError(
                f"{self.folder}: {count(len(models), '.onnx file')} and {count(len(styles), 'file')} of voices "
                f"(.bin, .npz) instead of one of each; {INSTALL}"
            )
        return _load(models[0], styles[0], self.threads)


@cache
def _load(model: Path, styles: Path, threads: int) -> Any:
    """The model, shared by its voices."""
    # Its warnings about words that espeak-ng joins come with each sentence; it sets the level of its logger again.
    logging.getLogger("phonemizer").addFilter(lambda record: record.levelno >= logging.ERROR)
    package = require("kokoro_onnx", extra="kokoro")
    try:
        if not threads:
            return package.Kokoro(str(model), str(styles))
        runtime = require("onnxruntime", extra="kokoro")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        session = runtime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        return package.Kokoro.from_session(session, str(styles))
    except Exception as error:  # of onnxruntime, as in `speak`
        raise VoiceError(f"{model}: cannot be loaded as Kokoro ({error})") from error
