"""Live transcription over a websocket, with the events of OpenAI's realtime API for transcriptions.

Here is the life of a connection: admission, a `LiveSession`, the last error, the end.
"""

import asyncio
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from finetune.core.serve_options import ServeOptions
from finetune.serving.engine import Engine
from finetune.serving.errors import ApiError, draining, to_api_error
from finetune.serving.live_session import LiveSession, event_text
from finetune.serving.live_settings import LiveSettings
from finetune.serving.models import Models
from finetune.serving.transcriptions import Gate

IDLE = 300.0  # seconds without an event


class Realtime:
    """The handler of the websocket."""

    def __init__(self, models: Models, engine: Engine, options: ServeOptions, gate: Gate, idle: float = IDLE) -> None:
        self._models, self._engine, self._options, self._gate, self._idle = models, engine, options, gate, idle

    async def handle(self, socket: WebSocket) -> None:
        """Serves a session until the client closes it. An error is sent before the server closes."""
        offered = socket.scope.get("subprotocols", [])
        await socket.accept("realtime" if "realtime" in offered else None)
        try:
            self._gate.enter(lambda: 1)
        except ApiError as error:
            await _refuse(socket, error)
            return
        self._gate.sessions += 1
        closing = asyncio.ensure_future(self._gate.closing.wait())
        session = asyncio.ensure_future(self._session(socket))
        try:
            await asyncio.wait({session, closing}, return_when=asyncio.FIRST_COMPLETED)
            if session.done():
                session.result()
            else:
                await _refuse(socket, draining())
        except WebSocketDisconnect:
            pass
        except Exception as error:
            await _refuse(socket, to_api_error(error))
        finally:
            closing.cancel()
            session.cancel()
            self._gate.sessions -= 1
            self._gate.leave()

    async def _session(self, socket: WebSocket) -> None:
        settings = LiveSettings(self._models.find(socket.query_params.get("model")))
        session = LiveSession(socket, settings, self._models, self._engine, self._options)
        receiving = asyncio.ensure_future(session.receive(self._idle))
        working = asyncio.ensure_future(session.work())
        stopping = asyncio.ensure_future(self._gate.stopping.wait())
        tasks = (receiving, working, stopping)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            receiving.cancel()  # the server shuts down
            session.end()
            await working
            raise draining()
        finally:
            for task in tasks:
                task.cancel()
            session.close()


async def _refuse(socket: WebSocket, error: ApiError) -> None:
    """Sends an error as OpenAI does, and closes."""
    with suppress(RuntimeError, WebSocketDisconnect):
        await socket.send_text(event_text("error", **error.body))
        await socket.close(1011 if error.status >= 500 else 1008)
