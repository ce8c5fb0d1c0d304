"""A transcription request from its first byte to its last: admission, upload, parameters, text, clean-up."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from finetune.core.serve_options import ServeOptions
from finetune.inference.recordings import Job
from finetune.serving.engine import Engine
from finetune.serving.errors import ApiError, draining, to_api_error
from finetune.serving.metrics import Metrics
from finetune.serving.models import Models, ServedModel
from finetune.serving.parameters import Task, check_query, model_name, read_parameters
from finetune.serving.responses import TextStream, encode_event, limit_note, respond
from finetune.serving.uploads import Form, read_form

log = logging.getLogger(__name__)

CLOSED_BY_CLIENT = 499  # as nginx logs it; no one receives it
MAX_RETRY_AFTER = 60  # seconds
MAX_HEADER = 500  # characters of a warning, which can have a prompt; a proxy refuses long headers

T = TypeVar("T")


@dataclass
class Gate:
    """Counts the requests that are uploaded, waiting or transcribed.

    Attributes:
        limit: how many there can be.
        inside: how many there are.
        sessions: how many of them are live.
        stopping: set when the server no longer takes requests.
        closing: set when the server no longer finishes requests.
    """

    limit: int
    inside: int = 0
    sessions: int = 0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def draining(self) -> bool:
        """Whether the server no longer takes requests."""
        return self.stopping.is_set()

    def enter(self, retry_after: Callable[[], int]) -> None:
        """Takes a request. Raises ApiError if there are too many, or the server is shutting down."""
        if self.draining:
            raise draining()
        if self.inside >= self.limit:
            message = f"the server works on {self.limit} requests already; send the request again later"
            raise ApiError(429, message, None, "rate_limit_exceeded", {"Retry-After": str(retry_after())})
        self.inside += 1

    def leave(self) -> None:
        self.inside -= 1


@dataclass
class _Call:
    """What is known about a request, for its log line and the metrics."""

    endpoint: str
    started: float
    model: str = ""
    audio: float = 0.0
    form: Form | None = None


class Transcriptions:
    """The handler of both endpoints of transcriptions."""

    def __init__(self, models: Models, engine: Engine, options: ServeOptions, metrics: Metrics) -> None:
        self._models, self._engine, self._options, self._metrics = models, engine, options, metrics
        self.gate = Gate(options.max_requests)

    async def handle(self, request: Request, task: Task) -> Response:
        """Answers a request. Every error becomes a response."""
        call = _Call(request.url.path, time.perf_counter())
        try:
            self.gate.enter(self._retry_after)
        except ApiError as error:
            return self._refuse(call, error)
        self._engine.scheduler.expect(id(call))
        try:
            response = await self._answer(request, task, call)
        except BaseException as error:
            self._leave(call)
            if not isinstance(error, Exception):
                raise
            return self._refuse(call, to_api_error(error))
        if not isinstance(response, _Stream):
            self._leave(call)
            self._count(call, response.status_code)
        return response

    async def _answer(self, request: Request, task: Task, call: _Call) -> Response:
        call.form = form = await self._unless_closed(request, read_form(request, self._options), watch=False)
        if form.upload is None:
            what = "`file` is text, not a file" if "file" in form.fields else "`file` is missing"
            raise ApiError(422, f"{what}; send the audio as a file", "file", "missing_file")
        if "file" in form.fields:
            raise ApiError(400, "`file` is given twice, as a file and as text", "file", "invalid_value")
        check_query(request.query_params)
        model = self._models.find(model_name(form.fields))
        call.model = model.name
        parameters = read_parameters(form.fields, task, model.options)
        options = parameters.options
        deadline = time.perf_counter() + min(parameters.deadline or self._options.deadline, self._options.deadline)
        opening = self._engine.open(form.upload, model, options)
        job = await self._unless_closed(request, _before(deadline, opening))
        call.audio = job.duration
        if parameters.stream:
            response: Response = _Stream(self._events(job, model, deadline, call), lambda: self._leave(call))
        else:
            await self._unless_closed(request, _before(deadline, self._collect(job, model, call)))
            self._log_text(job)
            response = respond(job, parameters)
        if warnings := [*model.warnings(options), *filter(None, _notes(job))]:
            response.headers["X-Finetune-Warning"] = _header("; ".join(warnings))
        return response

    async def _collect(self, job: Job, model: ServedModel, call: _Call) -> None:
        async for _ in self._engine.results(job, model, id(call)):
            pass

    async def _events(self, job: Job, model: ServedModel, deadline: float, call: _Call) -> AsyncIterator[bytes]:
        """The body of a stream. An error after its start is its last event."""
        stream, results, status = TextStream(), self._engine.results(job, model, id(call)), 200
        try:
            while (result := await self._unless_closed(None, _before(deadline, anext(results, None)))) is not None:
                for event in stream.window(result):
                    yield encode_event(event)
            self._log_text(job)
            yield encode_event(stream.done(job, model))
        except (asyncio.CancelledError, GeneratorExit):
            status = CLOSED_BY_CLIENT
            raise
        except Exception as error:
            api_error = to_api_error(error)
            status = api_error.status
            yield encode_event(api_error.body)
        finally:
            await results.aclose()
            self._count(call, status)

    async def _unless_closed(self, request: Request | None, work: Awaitable[T], watch: bool = True) -> T:
        """The result of some work, which ends if the client disconnects or the server no longer waits.

        Args:
            request: None if something else watches the client.
            watch: whether the body was read completely, so that the next message is that the client has disconnected.
        """
        tasks = [asyncio.ensure_future(work), asyncio.ensure_future(self.gate.closing.wait())]
        if request is not None and watch:
            tasks.append(asyncio.ensure_future(_gone(request)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                return tasks[0].result()
            if tasks[1].done():
                raise draining()
            raise ApiError(CLOSED_BY_CLIENT, "the client closed the connection", None, "closed")
        finally:
            for task in tasks:
                task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await tasks[0]

    def _leave(self, call: _Call) -> None:
        self.gate.leave()
        self._engine.scheduler.arrived(id(call))
        if call.form:
            call.form.close()

    def _refuse(self, call: _Call, error: ApiError) -> Response:
        self._count(call, error.status)
        return error.response()

    def _count(self, call: _Call, status: int) -> None:
        seconds = time.perf_counter() - call.started
        self._metrics.request(call.endpoint, call.model, status, seconds, call.audio)
        log.info("%s %d %s %.1f s of audio in %.2f s", call.endpoint, status, call.model or "-", call.audio, seconds)

    def _log_text(self, job: Job) -> None:
        if self._options.log_text:
            log.info("text: %s", job.transcript().text)

    def _retry_after(self) -> int:
        """Seconds until the audio that waits is transcribed, as far as the speed of the last batches tells."""
        audio = self._engine.scheduler.load()[1]
        return max(1, min(MAX_RETRY_AFTER, round(audio / self._metrics.speed) if self._metrics.speed else 1))


class _Stream(StreamingResponse):
    """A stream with a function that is called after it, also if the client disconnects before its first event."""

    def __init__(self, content: AsyncIterator[bytes], after: Callable[[], None]) -> None:
        super().__init__(content, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._after()


def _notes(job: Job) -> list[str]:
    """What `finetune transcribe` says about a recording; whether a text was cut is not known before a stream."""
    notes = [job.note.partition("; --")[0]]  # without the options of the command
    if job.transcript().truncated:
        notes.append(limit_note(job.options))
    return notes


def _header(text: str) -> str:
    """A text as the value of a header."""
    text = " ".join(text.encode("ascii", "replace").decode().split())
    return text if len(text) <= MAX_HEADER else f"{text[: MAX_HEADER - 3]}..."


async def _before(deadline: float, work: Awaitable[T]) -> T:
    """The result of some work. Raises TimeoutError at a time of `perf_counter`."""
    return await asyncio.wait_for(work, max(0.0, deadline - time.perf_counter()))


async def _gone(request: Request) -> None:
    """Returns when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
