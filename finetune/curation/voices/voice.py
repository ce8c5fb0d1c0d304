"""What a speech synthesizer must offer, and the audio that it returns."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Part:
    """A part of a spoken sentence: text, or its pronunciation in IPA."""

    text: str
    ipa: bool = False


@dataclass(frozen=True)
class Line:
    """A sentence to speak; `speed` and `pitch` are factors, 1 is that of the voice."""

    parts: tuple[Part, ...]
    speed: float = 1.0
    pitch: float = 1.0

    @property
    def text(self) -> str:
        """The sentence as one string, for voices that take no IPA."""
        return "".join(part.text for part in self.parts)


@dataclass(frozen=True)
class Sound:
    """Samples (N,) of one channel between -1 and 1, and their rate in Hz."""

    samples: NDArray[np.float32]
    rate: int


class Voice(Protocol):
    """One voice of one engine. To add an engine, write such a class and add it to `registry.ENGINES`.

    Attributes:
        engine: name of the engine, such as `espeak-ng`.
        name: the voice, as written after the engine and a colon.
        identity: what else decides its audio, such as the template of a command.
        takes_ipa: whether `speak` reads parts in IPA.
        parallel: whether `speak` can run in several threads at once.
    """

    engine: str
    name: str
    identity: str
    takes_ipa: bool
    parallel: bool

    def check(self) -> None:
        """Raises VoiceError or MissingExtraError if the voice is not installed; the message says what to install."""

    def speak(self, line: Line) -> Sound:
        """Synthesizes a sentence. The same sentence gives the same samples. Raises VoiceError."""
