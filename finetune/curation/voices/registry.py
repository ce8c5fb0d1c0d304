"""The engines, and voices by name: `ENGINE:VOICE`."""

import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from finetune.core.errors import FinetuneError, RecipeError
from finetune.core.languages import row_language
from finetune.curation.voices.command_line import CommandVoice
from finetune.curation.voices.espeak import EspeakVoice
from finetune.curation.voices.flite import FliteVoice
from finetune.curation.voices.kokoro import LANGUAGES, KokoroVoice
from finetune.curation.voices.piper import PiperVoice
from finetune.curation.voices.speech_endpoint import EndpointVoice
from finetune.curation.voices.voice import Voice

ENGINES: dict[str, Callable[[str, str], Voice]] = {  # name of the voice, template of --command
    "espeak-ng": lambda name, _: EspeakVoice(name),
    "flite": lambda name, _: FliteVoice(name),
    "piper": lambda name, _: PiperVoice(name),
    "kokoro": lambda name, _: KokoroVoice(name),
    "openai": lambda name, _: EndpointVoice(name),
    "command": CommandVoice,
}


def full_name(voice: Voice) -> str:
    """The name as on the command line."""
    return f"{voice.engine}:{voice.name}"


def parse_voices(names: Sequence[str], command: str = "") -> list[Voice]:
    """The voices of a list, each once.

    Raises:
        RecipeError: a name has another form, or an unknown engine.
    """
    voices: dict[str, Voice] = {}
    for text in names:
        engine, _, name = text.strip().partition(":")
        if engine not in ENGINES or not name:
            near = difflib.get_close_matches(engine, ENGINES, 1)
            hint = f"; did you mean {near[0]}:{name or 'VOICE'}?" if near else ""
            raise RecipeError(f"--voice {text!r} is not ENGINE:VOICE with an engine of {', '.join(ENGINES)}{hint}")
        voices.setdefault(f"{engine}:{name}", ENGINES[engine](name, command))
    if not voices:
        raise RecipeError("no voice; add --voice ENGINE:VOICE, such as --voice espeak-ng:en-us")
    return list(voices.values())


def check_voices(voices: Sequence[Voice]) -> None:
    """Checks that all voices are installed. Raises the error of the first that is not, with its name."""
    for voice in voices:
        try:
            voice.check()
        except FinetuneError as error:
            raise type(error)(f"voice {full_name(voice)}: {error}") from error


def other_languages(voices: Sequence[Voice], language: str) -> list[str]:
    """A warning for each voice whose name states another language than that of the sentences."""
    spoken = {full_name(voice): _language_of(voice) for voice in voices}
    return [
        f"voice {name} speaks {code}, but the sentences are {language} (--language)"
        for name, code in spoken.items()
        if code and code != row_language(language)
    ]


def _language_of(voice: Voice) -> str:
    name = Path(voice.name).name if isinstance(voice, EspeakVoice | PiperVoice) else ""
    if isinstance(voice, KokoroVoice):
        name = LANGUAGES.get(voice.style[:1], "")
    return row_language(re.split(r"[-_+.]", name)[0])
