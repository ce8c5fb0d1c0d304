"""The settings of a live session: what `session.update` of OpenAI's realtime API can change."""

from dataclasses import dataclass
from typing import Any

from finetune.core.keyword_list import parse_keywords
from finetune.core.options import TranscribeOptions, override
from finetune.serving.errors import ApiError
from finetune.serving.live_audio import PADDING, PAUSE
from finetune.serving.models import Models, ServedModel

RATES = (16_000, 24_000)
PCM = ("audio/pcm", "pcm16")  # names of the format of OpenAI's API, old and new
UNCHANGED = object()
SERVER_VAD = {  # how the server detects turns, whatever values a client sends
    "type": "server_vad",
    "prefix_padding_ms": round(1000 * PADDING),
    "silence_duration_ms": round(1000 * PAUSE),
}


@dataclass(frozen=True)
class LiveSettings:
    """The settings of a session.

    Attributes:
        rate: sample rate of the client's audio in Hz.
        turn_detection: whether a pause ends an utterance; if not, only a commit or the longest window does.
    """

    model: ServedModel
    language: str = ""
    prompt: str = ""
    keywords: tuple[str, ...] = ()
    rate: int = 24_000
    turn_detection: bool = True

    def options(self) -> TranscribeOptions:
        """The options of its texts. Raises RecipeError or ModelError for values that the model does not accept."""
        options = override(
            self.model.options, language=self.language, instruction=self.prompt or None, keywords=self.keywords
        )
        self.model.check(options)
        return options

    def updated(self, event: dict[str, Any], models: Models) -> "LiveSettings":
        """The settings after a `session.update`, which changes only what it names.

        Raises:
            ApiError: the event has another form than OpenAI's, or a value that the server does not accept.
            RecipeError: a wrong keyword.
        """
        try:
            session = event.get("session") or {}
            audio = (session.get("audio") or {}).get("input") or {}
            transcription = audio.get("transcription") or session.get("input_audio_transcription") or {}
            encoding = audio.get("format") or {}
            detection = audio.get("turn_detection", session.get("turn_detection", UNCHANGED))
            rate = int(encoding.get("rate", self.rate))
            kind = encoding.get("type") or session.get("input_audio_format") or PCM[0]
            words = transcription.get("keywords", self.keywords) or ()
            language = str(transcription.get("language", self.language) or "")
            prompt = str(transcription.get("prompt", self.prompt) or "")
            model = str(transcription.get("model") or self.model.name)
            prompt.encode()  # JSON can have half of a character
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            raise ApiError(400, "the session has another form than OpenAI's", "session", "invalid_event") from error
        if kind not in PCM:
            raise ApiError(400, "the format of the audio must be audio/pcm", "session.audio.input.format.type")
        if rate not in RATES:
            raise ApiError(400, f"rate must be {' or '.join(map(str, RATES))}", "session.audio.input.format.rate")
        if not (detection is UNCHANGED or detection is None or isinstance(detection, dict)):
            message = 'turn_detection must be null, or an object such as {"type": "server_vad"}'
            raise ApiError(400, message, "session.audio.input.turn_detection")
        turn_detection = self.turn_detection if detection is UNCHANGED else detection is not None
        return LiveSettings(models.find(model), language, prompt, parse_keywords(words), rate, turn_detection)

    def description(self) -> dict[str, Any]:
        """The session as `session.created` and `session.updated` describe it."""
        transcription = {"model": self.model.name, "language": self.language or None}
        audio = {
            "format": {"type": "audio/pcm", "rate": self.rate},
            "transcription": transcription,
            "turn_detection": SERVER_VAD if self.turn_detection else None,
        }
        return {"type": "transcription", "audio": {"input": audio}}
