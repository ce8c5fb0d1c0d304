"""What is asked when audio is transcribed: settings, languages, keywords; checked before the model is loaded."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from unicodedata import category

from finetune.core.errors import ModelError, RecipeError

# The model card of granite-4.0-1b-speech: it hears the first six, and translates from English into these and back.
HEARD = {"en": "English", "fr": "French", "de": "German", "es": "Spanish", "pt": "Portuguese", "ja": "Japanese"}
WRITTEN = {**HEARD, "it": "Italian", "zh": "Mandarin"}
FORMATS = ("text", "json", "srt", "vtt", "tsv")
DECODERS = ("greedy", "speculative", "relaxed")
VADS = ("level", "silero")
CONTROLS = ("Cc", "Cs", "Zl", "Zp")  # line breaks and tabs are among them


@dataclass(frozen=True)
class Settings:
    """What the sections `model`, `decode` and `transcribe` of the configuration say about transcribing.

    Raises:
        RecipeError: a value that is none.
    """

    instruction: str
    decoder: str
    max_entropy: float
    min_probability: float
    batch_seconds: float
    max_new_tokens: int
    max_window: float
    vad: str
    format: str

    def __post_init__(self) -> None:
        for name, known in (("decoder", DECODERS), ("vad", VADS), ("format", FORMATS)):
            if getattr(self, name) not in known:
                raise RecipeError(f"{name}: {getattr(self, name)!r} is none of {', '.join(known)}")
        for name in ("min_probability", "batch_seconds", "max_new_tokens", "max_window"):
            if not getattr(self, name) > 0:
                raise RecipeError(f"{name}: must be above 0, got {getattr(self, name)}")
        if not (self.max_entropy >= 0 and self.min_probability <= 1):
            raise RecipeError("max_entropy must not be below 0, nor min_probability above 1")

    @staticmethod
    def file(folder: str | Path) -> Path:
        """Where an export keeps its own."""
        return Path(folder) / "transcribe" / "settings.json"

    @classmethod
    def beside(cls, folder: str | Path) -> Self | None:
        """Those of an export; None where the folder is none.

        Raises:
            ModelError: they cannot be read.
        """
        path = cls.file(folder)
        if not path.is_file():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(f"{path}: not the settings of this toolkit's version ({error}); export again") from error


@dataclass(frozen=True)
class Wish:
    """Codes of the language spoken and of that to translate into, both "" where nothing is said; keywords."""

    heard: str
    written: str
    keywords: tuple[str, ...]

    @classmethod
    def of(cls, heard: str | None, written: str | None, keywords: str | Iterable[str]) -> Self:
        """Checked and in one spelling; keywords in one string stand between commas.

        Raises:
            RecipeError: an unknown language, a translation into the language spoken, a bad keyword.
        """
        wish = cls(_code(heard, HEARD), _code(written, WRITTEN), _keywords(keywords))
        if wish.written and wish.heard == wish.written:
            raise RecipeError(f"speech in {HEARD[wish.heard]} needs no translation into it")
        return wish

    @property
    def instruction(self) -> str:
        """To translate, in the words of the model card of granite-speech-4.1 (4.0's gives none); else ""."""
        return f"translate the speech to {WRITTEN[self.written]}." if self.written else ""


def _code(said: str | None, known: dict[str, str]) -> str:
    """`fr` for `fr`, `fr-CA` or `French`."""
    if not said:
        return ""
    name = said.strip().lower().replace("_", "-")
    names = {value.lower(): code for code, value in known.items()}
    code = names.get(name, name.split("-")[0])
    if code in known:
        return code
    raise RecipeError(
        f"language {said!r} is not one of " + ", ".join(f"{key} ({value})" for key, value in known.items())
    )


def _keywords(words: str | Iterable[str]) -> tuple[str, ...]:
    """Trimmed, in the order given, each once; empty ones left out."""
    kept: dict[str, None] = {}
    for word in map(str.strip, words.split(",") if isinstance(words, str) else words):
        bad = next((char for char in word if char == "," or category(char) in CONTROLS), None)
        if bad:
            raise RecipeError(f"keyword {word!r} holds {bad!r}; give each keyword for itself, on one line")
        if word:
            kept[word] = None
    return tuple(kept)
