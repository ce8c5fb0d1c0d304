"""The first signal stops after the step, the second ends the process, and workers run until the step is complete."""

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


def program(body: str) -> "subprocess.Popen[str]":
    """A process that waits for a signal inside the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, body],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


@contextmanager
def recorded() -> Iterator[list[int]]:
    """The signals that reach the handlers that were set before the block."""
    seen: list[int] = []

    def record(number: int, _frame: FrameType | None) -> None:
        seen.append(number)

    before = {number: signal.signal(number, record) for number in ALL}
    try:
        yield seen
        assert {signal.getsignal(number) for number in ALL} == {record}, "handlers are restored at the end"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("number", ALL)
def test_one_signal_ends_the_loop_normally(number: signal.Signals) -> None:
    process = program("end")
    process.send_signal(number)
    out, err = process.communicate(timeout=200)
    assert (process.returncode, out) == (0, f"stopping {int(number)}\nended\n")
    assert err == f"{number.name}: stopping after this step and writing a checkpoint; send it again to stop at once\n"


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
def test_the_second_signal_reaches_the_earlier_handler(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    with recorded() as seen:
        with interruptible() as stop:
            assert stop.signum == 0
            signal.raise_signal(number)
            assert (stop.signum, seen) == (number, [])
            assert caplog.text.count(f"{number.name}: stopping after this step") == 1
            signal.raise_signal(number)
            assert (stop.signum, seen) == (number, [number])
        with interruptible() as stop:
            assert stop.signum == 0, "the earlier signal is forgotten"


def test_a_signal_repeated_within_a_moment_counts_once() -> None:
    def repeat(seconds: float) -> None:
        assert 0 < seconds < 1
        signal.raise_signal(signal.SIGTERM)

    with recorded() as seen, interruptible(sleep=repeat) as stop:
        signal.raise_signal(signal.SIGTERM)
        assert (stop.signum, seen) == (signal.SIGTERM, [])


def test_handlers_are_restored_after_an_error() -> None:
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


def test_a_signal_during_a_log_write_is_handled() -> None:
    class Busy(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

    logger, handler = logging.getLogger("finetune.training.signals"), Busy()
    logger.addHandler(handler)
    try:
        with recorded(), interruptible() as stop:
            signal.raise_signal(signal.SIGTERM)
            assert stop.signum == signal.SIGTERM
    finally:
        logger.removeHandler(handler)


def test_outside_the_main_thread_no_handler_is_set() -> None:
    values: list[object] = []

    def block() -> None:
        with interruptible() as stop:
            values.append(stop.signum)
            values.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert values == [0, before]


def _echo(pipe: Connection) -> None:
    while True:
        pipe.send(pipe.recv())


def test_a_forked_process_ignores_ctrl_c_and_ends_with_sigterm() -> None:
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


def test_a_data_loader_continues_after_ctrl_c() -> None:
    """A terminal sends Ctrl-C to the workers too."""
    from torch.utils.data import DataLoader

    with recorded(), interruptible() as stop:
        values = []
        for number, batch in enumerate(DataLoader(list(range(12)), batch_size=2, num_workers=1)):  # type: ignore[arg-type]
            values += batch.tolist()
            if number == 0:
                workers = multiprocessing.active_children()
                assert len(workers) == 1
                for pid in (os.getpid(), *(worker.pid for worker in workers)):
                    assert pid
                    os.kill(pid, signal.SIGINT)
        assert values == list(range(12))
        assert stop.signum == signal.SIGINT
    assert not multiprocessing.active_children()


def test_the_error_names_the_last_step_and_how_to_resume() -> None:
    assert issubclass(Interrupted, FinetuneError)  # the command prints these errors without a traceback
    error = Interrupted(120, signal.SIGTERM)
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert isinstance(one, Interrupted) and one.signum == signal.SIGTERM
        assert str(one) == "stopped by SIGTERM after step 120; rerun to resume"
