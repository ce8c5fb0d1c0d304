"""Piper: neural voices for about 40 languages, one ONNX file each (extra [piper])."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from finetune.core.errors import VoiceError
from finetune.core.extras import require
from finetune.curation.voices.voice import Line, Sound

INSTALL = "`python -m piper.download_voices NAME` downloads a voice; huggingface.co/rhasspy/piper-voices has all"


class PiperVoice:
    """A voice file with its `.onnx.json` beside it; `FILE.onnx#SPEAKER` names one of several speakers.

    Piper's random variation is off, so that a sentence always gives the same samples.
    """

    engine = "piper"
    takes_ipa, parallel = True, False
    identity = ""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path, _, self.speaker = name.partition("#")

    def check(self) -> None:
        require("piper", extra="piper")
        for path in (self.path, f"{self.path}.json"):
            if not Path(path).is_file():
                raise VoiceError(f"{path}: no such file; {INSTALL}")
        speakers = self._model.config.speaker_id_map
        if self.speaker and self.speaker not in speakers and not self._is_number():
            named = ", ".join(list(speakers)[:20]) or f"{self._model.config.num_speakers} without names"
            raise VoiceError(f"{self.path}: no speaker {self.speaker!r}; its speakers: {named}")

    def speak(self, line: Line) -> Sound:
        piper, config = require("piper", extra="piper"), self._model.config
        speaker = config.speaker_id_map.get(self.speaker, int(self.speaker) if self._is_number() else None)
        settings = piper.SynthesisConfig(
            speaker_id=speaker, length_scale=config.length_scale / line.speed, noise_scale=0.0, noise_w_scale=0.0
        )
        text = "".join(f"[[ {part.text} ]]" if part.ipa else part.text for part in line.parts)
        try:
            chunks = [chunk.audio_float_array for chunk in self._model.synthesize(text, settings)]
        except Exception as error:  # of onnxruntime, whose classes are not public
            raise VoiceError(f"{self.path}: {error}") from error
        return Sound(np.concatenate([*chunks, np.zeros(0, np.float32)]), config.sample_rate)

    def _is_number(self) -> bool:
        return self.speaker.isdecimal() and int(self.speaker) < self._model.config.num_speakers

    @cached_property
    def _model(self) -> Any:
        piper = require("piper", extra="piper")
        try:
            return piper.PiperVoice.load(self.path)
        except Exception as error:  # of onnxruntime, as in `speak`
            raise VoiceError(f"{self.path}: cannot be loaded as a voice of Piper ({error})") from error
