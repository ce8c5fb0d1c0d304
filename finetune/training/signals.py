"""Handles signals that stop a run: the first one completes the current step; the second ends the process at once."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

log = logging.getLogger(__name__)

# Ctrl-C; a scheduler or `kill`; Slurm's --signal before the time limit (not on Windows).
NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")
# Seconds in which a repeated signal counts as the same one: `timeout` signals the process and then its whole group.
REPEAT_WINDOW = 0.2


@dataclass
class Stop:
    """The signal that was received; 0 if there was none."""

    signum: int = 0


@contextmanager
def interruptible(sleep: Callable[[float], object] = time.sleep) -> Iterator[Stop]:
    """Stores the first SIGINT, SIGTERM or SIGUSR1 inside the block in `signum`, which the caller reads in each step.

    After the first signal, the handlers from before the block are active again: a second signal ends the process at
    once, even inside a call that hangs (SIGINT as KeyboardInterrupt). A signal that was ignored before the block, as
    SIGINT is for a shell's background job, stays ignored. Python allows handlers only in the main thread; in
    other threads this does nothing and `signum` remains 0.

    Processes forked inside the block, such as a DataLoader's workers, ignore SIGINT and SIGUSR1, which a terminal
    sends to the whole process group: the current step still needs the workers. SIGTERM ends them.

    Args:
        sleep: waits for `REPEAT_WINDOW` seconds inside the handler.
    """
    stop, owner = Stop(), os.getpid()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    signals = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    previous = {number: signal.getsignal(number) for number in signals}
    previous = {number: handler for number, handler in previous.items() if handler not in (signal.SIG_IGN, None)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != owner:
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if stop.signum:
            return  # a repetition within the window below
        stop.signum = number
        with suppress(RuntimeError):  # the signal can interrupt a write to the same stream
            log.warning(
                "%s: stopping after this step and writing a checkpoint; send it again to stop at once",
                signal.Signals(number).name,
            )
        sleep(REPEAT_WINDOW)
        restore()

    try:
        for number in previous:
            signal.signal(number, handle)
        yield stop
    finally:
        restore()
