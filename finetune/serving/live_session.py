"""A live session: one task receives the events of the client, one finds utterances and transcribes them.

While an utterance is spoken the client gets the text of the CTC head, which can change, and after it the text of the
language model.
"""

import asyncio
import json
from typing import Any
from uuid import uuid4

import numpy as np
from starlette.websockets import WebSocket

from finetune.core.serve_options import ServeOptions
from finetune.data.audio import MIN_SAMPLES, SAMPLE_RATE
from finetune.data.manifest import Utterance
from finetune.data.waveform import Recording
from finetune.inference.recordings import Job
from finetune.inference.segments import join_texts
from finetune.serving.audio_queue import AudioQueue, Mark
from finetune.serving.ctc_model import CtcModel
from finetune.serving.engine import Engine
from finetune.serving.errors import ApiError
from finetune.serving.live_audio import LiveAudio, Spoken
from finetune.serving.live_settings import LiveSettings
from finetune.serving.models import Models, ServedModel
from finetune.serving.responses import limit_note
from finetune.serving.scheduler import Task

ITEM = "conversation.item.input_audio_transcription"


class LiveSession:
    """One connection.

    Attributes:
        queue: what the client has sent.
    """

    def __init__(
        self, socket: WebSocket, settings: LiveSettings, models: Models, engine: Engine, options: ServeOptions
    ) -> None:
        self._socket, self._settings, self._models, self._engine = socket, settings, models, engine
        self._max_audio = options.max_audio
        self.queue = AudioQueue(settings.rate)
        self._items = 0
        self._tasks: list[Task] = []
        self._configure()

    def close(self) -> None:
        for task in self._tasks:
            self._engine.scheduler.cancel(task)

    def end(self) -> None:
        """Lets `work` return after the text of what has come."""
        self.queue.end()

    async def receive(self, idle: float) -> None:
        """Reads the events of the client, with at most `idle` seconds between two of them."""
        await self._describe("session.created")
        while True:
            event = await self._event(idle)
            kind = event["type"]
            if kind == "input_audio_buffer.append":
                self.queue.append(event)
            elif kind in ("input_audio_buffer.commit", "input_audio_buffer.clear"):
                self.queue.mark(Mark(kind.rpartition(".")[2]))
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
            samples, mark = await self.queue.take()
            ended = self.queue.ended
            self._live.add(samples)
            if mark is Mark.CLEAR:
                self._live.clear()
                await self._send("input_audio_buffer.cleared")
                continue
            if self._live.seconds > self._max_audio:
                raise ApiError(413, f"a session has at most {self._max_audio:g} s of audio", None, "audio_too_long")
            while (spoken := await asyncio.to_thread(self._live.finished)) is not None:
                await self._finish(spoken, "server")
            if mark:
                await self._commit(ended)
                if ended:
                    return
            elif (spoken := await asyncio.to_thread(self._live.current)) is not None:
                text, _ = await self._transcribe(spoken, self._ctc)
                await self._send(f"{ITEM}.partial", item_id=_item_id(self._items), text=text)

    async def _commit(self, ended: bool) -> None:
        """Ends the utterance that has not ended. A commit of the client makes an item also without speech."""
        utterances = []
        while (spoken := await asyncio.to_thread(self._live.rest)) is not None:
            utterances.append(spoken)
        if not utterances and not ended:
            utterances = [Spoken(self._live.seconds, np.zeros(0, np.float32))]
        for number, spoken in enumerate(utterances, 1):
            await self._finish(spoken, "client" if number == len(utterances) and not ended else "server")

    def _configure(self) -> None:
        """Applies the settings. Raises RecipeError or ModelError for values that the model does not accept."""
        self._options, self._ctc = self._settings.options(), CtcModel(self._settings.model)
        self._live = LiveAudio(self._options.decoding.max_window, self._settings.turn_detection)
        self.queue.set_rate(self._settings.rate)

    async def _update(self, event: dict[str, Any]) -> None:
        """Changes the settings, before the first audio."""
        if self.queue.has_audio:
            raise ApiError(400, "send session.update before the first audio", "session", "invalid_event")
        self._settings = self._settings.updated(event, self._models)
        await asyncio.to_thread(self._configure)  # a long prompt takes a while
        await self._describe("session.updated")

    async def _describe(self, kind: str) -> None:
        """Sends the settings, and what is known to be wrong with them."""
        warnings = self._settings.model.warnings(self._options)
        await self._send(kind, session=self._settings.description(), **_warnings(warnings))

    async def _finish(self, spoken: Spoken, committed_by: str) -> None:
        """Makes an item of an utterance, then sends its final text, which is empty if there is no speech in it."""
        item, previous = _item_id(self._items), _item_id(self._items - 1) if self._items else None
        self._items += 1
        await self._send(
            "input_audio_buffer.committed", item_id=item, previous_item_id=previous, committed_by=committed_by
        )
        text, truncated = await self._transcribe(spoken, self._settings.model)
        if text:
            await self._send(f"{ITEM}.delta", item_id=item, content_index=0, delta=text)
        times = {"start": round(spoken.start, 3), "end": round(spoken.end, 3)}
        notes = _warnings([limit_note(self._options)] if truncated else [])
        await self._send(f"{ITEM}.completed", item_id=item, content_index=0, transcript=text, **times, **notes)

    async def _transcribe(self, spoken: Spoken, model: ServedModel | CtcModel) -> tuple[str, bool]:
        """The text of an utterance, "" without speech, and whether it reached the limit of tokens."""
        if len(spoken.samples) < MIN_SAMPLES:
            return "", False
        options = self._options
        utterance = Utterance(
            "live",
            "live",
            len(spoken.samples) / SAMPLE_RATE,
            "",
            language=options.text_language,
            keywords=options.keywords,
            instruction=options.prompt(self._settings.model.network.profile),
        )
        task = Task(model)
        self._tasks = [task]
        window = Job(Recording("live", spoken.samples), options).window(utterance)
        result = await asyncio.wrap_future(self._engine.scheduler.add(task, window))
        truncated = any(hypothesis.truncated for _, hypothesis in result)
        return join_texts(segment.text for segment, _ in result), truncated

    async def _send(self, kind: str, **content: Any) -> None:
        await self._socket.send_text(event_text(kind, **content))


def _warnings(texts: list[str]) -> dict[str, list[str]]:
    """The field of an event with warnings, which OpenAI's events do not have; empty without any."""
    return {"warnings": texts} if texts else {}


def event_text(kind: str, **content: Any) -> str:
    """A server event as JSON, with an id of its own."""
    return json.dumps({"type": kind, "event_id": f"event_{uuid4().hex}", **content}, ensure_ascii=False)


def _item_id(number: int) -> str:
    return f"item_{number}"
