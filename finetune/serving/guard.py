"""What a request must have before a route sees it: an API key, and no web page of another site behind it."""

import asyncio
import hmac
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finetune.core.serve_options import ServeOptions
from finetune.serving.errors import ApiError

PROTECTED = "/v1/"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
SUBPROTOCOL = "openai-insecure-api-key."  # how a browser gives a key to a websocket
DISCARD_SECONDS, DISCARD_PAUSE = 1.0, 0.5  # for the rest of a refused upload; without data
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; frame-ancestors 'none'",
    ),
)


class Guard:
    """Refuses requests without a key, and those that a page of another site sends.

    A browser lets any page send forms and open websockets to a server on this machine, so these are refused; there is
    no CORS header that would let it read answers.
    """

    def __init__(self, app: ASGIApp, options: ServeOptions) -> None:
        self._app, self._keys = app, [key.encode() for key in options.api_keys]
        self._origins = {origin.rstrip("/").lower() for origin in options.allow_origin}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        scope = {**scope, "path": scope["path"].rstrip("/") or "/"}  # `/v1/models/` is `/v1/models`
        complete = False

        async def tracked_receive() -> Message:
            nonlocal complete
            message = await receive()
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] >= 400 and not complete:
                    await _discard(tracked_receive)
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        error = self._problem(scope, Headers(scope=scope))
        if error is None:
            await self._app(scope, tracked_receive, send_with_headers)
        elif scope["type"] == "http":
            await error.response()(scope, tracked_receive, send_with_headers)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": str(error)[:100]})

    def _problem(self, scope: Scope, headers: Headers) -> ApiError | None:
        changes = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        origin = headers.get("origin", "").rstrip("/").lower()
        if changes and origin and origin not in self._origins and not _is_own(origin, headers, scope):
            return ApiError(403, "a web page of another site sent this request; see --allow-origin", None, "origin")
        if self._keys and scope["path"].startswith(PROTECTED) and not self._has_key(headers):
            message = "a wrong API key, or none; send it as `Authorization: Bearer KEY`"
            return ApiError(401, message, None, "invalid_api_key", {"WWW-Authenticate": "Bearer"})
        return None

    def _has_key(self, headers: Headers) -> bool:
        """Compares with every key, in a time that does not depend on where they differ."""
        scheme, _, value = headers.get("authorization", "").partition(" ")
        credentials = [value.strip()] if scheme.lower() == "bearer" else _keys_of_websocket(headers)
        matches = [hmac.compare_digest(key, item.encode("latin-1")) for item in credentials for key in self._keys]
        return any(matches)


def _is_own(origin: str, headers: Headers, scope: Scope) -> bool:
    """Whether a page is one of this server.

    A site can give its own name the address 127.0.0.1 after its page was loaded (DNS rebinding), so that origin and
    host agree. So a page that comes over loopback and from no proxy has the name localhost, or an address.
    """
    try:
        parts = urlsplit(origin)
        name, port = parts.hostname or "", parts.port or 80
    except ValueError:
        return False
    if parts.netloc != headers.get("host", "").lower():
        return False
    address, own_port = scope.get("server") or ("", None)
    if parts.scheme != "http" or port != own_port or not _is_loopback(address):
        return True
    return name == "localhost" or name.endswith(".localhost") or _is_ip(name)


def _is_ip(name: str) -> bool:
    with suppress(ValueError):
        ip_address(name)
        return True
    return False


def _is_loopback(address: str) -> bool:
    return _is_ip(address) and ip_address(address).is_loopback


async def _discard(receive: Receive) -> None:
    """Reads the rest of a refused upload for a short time. Its client would see a reset connection, not the answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while True:
                message = await asyncio.wait_for(receive(), DISCARD_PAUSE)
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


def _keys_of_websocket(headers: Headers) -> list[str]:
    protocols: Iterable[str] = headers.get("sec-websocket-protocol", "").split(",")
    return [name.strip().removeprefix(SUBPROTOCOL) for name in protocols if name.strip().startswith(SUBPROTOCOL)]
