"""The first signal lets the step end, the second ends the process, and workers live as long as they are needed."""

import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

import pytest

from finetune.core.errors import FinetuneError, Interrupted
from finetune.training import signals as interrupt
from finetune.training.signals import interruptible

ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
PROGRAM = """
import logging, signal, sys, time
from finetune.training.signals import interruptible
logging.basicConfig(format="%(message)s")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
with interruptible() as stop:
    print("ready", flush=True)
    while not stop.signum:
        time.sleep(0.01)
    print("stopping", stop.signum, flush=True)
    if sys.argv[1] == "hang":
        time.sleep(100)
print("ended", flush=True)
"""


def program(how: str) -> "subprocess.Popen[str]":
    """A process that waits in its block for a signal."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


@contextmanager
def recorded() -> Iterator[list[int]]:
    """The signals that reach the handlers from before the block."""
    seen: list[int] = []

    def record(number: int, _frame: FrameType | None) -> None:
        seen.append(number)

    before = {number: signal.signal(number, record) for number in ALL}
    try:
        yield seen
        assert {signal.getsignal(number) for number in ALL} == {record}, "put back at the end"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("number", ALL)
def test_one_signal_ends_the_loop_in_order(number: signal.Signals) -> None:
    process = program("end")
    process.send_signal(number)
    out, err = process.communicate(timeout=200)
    assert (process.returncode, out) == (0, f"stopping {int(number)}\nended\n")
    assert err == f"{number.name}: stopping after this step, with a checkpoint; once more ends at once\n"


@pytest.mark.parametrize("number", ALL)
def test_two_signals_end_the_process_at_once(number: signal.Signals) -> None:
    process = program("hang")
    process.send_signal(number)
    assert process.stdout and process.stdout.readline() == f"stopping {int(number)}\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=90)
    assert (process.returncode, out) == (-number, "")
    assert ("KeyboardInterrupt" in err) == (number == signal.SIGINT)


@pytest.mark.parametrize("number", ALL)
def test_the_second_does_what_it_did_before(number: signal.Signals, caplog: pytest.LogCaptureFixture) -> None:
    with recorded() as seen:
        with interruptible() as stop:
            assert stop.signum == 0
            signal.raise_signal(number)
            assert (stop.signum, seen) == (number, [])
            assert caplog.text.count(f"{number.name}: stopping after this step") == 1
            signal.raise_signal(number)
            assert (stop.signum, seen) == (number, [number])
        with interruptible() as stop:
            assert stop.signum == 0, "nothing of it stays"


def test_a_signal_that_comes_twice_at_one_time_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: signal.raise_signal(signal.SIGTERM))
    with recorded() as seen, interruptible() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert (stop.signum, seen) == (signal.SIGTERM, [])


def test_handlers_are_put_back_after_an_error() -> None:
    with recorded(), pytest.raises(ValueError, match="any"), interruptible():
        raise ValueError("any")


def test_an_ignored_signal_stays_ignored() -> None:
    """As in a shell's background, or under nohup."""
    with recorded():
        record = signal.signal(signal.SIGINT, signal.SIG_IGN)
        with interruptible() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.signum == 0
        assert signal.signal(signal.SIGINT, record) == signal.SIG_IGN


def test_a_log_that_is_being_written_to_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

    monkeypatch.setattr(interrupt.log, "handlers", [Busy()])
    with recorded(), interruptible() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.signum == signal.SIGTERM


def test_outside_the_main_thread_it_does_nothing() -> None:
    found: list[object] = []

    def block() -> None:
        with interruptible() as stop:
            found.append(stop.signum)
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert found == [0, before]


def _echo(pipe: Connection) -> None:
    while True:
        pipe.send(pipe.recv())


def test_a_forked_process_passes_over_ctrl_c_and_ends_with_sigterm() -> None:
    ours, theirs = multiprocessing.Pipe()
    with recorded() as seen, interruptible() as stop:
        process = multiprocessing.get_context("fork").Process(target=_echo, args=(theirs,), daemon=True)
        process.start()
        ours.send("started")
        assert ours.recv() == "started" and process.pid
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGUSR1)
        time.sleep(0.1)
        ours.send("alive")
        assert ours.recv() == "alive"
        process.terminate()
        process.join(100)
        assert process.exitcode == -signal.SIGTERM
        assert (stop.signum, seen) == (0, [])


def test_a_loader_hands_out_what_the_step_needs_after_ctrl_c() -> None:
    """Which a terminal sends to the workers too."""
    from torch.utils.data import DataLoader

    with recorded(), interruptible() as stop:
        got = []
        for number, batch in enumerate(DataLoader(list(range(12)), batch_size=2, num_workers=1)):  # type: ignore[arg-type]
            got += batch.tolist()
            if number == 0:
                workers = multiprocessing.active_children()
                assert len(workers) == 1
                for pid in (os.getpid(), *(worker.pid for worker in workers)):
                    assert pid
                    os.kill(pid, signal.SIGINT)
        assert got == list(range(12))
        assert stop.signum == signal.SIGINT
    assert not multiprocessing.active_children()


def test_the_error_says_where_it_stopped_and_how_to_go_on() -> None:
    assert issubclass(Interrupted, FinetuneError)  # the command prints those without a traceback
    error = Interrupted(120, signal.SIGTERM)
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert isinstance(one, Interrupted) and one.signum == signal.SIGTERM
        assert str(one) == "stopped by SIGTERM after step 120; rerun to resume"
