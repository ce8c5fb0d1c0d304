"""Transcribes clips with an OpenAI-compatible endpoint: sends each clip as a WAV file.

The request is `POST /v1/audio/transcriptions` (platform.openai.com/docs/api-reference/audio), which vLLM,
LocalAI and other servers also accept.
"""

import io
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import httpx
import soundfile

from finetune.core.errors import ModelError
from finetune.data.audio import SAMPLE_RATE, load_utterance
from finetune.data.manifest import Utterance

URL, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"  # environment variables
OPENAI = "https://api.openai.com/v1"
CONNECT_TIMEOUT = 10.0  # seconds
PARALLEL_REQUESTS = 4
FATAL_STATUS = (401, 403, 404)  # wrong key, permission, address or model: every clip would fail
MAX_FAILURES = 3  # clips in a row that fail for the same reason; the rest is then not sent
RETRY_STATUS = (408, 425, 429)  # and all from 500


@dataclass(frozen=True)
class Retries:
    """Limits of retries.

    Attributes:
        attempts: requests for one clip.
        timeout: seconds to wait for a response.
        max_pause: longest pause between two attempts in seconds, even if the server asks for more.
        sleep: waits a number of seconds.
    """

    attempts: int = 5
    timeout: float = 120.0
    max_pause: float = 60.0
    sleep: Callable[[float], None] = time.sleep


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
        endpoint.client.close()


class _Endpoint:
    def __init__(self, model: str, retries: Retries) -> None:
        self.model, self.retries, self.key = model, retries, os.environ.get(KEY, "").strip()
        self.lock, self.failures, self.last_error, self.worked = Lock(), 0, "", False
        base = os.environ.get(URL, "").strip() or OPENAI
        if not self.key and base == OPENAI:
            raise ModelError(f"openai:{model}: {KEY} is not set; set it, or set {URL} to another endpoint")
        if not self.key.isascii() or not self.key.isprintable() or " " in self.key:
            raise ModelError(f"openai:{model}: {KEY} has characters that are not valid in a key; copy it again")
        try:
            self.url = httpx.URL(base.rstrip("/") + "/audio/transcriptions")
        except httpx.InvalidURL as error:
            raise ModelError(f"openai:{model}: {URL} is not a valid URL") from error
        self.name = f"openai:{model} at {self.url.host or '?'}"
        if self.url.scheme not in ("http", "https") or not self.url.host:
            raise ModelError(f"openai:{model}: {URL} must begin with http:// or https:// and have a host")
        self.client = httpx.Client(
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
            timeout=httpx.Timeout(retries.timeout, connect=CONNECT_TIMEOUT),
        )

    def send(self, clip: Utterance) -> Reply:
        """Transcribes a clip unless the endpoint has stopped working."""
        with self.lock:
            if self.failures >= MAX_FAILURES:
                return Reply(None, 0.0, f"not sent: {self.failures} clips in a row failed, with {self.last_error}")
            attempts = 1 if self.failures else self.retries.attempts
        reply = self.transcribe(clip, attempts)
        with self.lock:
            kind = reply.error.partition(" (")[0]
            self.worked = self.worked or reply.text is not None
            self.failures = 0 if reply.text is not None else self.failures + 1 if kind == self.last_error else 1
            self.last_error = kind
        return reply

    def transcribe(self, clip: Utterance, attempts: int) -> Reply:
        wav = _wav(clip)
        data = {"model": self.model, "response_format": "json", "temperature": "0"}
        if clip.language:
            data["language"] = clip.language.split("-")[0]
        for attempt in range(attempts):
            started, pause = time.perf_counter(), 2.0**attempt
            try:
                response = self.client.post(self.url, data=data, files={"file": ("clip.wav", wav, "audio/wav")})
            except httpx.ConnectError as connect_error:
                error = f"cannot be reached: {self._excerpt(str(connect_error))}"
                if attempt == attempts - 1 and not self.worked:
                    raise ModelError(f"{self.name}: {error}") from None
            except httpx.HTTPError as http_error:
                error = type(http_error).__name__
            else:
                if response.is_success:
                    return self._reply(response, time.perf_counter() - started)
                error = f"HTTP {response.status_code}: {self._excerpt(response.text)}"
                if response.status_code in FATAL_STATUS:
                    raise ModelError(f"{self.name}: {error}")
                if response.status_code < 500 and response.status_code not in RETRY_STATUS:
                    return Reply(None, 0.0, error)
                pause = _retry_after(response, pause)
            if attempt < attempts - 1:
                self.retries.sleep(min(pause, self.retries.max_pause))
        return Reply(None, 0.0, f"{error} ({attempts} attempts)")

    def _reply(self, response: httpx.Response, seconds: float) -> Reply:
        try:
            text = response.json()["text"]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            return Reply(None, 0.0, f"the response has no `text`: {self._excerpt(response.text)}")
        return Reply(text, seconds)

    def _excerpt(self, text: str) -> str:
        """Text of the server for a message: short, on one line, and without the key."""
        text = text.replace(self.key, "***") if self.key else text
        return " ".join(text.split())[:200]


def _wav(clip: Utterance) -> bytes:
    """The samples of a clip as a WAV file of 16 bits."""
    wav = io.BytesIO()
    samples = load_utterance(clip)
    soundfile.write(wav, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return wav.getvalue()


def _retry_after(response: httpx.Response, default: float) -> float:
    """Seconds in the header `Retry-After`; `default` if there is none or it is a date."""
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return default
