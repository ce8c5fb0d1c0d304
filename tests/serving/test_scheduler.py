"""Batches over requests, with a model that records them."""

import time
from collections.abc import Callable, Iterator, Sequence
from threading import Event
from typing import cast

import pytest
import torch

from finetune.core.errors import DataError
from finetune.core.options import TranscribeOptions
from finetune.data.manifest import Utterance
from finetune.inference.window_batches import Result, Window
from finetune.serving.scheduler import Scheduler, Task


class RecordingModel:
    """Waits for `free`; a result is empty, or the error that `errors` has for the id of a window."""

    def __init__(self, name: str) -> None:
        self.name, self.free, self.started = name, Event(), Event()
        self.batches: list[list[str]] = []
        self.times: list[float] = []
        self.errors: dict[str, Exception] = {}

    def transcribe(self, windows: Sequence[Window], batch_seconds: float) -> list[Result]:
        self.started.set()
        assert self.free.wait(10)
        ids = [window.utterance.id for window in windows]
        self.batches.append(ids)
        self.times.append(time.monotonic())
        for name in ids:
            if name in self.errors:
                raise self.errors[name]
        return [[] for _ in windows]


def window(name: str, seconds: float = 1.0) -> Window:
    return Window(Utterance(name, "file", seconds, ""), TranscribeOptions(), lambda _: [])


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler(batch_seconds=4.0)
    scheduler.start()
    yield scheduler
    scheduler.stop()
    scheduler.join(10)
    assert not scheduler.alive


def hold(scheduler: Scheduler, model: RecordingModel) -> None:
    """Starts a batch that does not end, so what is added after it waits."""
    scheduler.add(Task(model), window("first"))
    assert model.started.wait(10)


def test_a_batch_has_windows_of_all_requests_in_turn(scheduler: Scheduler) -> None:
    model = RecordingModel("a")
    hold(scheduler, model)
    long, short = Task(model), Task(model)
    futures = [scheduler.add(long, window(f"long{n}")) for n in range(5)]
    futures += [scheduler.add(short, window(f"short{n}")) for n in range(2)]
    assert scheduler.load() == (7, 7.0)
    model.free.set()
    assert [future.result(10) for future in futures] == [[]] * 7
    assert model.batches == [["first"], ["long0", "short0", "long1", "short1"], ["long2", "long3", "long4"]]
    assert scheduler.load() == (0, 0.0)


def test_a_batch_counts_padding(scheduler: Scheduler) -> None:
    model = RecordingModel("a")
    hold(scheduler, model)
    futures = [scheduler.add(Task(model), window(f"w{n}", 2.0 if n == 1 else 0.5)) for n in range(4)]
    futures.append(scheduler.add(Task(model), window("huge", 9.0)))
    model.free.set()
    for future in futures:
        future.result(10)
    assert model.batches[1:] == [["w0", "w1"], ["w2", "w3"], ["huge"]]


def test_models_take_turns_by_the_window_that_waited_longest(scheduler: Scheduler) -> None:
    one, two = RecordingModel("one"), RecordingModel("two")
    two.free.set()
    hold(scheduler, one)
    futures = []
    for name, model in (("a", two), ("b", one), ("c", two), ("d", one)):
        futures.append(scheduler.add(Task(model), window(name)))
    one.free.set()
    for future in futures:
        future.result(10)
    assert two.batches == [["a", "c"]] and one.batches == [["first"], ["b", "d"]]
    assert one.times[0] <= two.times[0] <= one.times[1]


@pytest.mark.parametrize("error", [DataError("damaged"), MemoryError(), torch.OutOfMemoryError(), RuntimeError("bug")])
def test_an_error_ends_only_the_request_that_causes_it(scheduler: Scheduler, error: Exception) -> None:
    model = RecordingModel("a")
    model.errors["bad"] = error
    hold(scheduler, model)
    futures = {name: scheduler.add(Task(model), window(name, 0.5)) for name in ("a", "b", "bad", "c", "d")}
    model.free.set()
    for name, future in futures.items():
        if name == "bad":
            assert future.exception(10) is error
        else:
            assert future.result(10) == []
    assert scheduler.add(Task(model), window("later")).result(10) == [], "the thread works on"


def test_windows_of_a_request_that_was_given_up_are_dropped(scheduler: Scheduler) -> None:
    model = RecordingModel("a")
    hold(scheduler, model)
    gone, stays = Task(model), Task(model)
    for number in range(3):
        scheduler.add(gone, window(f"gone{number}"))
    kept = scheduler.add(stays, window("stays"))
    scheduler.cancel(gone)
    model.free.set()
    assert kept.result(10) == [] and model.batches == [["first"], ["stays"]]


def batches_with_a_request_to_come(gather: float, then: Callable[[Scheduler, RecordingModel], None]) -> list[list[str]]:
    """The batches if a request is being read when the first window is added; `then` is called after that."""
    scheduler, model = Scheduler(4.0, gather=gather), RecordingModel("a")
    scheduler.start()
    model.free.set()
    scheduler.expect("second")
    first = scheduler.add(Task(model), window("first"))
    then(scheduler, model)
    first.result(10)
    scheduler.stop()
    scheduler.join(10)
    return model.batches


def test_a_batch_waits_for_a_request_that_is_being_read() -> None:
    def add(scheduler: Scheduler, model: RecordingModel) -> None:
        assert not model.started.wait(0.05), "the batch has started without the second request"
        scheduler.add(Task(model), window("second"))
        scheduler.add(Task(model), window("third"))
        scheduler.arrived("second")

    assert batches_with_a_request_to_come(60.0, add) == [["first", "second", "third"]]


def test_a_batch_does_not_wait_for_a_request_that_failed_or_is_slow() -> None:
    assert batches_with_a_request_to_come(60.0, lambda scheduler, _: scheduler.arrived("second")) == [["first"]]
    assert batches_with_a_request_to_come(0.01, lambda *_: None) == [["first"]]


def test_a_full_batch_does_not_wait() -> None:
    def fill(scheduler: Scheduler, model: RecordingModel) -> None:
        for name in "abc":
            scheduler.add(Task(model), window(name))

    assert batches_with_a_request_to_come(60.0, fill) == [["first", "a", "b", "c"]]


class WatchedWindow:
    """A window that tells when its length was read."""

    def __init__(self) -> None:
        self.read = Event()

    @property
    def utterance(self) -> Utterance:
        self.read.set()
        return Utterance("gone", "file", 1.0, "")


def test_a_window_that_is_given_up_while_its_batch_waits() -> None:
    scheduler, model, watched = Scheduler(4.0, gather=60.0), RecordingModel("a"), WatchedWindow()
    scheduler.start()
    model.free.set()
    scheduler.expect("second")
    task = Task(model)
    scheduler.add(task, cast(Window, watched))
    assert watched.read.wait(10), "the thread has the lock, and keeps it until it waits for the second request"
    scheduler.cancel(task)
    scheduler.arrived("second")
    scheduler.join(0.2)  # the thread wakes, and finds no window
    assert scheduler.alive
    assert scheduler.add(Task(model), window("next")).result(10) == [] and model.batches == [["next"]]
    scheduler.stop()
    scheduler.join(10)


def test_a_stopped_scheduler_takes_nothing(scheduler: Scheduler) -> None:
    scheduler.stop()
    scheduler.join(10)
    with pytest.raises(RuntimeError, match="stopped"):
        scheduler.add(Task(RecordingModel("a")), window("late"))
