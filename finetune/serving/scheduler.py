"""Dynamic batching: one thread owns the models and transcribes the windows that requests are waiting for.

Each batch takes what waits at that moment: windows of one model, from one request after the other, so a long recording
does not hold up a short one. A batch starts some milliseconds later if requests that have just come are still being
read, so that the first of several does not get a batch of its own. The text of a window does not depend on the batch it
is in.
"""

import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Protocol

import torch

from finetune.core.errors import DataError
from finetune.core.wording import count
from finetune.inference.window_batches import Result, Window

log = logging.getLogger(__name__)

GATHER = 0.02  # seconds after its arrival in which a request without windows holds up a batch


class Model(Protocol):
    """What the scheduler needs of a model."""

    name: str

    def transcribe(self, windows: Sequence[Window], batch_seconds: float) -> list[Result]: ...


class Observer(Protocol):
    """Receives the figures of each batch, for metrics."""

    def batch(self, model: str, windows: int, audio: float, seconds: float) -> None: ...


@dataclass(eq=False)
class _Waiting:
    window: Window
    future: "Future[Result]"
    since: float

    @property
    def duration(self) -> float:
        return self.window.utterance.duration


@dataclass(eq=False)
class Task:
    """The windows of one request that wait for a batch."""

    model: Model
    waiting: deque[_Waiting] = field(default_factory=deque)


class Scheduler:
    """The queue of windows and the thread that empties it.

    Args:
        batch_seconds: padded audio in a batch.
        observer: receives the figures of each batch.
        gather: seconds that a batch waits at most for requests that have just come.
    """

    def __init__(self, batch_seconds: float, observer: Observer | None = None, gather: float = GATHER) -> None:
        self._batch_seconds, self._observer, self._gather = batch_seconds, observer, gather
        self._coming: dict[object, float] = {}  # requests without windows, and when they came
        self._tasks: deque[Task] = deque()  # in the order in which their next window is served
        self._changed, self._stopped = Condition(), False
        self._thread = Thread(target=self._work, name="scheduler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ends the thread after its batch; windows that wait are dropped."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def add(self, task: Task, window: Window) -> "Future[Result]":
        """Adds a window to the queue. The future gets its result or its error."""
        future = Future[Result]()
        with self._changed:
            if self._stopped or not self.alive:
                raise RuntimeError("the scheduler has stopped")
            if not task.waiting:
                self._tasks.append(task)
            task.waiting.append(_Waiting(window, future, time.monotonic()))
            self._changed.notify()
        return future

    def expect(self, request: object) -> None:
        """Announces a request whose windows will come soon."""
        with self._changed:
            self._coming[request] = time.monotonic()

    def arrived(self, request: object) -> None:
        """Ends `expect`: windows of the request wait, or it has none. A second call does nothing."""
        with self._changed:
            if self._coming.pop(request, None) is not None:
                self._changed.notify()

    def cancel(self, task: Task) -> None:
        """Drops the windows of a request that wait."""
        with self._changed:
            task.waiting.clear()  # frees the samples
            if task in self._tasks:
                self._tasks.remove(task)

    def load(self) -> tuple[int, float]:
        """The number of windows that wait, and their seconds of audio."""
        with self._changed:
            windows = [item for task in self._tasks for item in task.waiting]
        return len(windows), sum(item.duration for item in windows)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._tasks and not self._stopped:
                    self._changed.wait()
                while not self._stopped and (seconds := self._seconds_to_gather()) > 0:
                    self._changed.wait(seconds)
                if self._stopped:
                    return
                if not self._tasks:  # the last one was given up
                    continue
                model, batch = self._next_batch()
            started = time.perf_counter()
            self._transcribe(model, batch)
            if self._observer:
                audio = sum(item.duration for item in batch)
                self._observer.batch(model.name, len(batch), audio, time.perf_counter() - started)

    def _seconds_to_gather(self) -> float:
        """How long the next batch waits for requests that came less than `gather` ago; not above 0 for a full batch.

        Nothing waits longer than `gather` for this, so a slow upload and a steady stream of requests hold up little.
        """
        waiting = [item for task in self._tasks for item in task.waiting]
        if not waiting or not self._coming or sum(item.duration for item in waiting) >= self._batch_seconds:
            return 0.0
        oldest = min(item.since for item in waiting)
        return min(oldest, max(self._coming.values())) + self._gather - time.monotonic()

    def _next_batch(self) -> tuple[Model, list[_Waiting]]:
        """The next windows of the model whose window has waited longest, from its requests in turn."""
        model = min(self._tasks, key=lambda task: task.waiting[0].since).model
        batch: list[_Waiting] = []
        longest = 0.0
        skipped: list[Task] = []  # of other models, or with a window that does not fit
        while self._tasks:
            task = self._tasks.popleft()
            duration = max(longest, task.waiting[0].duration)
            if task.model is not model or (batch and duration * (len(batch) + 1) > self._batch_seconds):
                skipped.append(task)
                continue
            longest = duration
            batch.append(task.waiting.popleft())
            if task.waiting:
                self._tasks.append(task)
        self._tasks.extend(skipped)
        return model, batch

    def _transcribe(self, model: Model, batch: list[_Waiting]) -> None:
        """Transcribes a batch. After an error each half alone, so only the window that causes it fails."""
        try:
            results = model.transcribe([item.window for item in batch], self._batch_seconds)
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()  # does nothing without a GPU
            if len(batch) == 1:
                _set(batch[0].future, error)
                return
            if not isinstance(error, DataError):
                log.warning(
                    "a batch of %s failed (%s); trying its halves", count(len(batch), "window"), type(error).__name__
                )
        else:
            for item, result in zip(batch, results, strict=True):
                _set(item.future, result)
            return
        middle = len(batch) // 2
        self._transcribe(model, batch[:middle])
        self._transcribe(model, batch[middle:])


def _set(future: "Future[Result]", outcome: Result | Exception) -> None:
    """Completes a future that a request may have given up."""
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
