"""Voices of an OpenAI-compatible server: `POST /v1/audio/speech` (extra [compare])."""

from functools import cached_property
from typing import TYPE_CHECKING

from finetune.core.errors import RecipeError, VoiceError
from finetune.core.extras import require
from finetune.curation.voices.program import read_sound
from finetune.curation.voices.voice import Line, Sound

if TYPE_CHECKING:
    from finetune.core.openai_client import OpenAIClient, Retries


class EndpointVoice:
    """A voice such as `MODEL#VOICE`; `OPENAI_BASE_URL` and `OPENAI_API_KEY` name the server.

    Raises:
        RecipeError: the name has no model or no voice.
    """

    engine = "openai"
    takes_ipa, parallel = False, True
    identity = ""

    def __init__(self, name: str, retries: "Retries | None" = None) -> None:
        self.name, self.retries = name, retries
        self.model, _, self.voice = name.partition("#")
        if not self.model or not self.voice:
            raise RecipeError(
                f"--voice openai:{name} must have the form openai:MODEL#VOICE, such as openai:tts-1#alloy"
            )

    def check(self) -> None:
        self._client.name  # noqa: B018 (reads the address and the key)

    def speak(self, line: Line) -> Sound:
        body = {"model": self.model, "voice": self.voice, "input": line.text, "response_format": "wav"}
        answer = self._client.post(
            self._client.retries.attempts, json=body | ({"speed": round(line.speed, 3)} if line.speed != 1 else {})
        )
        if answer.response is None:
            raise VoiceError(f"{self._client.name}: {answer.error}")
        self._client.worked = True
        try:
            return read_sound(answer.response.content, self._client.name)
        except VoiceError as error:  # some servers report errors with status 200
            text = self._client.excerpt(answer.response.text)
            raise VoiceError(
                f"{error}: {text}" if text.isprintable() and "\ufffd" not in text else str(error)
            ) from error

    @cached_property
    def _client(self) -> "OpenAIClient":
        require("httpx", extra="compare")
        from finetune.core.openai_client import OpenAIClient, Retries

        return OpenAIClient(self.model, "/audio/speech", self.retries or Retries())
