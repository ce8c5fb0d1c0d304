"""Sends one transcription request to an OpenAI-compatible server and measures it; asks the server for its models."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from finetune.core.errors import ModelError
from finetune.core.openai_client import CONNECT_TIMEOUT, KEY
from finetune.serving.bench_plan import Clip
from finetune.serving.bench_result import Outcome

EXCERPT = 200  # characters of a message of the server
ROUTE = "/audio/transcriptions"


@dataclass(frozen=True)
class Reply:
    """The text of an answer, or None and why there is none; `first_text` is a time of `time.perf_counter`."""

    text: str | None
    error: str = ""
    detail: str = ""
    first_text: float | None = None


class BenchClient:
    """Requests to one server, as many at once as needed. The key is that of the environment.

    Args:
        url: the address, with or without `/v1`.
        form: the fields of each request beside the file.
        stream: ask for the events of a stream.
        timeout: seconds for a request, from sending it to its complete answer.

    Raises:
        ModelError: the address is not one of HTTP.
    """

    def __init__(self, url: str, form: Mapping[str, str], stream: bool, timeout: float) -> None:
        self.url = _base_url(url)
        self.form = {**form, **({"stream": "true"} if stream else {})}
        self.stream, self.timeout = stream, timeout
        key = os.environ.get(KEY, "").strip()
        self.http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT), pool=None),
            limits=httpx.Limits(max_connections=None),
        )

    async def first_model(self) -> str:
        """The first model that the server lists. Raises ModelError, see `models`."""
        return (await self.models())[0]

    async def models(self) -> list[str]:
        """The models that the server lists.

        Raises:
            ModelError: the server cannot be reached, answers an error or lists no model.
        """
        try:
            response = await self.http.get(f"{self.url}/models")
        except httpx.HTTPError as error:
            raise ModelError(f"{self.url}: {_unreachable(error)}; start the server, or correct the address") from error
        if not response.is_success:
            hint = f"; set {KEY}" if response.status_code in (401, 403) else "; name the model with --model"
            raise ModelError(f"{self.url}/models: HTTP {response.status_code}: {_message(response.text)}{hint}")
        try:
            names = [str(item["id"]) for item in response.json()["data"]]
        except (ValueError, LookupError, TypeError):
            names = []
        if not names:
            raise ModelError(f"{self.url}/models: no list of models; name the model with --model")
        return names

    async def send(self, clip: Clip, number: int, start: float, planned: float, variant: int = 0) -> Outcome:
        """Sends a clip and waits for the complete answer. Failures are outcomes.

        Args:
            clip: what is uploaded.
            number: the number of the clip.
            start: the time of `time.perf_counter` from which the times of the outcome count.
            planned: when the request should be sent, in seconds after `start`.
            variant: how many uploads the clip had before, if the uploads differ.
        """
        sent = time.perf_counter() - start
        try:
            async with asyncio.timeout(self.timeout):
                reply = await self._request(clip)
        except (TimeoutError, httpx.TimeoutException):
            reply = Reply(None, "timeout", f"no complete answer after {self.timeout:g} s")
        except httpx.HTTPError as error:
            reply = Reply(None, "no connection", _unreachable(error))
        ended = time.perf_counter() - start
        first = None if reply.first_text is None else reply.first_text - start
        return Outcome(
            number, clip.seconds, planned, sent, ended, reply.text, reply.error, reply.detail, first, variant
        )

    async def _request(self, clip: Clip) -> Reply:
        files = {"file": (clip.name, clip.content, "application/octet-stream")}
        form = {**self.form, **clip.form}
        async with self.http.stream("POST", self.url + ROUTE, data=form, files=files) as response:
            kind = response.headers.get("content-type", "")
            if response.is_success and (self.stream or kind.startswith("text/event-stream")):
                return await _read_events(response.aiter_lines())
            body = (await response.aread()).decode(errors="replace")
        if not response.is_success:
            return Reply(None, f"HTTP {response.status_code}", _message(body))
        if not kind.startswith("application/json"):
            return Reply(body)  # text, srt or vtt
        try:
            text = json.loads(body)["text"]
        except (ValueError, LookupError, TypeError):
            text = None
        return Reply(text) if isinstance(text, str) else Reply(None, "no text in the answer", _message(body))

    async def close(self) -> None:
        await self.http.aclose()


async def _read_events(lines: AsyncIterator[str]) -> Reply:
    """Reads the events of a stream: those of OpenAI, and those of vLLM, which have `choices`."""
    parts, done, first = list[str](), None, None
    async for line in lines:
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data == "[DONE]":
            continue
        try:
            event = json.loads(data)
        except ValueError:
            return Reply(None, "not an event of a stream", _message(data))
        if not isinstance(event, dict) or event.get("error") or event.get("type") == "error":
            return Reply(None, "error in the stream", _message(data))
        part = _delta(event)
        if part and first is None:
            first = time.perf_counter()
        parts.append(part)
        if event.get("type") == "transcript.text.done":
            done = str(event.get("text", ""))
    if done is None and not any(parts):
        return Reply(None, "no text in the answer")
    return Reply("".join(parts) if done is None else done, first_text=first)


def _delta(event: dict[str, Any]) -> str:
    choices = event.get("choices") or [{}]
    delta = event.get("delta") or choices[0].get("delta", {}).get("content")
    return delta if isinstance(delta, str) else ""


def _base_url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ModelError(f"{url}: not an address of a server; write it as http://127.0.0.1:8000/v1")
    base = str(parsed).rstrip("/")
    return base if base.endswith("/v1") else f"{base}/v1"


def _unreachable(error: httpx.HTTPError) -> str:
    return f"cannot be reached ({' '.join(str(error).split())[:EXCERPT] or type(error).__name__})"


def _message(body: str) -> str:
    """The message of an error in OpenAI's shape, or the beginning of the answer; on one line."""
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, LookupError, TypeError):
        message = body
    return " ".join(str(message).split())[:EXCERPT]
