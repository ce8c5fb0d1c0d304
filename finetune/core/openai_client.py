"""Requests to an OpenAI-compatible server: address and key from the environment, retries, errors without the key."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from finetune.core.errors import ModelError
from finetune.core.wording import count

URL, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"  # environment variables
OPENAI = "https://api.openai.com/v1"
CONNECT_TIMEOUT = 10.0  # seconds
FATAL_STATUS = (401, 403, 404)  # wrong key, permission, address or model: every request would fail
RETRY_STATUS = (408, 425, 429)  # and all from 500


@dataclass(frozen=True)
class Retries:
    """Limits of retries.

    Attributes:
        attempts: requests for one clip or text.
        timeout: seconds to wait for a response.
        max_pause: longest pause between two attempts in seconds, even if the server asks for more.
        sleep: waits a number of seconds.
    """

    attempts: int = 5
    timeout: float = 120.0
    max_pause: float = 60.0
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Answer:
    """A successful response and the seconds of its request, or None and the `error`."""

    response: httpx.Response | None
    seconds: float = 0.0
    error: str = ""


class OpenAIClient:
    """Sends requests of one kind to one model.

    Args:
        model: name of the model at the server.
        route: such as `/audio/transcriptions`.
        retries: limits of retries.

    Raises:
        ModelError: the key is missing or the URL is invalid.
    """

    def __init__(self, model: str, route: str, retries: Retries) -> None:
        self.model, self.retries, self.key, self.worked = model, retries, os.environ.get(KEY, "").strip(), False
        base = os.environ.get(URL, "").strip() or OPENAI
        if not self.key and base == OPENAI:
            raise ModelError(f"openai:{model}: {KEY} is not set; set it, or set {URL} to another endpoint")
        if not self.key.isascii() or not self.key.isprintable() or " " in self.key:
            raise ModelError(f"openai:{model}: {KEY} has characters that are not valid in a key; copy it again")
        try:
            self.url = httpx.URL(base.rstrip("/") + route)
        except httpx.InvalidURL as error:
            raise ModelError(f"openai:{model}: {URL} is not a valid URL") from error
        self.name = f"openai:{model} at {self.url.host or '?'}"
        if self.url.scheme not in ("http", "https") or not self.url.host:
            raise ModelError(f"openai:{model}: {URL} must begin with http:// or https:// and have a host")
        self.client = httpx.Client(
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
            timeout=httpx.Timeout(retries.timeout, connect=CONNECT_TIMEOUT),
        )

    def post(self, attempts: int, **request: Any) -> Answer:
        """Sends a request. Timeouts, status 429 and server errors are retried with increasing pauses.

        Args:
            attempts: largest number of requests.
            request: arguments of `httpx.Client.post`.

        Raises:
            ModelError: the server cannot be reached and has never answered, or it rejects the key or the model.
        """
        error = ""
        for attempt in range(attempts):
            started, pause = time.perf_counter(), 2.0**attempt
            try:
                response = self.client.post(self.url, **request)
            except httpx.ConnectError as connect_error:
                error = f"cannot be reached: {self.excerpt(str(connect_error))}"
                if attempt == attempts - 1 and not self.worked:
                    raise ModelError(f"{self.name}: {error}") from None
            except httpx.HTTPError as http_error:
                error = type(http_error).__name__
            else:
                if response.is_success:
                    return Answer(response, time.perf_counter() - started)
                error = f"HTTP {response.status_code}: {self.excerpt(response.text)}"
                if response.status_code in FATAL_STATUS:
                    raise ModelError(f"{self.name}: {error}")
                if response.status_code < 500 and response.status_code not in RETRY_STATUS:
                    return Answer(None, error=error)
                pause = _retry_after(response, pause)
            if attempt < attempts - 1:
                self.retries.sleep(min(pause, self.retries.max_pause))
        return Answer(None, error=f"{error} ({count(attempts, 'attempt')})")

    def excerpt(self, text: str) -> str:
        """Text of the server for a message: short, on one line, and without the key."""
        text = text.replace(self.key, "***") if self.key else text
        return " ".join(text.split())[:200]

    def close(self) -> None:
        self.client.close()


def _retry_after(response: httpx.Response, default: float) -> float:
    """Seconds in the header `Retry-After`; `default` if there is none or it is a date."""
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return default
