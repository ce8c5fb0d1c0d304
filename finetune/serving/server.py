"""Runs the application in uvicorn: a limit for slow request lines, and an end that lets started requests finish."""

import asyncio
import logging
import signal
import socket
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from finetune.core.errors import RecipeError
from finetune.core.serve_options import ServeOptions

log = logging.getLogger(__name__)

LINGER = 2.0  # seconds in which a client can read the answer to a request that it has not sent completely
BACKLOG = 1024  # connections that wait to be accepted
MAX_MESSAGE = 1 << 20  # bytes of a message of a websocket
KEEP_ALIVE = 75  # seconds; longer than clients (5) and proxies (60) reuse a connection, which must not close meanwhile
TO_TELL = 5.0  # seconds in which requests that are not finished get their error


class Protocol(H11Protocol):
    """uvicorn's HTTP protocol; closes connections whose headers come too slowly, or with a body after the answer."""

    head_seconds = ServeOptions.upload_pause
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._forget_head()
        elif self._head_timer is None:
            self._await_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.more_body and not self.transport.is_closing():
            self.loop.call_later(LINGER, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self.transport.close)

    def _forget_head(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None


class Server(uvicorn.Server):
    """Stops taking requests at the first signal, and gives those that have started some seconds to finish."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, options: ServeOptions) -> None:
        super().__init__(config)
        self._gate, self._drain = app.state.gate, options.drain
        self.signal = 0

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.signal = sig
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gate.stopping.set()
        log.info("shutting down; %d requests are not finished", self._gate.inside)
        timer = asyncio.get_running_loop().call_later(self._drain, self._gate.closing.set)
        try:
            end = asyncio.get_running_loop().time() + self._drain + TO_TELL
            while self._gate.sessions and not self.force_exit and asyncio.get_running_loop().time() < end:
                await asyncio.sleep(0.05)  # uvicorn would close their websockets at once
            await super().shutdown(sockets)
        finally:
            timer.cancel()


def serve(app: FastAPI, options: ServeOptions) -> int:
    """Serves until a signal stops it. Returns the exit code.

    Raises:
        RecipeError: the address is in use or does not exist.
    """
    sock = listen(options)
    host, port = sock.getsockname()[:2]
    log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    if not options.api_keys and not host.startswith(("127.", "::1")):
        log.warning("anyone who reaches this address can use the server; --api-keys FILE asks for a key")
    server = make_server(app, options)
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run([sock])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 128 + server.signal if server.signal else 1


def make_server(app: FastAPI, options: ServeOptions) -> Server:
    """A server that is not running yet."""
    for name in ("uvicorn", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)  # damaged requests are no matter of the log
    config = uvicorn.Config(
        app,
        http=type("Protocol", (Protocol,), {"head_seconds": options.upload_pause}),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        ws_max_size=MAX_MESSAGE,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=round(options.drain + TO_TELL),
    )
    return Server(config, app, options)


def listen(options: ServeOptions) -> socket.socket:
    """A socket at the address of the options. Raises RecipeError if it cannot be used."""
    try:
        family, _, _, _, address = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)  # from now on, connections wait instead of being refused
    except OSError as error:
        raise RecipeError(f"cannot listen on {options.host}:{options.port} ({error.strerror or error})") from error
    return sock
