"""Live transcription over a websocket, with the events of OpenAI's realtime API for transcriptions.

The client sends `input_audio_buffer.append` with 16-bit PCM in base64. The server finds utterances by pauses. While one
is spoken it sends the text of the CTC head, which can change, and after it the text of the language model.
"""

import asyncio
import base64
import binascii
import json
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import soxr
from starlette.websockets import WebSocket, WebSocketDisconnect

from finetune.core.options import override, parse_keywords
from finetune.core.serve_options import ServeOptions
from finetune.data.audio import MIN_SAMPLES, SAMPLE_RATE
from finetune.data.manifest import Utterance
from finetune.data.waveform import Recording
from finetune.inference.recordings import Job
from finetune.inference.segments import join_texts
from finetune.inference.window_batches import Result
from finetune.serving.ctc_model import CtcModel
from finetune.serving.engine import Engine
from finetune.serving.errors import ApiError, draining, to_api_error
from finetune.serving.live_audio import LiveAudio, Spoken
from finetune.serving.models import Models, ServedModel
from finetune.serving.scheduler import Task
from finetune.serving.transcriptions import Gate

STEP = 0.2  # seconds of new audio after which speech is looked for
RATES = (16_000, 24_000)
MAX_WAITING = 60.0  # seconds of audio that a client can be ahead
MAX_EVENTS = 10_000  # events that a client can be ahead
IDLE = 300.0  # seconds without an event
PCM = ("audio/pcm", "pcm16")  # names of the format of OpenAI's API, old and new
ITEM = "conversation.item.input_audio_transcription"


class Mark(Enum):
    """An event between the audio."""

    COMMIT = "commit"
    CLEAR = "clear"


@dataclass
class _Settings:
    """What `session.update` can change."""

    model: ServedModel
    language: str = ""
    prompt: str = ""
    keywords: tuple[str, ...] = ()
    rate: int = 24_000


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
        settings = _Settings(self._models.find(socket.query_params.get("model")))
        session = _Session(socket, settings, self._models, self._engine, self._options)
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


