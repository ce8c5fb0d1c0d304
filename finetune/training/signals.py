"""Signals that ask a run to stop: the first lets the step end, the second ends the process."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

log = logging.getLogger(__name__)

# Ctrl-C; a scheduler or `kill`; Slurm's --signal before the time limit (not on Windows).
NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")
ECHO = 0.2
"""Seconds in which the same request may come again: `timeout` tells the process and then its whole group."""


@dataclass
class Stop:
    """The signal that asked to stop; 0 is none so far."""

    signum: int = 0


@contextmanager
def interruptible() -> Iterator[Stop]:
    """Turns the first SIGINT, SIGTERM or SIGUSR1 inside the block into `signum`, to be looked at after each step.

    From then on the signals do again what they did before the block: a second one ends the process at
    once, even inside a call that hangs (SIGINT as KeyboardInterrupt). A signal that was ignored before,
    as SIGINT is in a shell's background, stays so. Outside the main thread, where Python allows no
    handlers, this does nothing and `signum` remains 0.

    Processes forked inside the block, such as a DataLoader's workers, let SIGINT and SIGUSR1 pass, which
    a terminal sends to the whole group: the step that ends still needs them. SIGTERM ends them.
    """
    stop, owner = Stop(), os.getpid()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    signals = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    previous = {number: signal.getsignal(number) for number in signals}
    previous = {number: handler for number, handler in previous.items() if handler not in (signal.SIG_IGN, None)}

    def put_back() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != owner:
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if stop.signum:
            return  # an echo, see below
        stop.signum = number
        with suppress(RuntimeError):  # the signal may have come in the middle of a write to the same stream
            log.warning(
                "%s: stopping after this step, with a checkpoint; once more ends at once", signal.Signals(number).name
            )
        time.sleep(ECHO)
        put_back()

    try:
        for number in previous:
            signal.signal(number, handle)
        yield stop
    finally:
        put_back()
