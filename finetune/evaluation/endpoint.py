"""An OpenAI-compatible transcription endpoint: each clip sent as a WAV file; what was refused is no silence.

The request is that of `POST /v1/audio/transcriptions` (platform.openai.com/docs/api-reference/audio), which vLLM,
LocalAI and others answer too.
"""

import io
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import soundfile

from finetune.core.errors import ModelError
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.manifest import Utterance

URL, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
OPENAI = "https://api.openai.com/v1"
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 120.0
ATTEMPTS = 5
LONGEST_WAIT = 60.0  # seconds before another attempt, whatever the server asks for
PARALLEL = 4
REFUSED = (401, 403, 404)  # key, rights, address or model: no clip will be heard
BUSY = (408, 425, 429)  # and all from 500 on: worth another attempt


@dataclass(frozen=True)
class Reply:
    """`text` of one clip and the seconds it took; None and the `fault` where the endpoint gave none."""

    text: str | None
    seconds: float
    fault: str = ""


def transcribe(model: str, clips: Sequence[Utterance]) -> list[Reply]:
    """Asks for every clip, in the order given, a few at a time; URL and key come from the environment.

    Timeouts, 429 and server errors are tried again with growing pauses. A clip that still fails has a `fault`.

    Raises:
        ModelError: no key or an impossible address, an endpoint that cannot be reached or refuses the key or the model.
        DataError: the audio of a clip cannot be read.
    """
    endpoint = _Endpoint(model)
    pool = ThreadPoolExecutor(PARALLEL)
    try:
        return [endpoint.ask(clips[0]), *pool.map(endpoint.ask, clips[1:])]  # the first shows whether it is worth it
    finally:
        pool.shutdown(cancel_futures=True)
        endpoint.client.close()


class _Endpoint:
    def __init__(self, model: str) -> None:
        self.model, self.key = model, os.environ.get(KEY, "").strip()
        base = os.environ.get(URL, "").strip() or OPENAI
        if not self.key and base == OPENAI:
            raise ModelError(f"openai:{model}: {KEY} is not set; set it, or {URL} for another endpoint")
        if not self.key.isascii() or not self.key.isprintable() or " " in self.key:
            raise ModelError(f"openai:{model}: {KEY} holds characters that no key has; copy it again")
        try:
            self.url = httpx.URL(base.rstrip("/") + "/audio/transcriptions")
        except httpx.InvalidURL as error:
            raise ModelError(f"openai:{model}: {URL} is not an address") from error
        self.name = f"openai:{model} at {self.url.host or '?'}"
        if self.url.scheme not in ("http", "https") or not self.url.host:
            raise ModelError(f"openai:{model}: {URL} must begin with http:// or https:// and name a host")
        self.client = httpx.Client(
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
        )

    def ask(self, clip: Utterance) -> Reply:
        sound = io.BytesIO()
        soundfile.write(
            sound,
            load_audio(clip.audio_filepath, clip.offset, clip.duration),
            SAMPLE_RATE,
            format="WAV",
            subtype="PCM_16",
        )
        data = {"model": self.model, "response_format": "json", "temperature": "0"}
        if clip.language:
            data["language"] = clip.language.split("-")[0]
        for attempt in range(ATTEMPTS):
            started, pause = time.perf_counter(), 2.0**attempt
            try:
                answer = self.client.post(
                    self.url, data=data, files={"file": ("clip.wav", sound.getvalue(), "audio/wav")}
                )
            except httpx.ConnectError as error:
                if attempt == ATTEMPTS - 1:
                    raise ModelError(f"{self.name}: cannot be reached ({self._shown(str(error))})") from None
            except httpx.HTTPError as error:
                fault = type(error).__name__
            else:
                if answer.is_success:
                    return self._reply(answer, time.perf_counter() - started)
                fault = f"HTTP {answer.status_code}: {self._shown(answer.text)}"
                if answer.status_code in REFUSED:
                    raise ModelError(f"{self.name}: {fault}")
                if answer.status_code < 500 and answer.status_code not in BUSY:
                    return Reply(None, 0.0, fault)
                pause = _asked_pause(answer, pause)
            if attempt < ATTEMPTS - 1:
                time.sleep(min(pause, LONGEST_WAIT))
        return Reply(None, 0.0, f"{fault}, {ATTEMPTS} times")

    def _reply(self, answer: httpx.Response, seconds: float) -> Reply:
        try:
            text = answer.json()["text"]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            return Reply(None, 0.0, f"an answer without `text`: {self._shown(answer.text)}")
        return Reply(text, seconds)

    def _shown(self, text: str) -> str:
        """A server's words for a message: short, on one line, and without the key, should it repeat that."""
        text = text.replace(self.key, "***") if self.key else text
        return " ".join(text.split())[:200]


def _asked_pause(answer: httpx.Response, otherwise: float) -> float:
    """Seconds that the server asks to wait, where it does so by a number."""
    try:
        return max(0.0, float(answer.headers["retry-after"]))
    except (KeyError, ValueError):
        return otherwise
