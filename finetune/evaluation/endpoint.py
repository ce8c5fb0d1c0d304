"""Transcribes clips with an OpenAI-compatible endpoint: sends each clip as a WAV file.

The request is `POST /v1/audio/transcriptions` (platform.openai.com/docs/api-reference/audio), which vLLM,
LocalAI and other servers also accept.
"""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import httpx
import soundfile

from finetune.core.openai_client import OpenAIClient, Retries
from finetune.data.audio import SAMPLE_RATE, load_utterance
from finetune.data.manifest import Utterance

PARALLEL_REQUESTS = 4
MAX_FAILURES = 3  # clips in a row that fail for the same reason; the rest is then not sent


@dataclass(frozen=True)
class Reply:
    """The text of one clip and the seconds of its request; None and the `error` if there is no text."""

    text: str | None
    seconds: float
    error: str = ""


def transcribe(model: str, clips: Sequence[Utterance], retries: Retries | None = None) -> list[Reply]:
    """Sends all clips, `PARALLEL_REQUESTS` at a time. URL and key come from the environment.

    The first clip is sent before the others, so a wrong key or model costs only one request. Timeouts, status 429 and
    server errors are retried with increasing pauses. A clip that still fails has an `error` in its reply; the next clip
    gets one attempt. After `MAX_FAILURES` clips in a row with the same error, the rest is not sent.

    Args:
        model: name of the model at the endpoint.
        clips: the clips.
        retries: the default is `Retries()`.

    Returns:
        One reply for each clip, in the same order.

    Raises:
        ModelError: the key is missing, the URL is invalid, the endpoint cannot be reached, or it rejects the key or
            the model.
        DataError: the audio of a clip cannot be read.
    """
    endpoint = _Endpoint(model, retries or Retries())
    pool = ThreadPoolExecutor(PARALLEL_REQUESTS)
    try:
        return [endpoint.send(clips[0]), *pool.map(endpoint.send, clips[1:])]
    finally:
        pool.shutdown(cancel_futures=True)
        endpoint.server.close()


class _Endpoint:
    def __init__(self, model: str, retries: Retries) -> None:
        self.model, self.retries = model, retries
        self.server = OpenAIClient(model, "/audio/transcriptions", retries)
        self.lock, self.failures, self.last_error = Lock(), 0, ""

    def send(self, clip: Utterance) -> Reply:
        """Transcribes a clip unless the endpoint has stopped working."""
        with self.lock:
            if self.failures >= MAX_FAILURES:
                return Reply(None, 0.0, f"not sent: {self.failures} clips in a row failed, with {self.last_error}")
            attempts = 1 if self.failures else self.retries.attempts
        reply = self.transcribe(clip, attempts)
        with self.lock:
            kind = reply.error.partition(" (")[0]
            self.server.worked = self.server.worked or reply.text is not None
            self.failures = 0 if reply.text is not None else self.failures + 1 if kind == self.last_error else 1
            self.last_error = kind
        return reply

    def transcribe(self, clip: Utterance, attempts: int) -> Reply:
        data = {"model": self.model, "response_format": "json", "temperature": "0"}
        if clip.language:
            data["language"] = clip.language.split("-")[0]
        answer = self.server.post(attempts, data=data, files={"file": ("clip.wav", wav_bytes(clip), "audio/wav")})
        return self._reply(answer.response, answer.seconds) if answer.response else Reply(None, 0.0, answer.error)

    def _reply(self, response: httpx.Response, seconds: float) -> Reply:
        try:
            text = response.json()["text"]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            return Reply(None, 0.0, f"the response has no `text`: {self.server.excerpt(response.text)}")
        return Reply(text, seconds)


def wav_bytes(clip: Utterance) -> bytes:
    """The samples of a clip as a WAV file of 16 bits."""
    wav = io.BytesIO()
    samples = load_utterance(clip)
    soundfile.write(wav, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return wav.getvalue()