class _Session:
    """One connection: one task receives, one finds utterances and transcribes them."""

    def __init__(
        self, socket: WebSocket, settings: _Settings, models: Models, engine: Engine, options: ServeOptions
    ) -> None:
        self._socket, self._settings, self._models, self._engine = socket, settings, models, engine
        self._max_audio = options.max_audio
        self._new = asyncio.Event()
        self._received: list[Any] = []  # waves that were not looked at, with the marks between them
        self._waiting = 0  # samples in them
        self._has_audio = self._ended = False
        self._items = 0
        self._tasks: list[Task] = []
        self._configure()

    def close(self) -> None:
        for task in self._tasks:
            self._engine.scheduler.cancel(task)

    def end(self) -> None:
        """Lets `work` return after the text of what has come."""
        self._ended = True
        self._received.append(Mark.COMMIT)
        self._new.set()

    async def receive(self, idle: float) -> None:
        """Reads the events of the client, with at most `idle` seconds between two of them."""
        await self._send("session.created", session=self._description())
        while True:
            event = await self._event(idle)
            kind = event["type"]
            if kind == "input_audio_buffer.append":
                self._append(event)
            elif kind in ("input_audio_buffer.commit", "input_audio_buffer.clear"):
                self._mark(Mark(kind.rpartition(".")[2]))
            elif kind in ("session.update", "transcription_session.update"):
                await self._update(event)
            else:
                raise ApiError(400, f"unknown event {str(kind)[:100]!r}", "type", "unknown_event")

    async def _event(self, idle: float) -> dict[str, Any]:
        try:
            message = await asyncio.wait_for(self._socket.receive_text(), idle)
        except TimeoutError as error:
            raise ApiError(408, f"no event for {idle:g} s", None, "idle") from error
        except KeyError as error:
            raise ApiError(400, "send events as text, not as binary frames", None, "invalid_event") from error
        try:
            event = json.loads(message)
        except (ValueError, TypeError, RecursionError) as error:
            raise ApiError(400, "not JSON", None, "invalid_event") from error
        if not isinstance(event, dict) or "type" not in event:
            raise ApiError(400, "not a JSON object with a `type`", None, "invalid_event")
        return event

    async def work(self) -> None:
        """Sends the texts of utterances, in order; returns only after `end`."""
        while True:
            await self._new.wait()
            mark, ended = self._take(), self._ended and not self._received
            if mark is Mark.CLEAR:
                self._live.clear()
                await self._send("input_audio_buffer.cleared")
                continue
            if self._live.seconds > self._max_audio:
                raise ApiError(413, f"a session has at most {self._max_audio:g} s of audio", None, "audio_too_long")
            while (spoken := await asyncio.to_thread(self._live.finished)) is not None:
                await self._finish(spoken)
            if mark:
                while (spoken := await asyncio.to_thread(self._live.rest)) is not None:
                    await self._finish(spoken)
                await self._send("input_audio_buffer.committed", item_id=self._item)
                if ended:
                    return
            elif (spoken := await asyncio.to_thread(self._live.current)) is not None:
                result = await self._transcribe(spoken, self._ctc)
                await self._send(f"{ITEM}.partial", item_id=self._item, text=_text(result))

    @property
    def _item(self) -> str:
        return f"item_{self._items}"

    def _configure(self) -> None:
        """Applies the settings. Raises RecipeError or ModelError for values that the model does not accept."""
        settings = self._settings
        options = override(
            settings.model.options,
            language=settings.language,
            instruction=settings.prompt or None,
            keywords=settings.keywords,
        )
        settings.model.check(options)
        self._chosen, self._ctc = options, CtcModel(settings.model)
        self._live = LiveAudio(options.max_window)
        self._resample = soxr.ResampleStream(settings.rate, SAMPLE_RATE, 1, quality="HQ")

    async def _update(self, event: dict[str, Any]) -> None:
        """Changes the settings, before the first audio."""
        if self._has_audio:
            raise ApiError(400, "send session.update before the first audio", "session", "invalid_event")
        try:
            session = event.get("session") or {}
            audio = (session.get("audio") or {}).get("input") or {}
            chosen = audio.get("transcription") or session.get("input_audio_transcription") or {}
            shape = audio.get("format") or {}
            rate = int(shape.get("rate", self._settings.rate))
            kind = shape.get("type") or session.get("input_audio_format") or PCM[0]
            words = chosen.get("keywords") or ()
            language, prompt = str(chosen.get("language") or ""), str(chosen.get("prompt") or "")
            model = str(chosen.get("model") or self._settings.model.name)
            prompt.encode()  # JSON can have half of a character
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            raise ApiError(400, "the session has another form than OpenAI's", "session", "invalid_event") from error
        if kind not in PCM:
            raise ApiError(400, "the format of the audio must be audio/pcm", "session.audio.input.format.type")
        if rate not in RATES:
            raise ApiError(400, f"rate must be {' or '.join(map(str, RATES))}", "session.audio.input.format.rate")
        self._settings = _Settings(self._models.find(model), language, prompt, parse_keywords(words), rate)
        await asyncio.to_thread(self._configure)  # a long prompt takes a while
        await self._send("session.updated", session=self._description())

    def _mark(self, mark: Mark) -> None:
        self._queue(mark)
        self._new.set()

    def _queue(self, item: Any) -> None:
        if len(self._received) >= MAX_EVENTS:
            raise ApiError(429, f"{MAX_EVENTS} events wait already; send fewer and larger ones", None, "too_fast")
        self._received.append(item)

    def _take(self) -> Mark | None:
        """Takes the audio up to the next mark, or all of it. Returns the mark."""
        received = self._received
        count = next((number for number, item in enumerate(received) if isinstance(item, Mark)), len(received))
        mark = received[count] if count < len(received) else None
        samples = np.concatenate([np.zeros(0, np.float32), *received[:count]])
        del received[: count + 1]
        self._waiting -= len(samples)
        self._live.add(samples)
        if not received:
            self._new.clear()
        return mark

    def _append(self, event: dict[str, Any]) -> None:
        try:
            content = base64.b64decode(event["audio"], validate=True)
            pcm = np.frombuffer(content, "<i2")
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise ApiError(400, "audio must be 16-bit PCM in base64", "audio", "invalid_audio") from error
        if not len(pcm):
            return
        wave = self._resample.resample_chunk(pcm.astype(np.float32) / 32768)
        self._has_audio = True
        self._queue(wave)
        self._waiting += len(wave)
        waiting = self._waiting / SAMPLE_RATE
        if waiting > MAX_WAITING:
            raise ApiError(429, f"{MAX_WAITING:g} s of audio wait already; send it slower", None, "too_fast")
        if waiting >= STEP:
            self._new.set()

    async def _finish(self, spoken: Spoken) -> None:
        """Sends the final text of an utterance, if it has one."""
        if len(spoken.samples) < MIN_SAMPLES:
            return
        text = _text(await self._transcribe(spoken, self._settings.model))
        if text:
            times = {"start": round(spoken.start, 3), "end": round(spoken.end, 3)}
            await self._send(f"{ITEM}.delta", item_id=self._item, content_index=0, delta=text)
            await self._send(f"{ITEM}.completed", item_id=self._item, content_index=0, transcript=text, **times)
            self._items += 1

    async def _transcribe(self, spoken: Spoken, model: ServedModel | CtcModel) -> Result:
        options, seconds = self._chosen, len(spoken.samples) / SAMPLE_RATE
        if len(spoken.samples) < MIN_SAMPLES:
            return []
        utterance = Utterance(
            "live",
            "live",
            seconds,
            "",
            language=options.text_language,
            keywords=options.keywords,
            instruction=options.prompt(self._settings.model.network.profile),
        )
        task = Task(model)
        self._tasks = [task]
        window = Job(Recording("live", spoken.samples), options).window(utterance)
        return await asyncio.wrap_future(self._engine.scheduler.add(task, window))

    def _description(self) -> dict[str, Any]:
        settings = self._settings
        transcription = {"model": settings.model.name, "language": settings.language or None}
        audio = {"format": {"type": "audio/pcm", "rate": settings.rate}, "transcription": transcription}
        return {"type": "transcription", "audio": {"input": audio}}

    async def _send(self, kind: str, **content: Any) -> None:
        await self._socket.send_text(json.dumps({"type": kind, **content}, ensure_ascii=False))


def _text(result: Result) -> str:
    return join_texts(segment.text for segment, _ in result)


async def _refuse(socket: WebSocket, error: ApiError) -> None:
    """Sends an error as OpenAI does, and closes."""
    with suppress(RuntimeError, WebSocketDisconnect):
        await socket.send_text(json.dumps({"type": "error", **error.body}))
        await socket.close(1011 if error.status >= 500 else 1008)
