"""Shows the progress of long tasks: one live line on a terminal, otherwise a plain log line every 30 seconds.

Code that works through audio calls `advance`; it does not need to know whether anybody shows the progress:

    with task("test, base model", total=seconds_of_audio):
        recognize(...)  # calls `advance` after each batch
"""

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

log = logging.getLogger(__name__)

LIVE, PLAIN = 0.5, 30.0  # seconds between two updates of the line

_lines: list["Line"] = []  # the open ones; a task inside another one, or inside training, uses the first
_tasks: list["Task"] = []  # the open ones; the innermost receives `advance`


class Line:
    """A live line on a terminal, or log lines. One at a time; `close` ends it.

    Args:
        terminal: whether standard output is a terminal.
        waiting: the text until the first `show`.
    """

    def __init__(self, terminal: bool, waiting: str) -> None:
        self.bar: Any = _bar(waiting) if terminal else None
        self.interval = LIVE if self.bar else PLAIN
        self.streams: list[tuple[Any, Any]] = []
        _lines.append(self)
        if self.bar:
            terminals = (sys.stdout, sys.stderr)
            self.bar.start()
            # The bar replaces sys.stdout with a stream that prints above it; log lines must use that stream too.
            for handler in logging.getLogger().handlers:
                if isinstance(handler, logging.StreamHandler) and handler.stream in terminals:
                    self.streams.append((handler, handler.setStream(sys.stdout)))

    def show(self, text: str, completed: float, total: float) -> None:
        if self.bar:
            self.bar.update(self.bar.task_ids[0], total=total, completed=completed, facts=text)
            self.bar.refresh()
        else:
            log.info(text)

    def close(self) -> None:
        if self in _lines:
            _lines.remove(self)
        if self.bar:
            for handler, stream in self.streams:
                handler.setStream(stream)
            self.bar.stop()


class TimeLeft:
    """Estimates the remaining time from the speed so far.

    The first amount is not measured: it includes the start of workers and libraries, and often the largest batch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.started, self.first = math.nan, 0.0

    def text(self, completed: float, total: float) -> str:
        """`H:MM:SS left`; unknown in the first call."""
        now = self.clock()
        if math.isnan(self.started):
            self.started, self.first = now, completed
        if completed <= self.first:
            return "time left unknown"
        remaining = (now - self.started) / (completed - self.first) * max(0.0, total - completed)
        return f"{timedelta(seconds=round(remaining))} left"


class Task:
    """Work of known size; `task` opens one."""

    def __init__(self, label: str, total: float, clock: Callable[[], float]) -> None:
        self.label, self.total, self.clock = label, total, clock
        self.completed, self.updated = 0.0, clock()
        self.time_left = TimeLeft(clock)

    def advance(self, amount: float) -> None:
        self.completed += amount
        left = self.time_left.text(self.completed, self.total)  # also measures, so it is called each time
        if not _lines or self.clock() - self.updated < _lines[0].interval:
            return
        self.updated = self.clock()
        share = min(1.0, self.completed / self.total) if self.total else 1.0
        text = "  ".join(filter(None, [self.label, f"{100 * share:.0f} %", left]))
        _lines[0].show(text, share * self.total, self.total)


@contextmanager
def task(
    label: str, total: float, terminal: bool | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """Shows the progress of the block; tasks that take less than 30 seconds print nothing to a log.

    Args:
        label: what is done.
        total: sum of the amounts that `advance` gets, such as seconds of audio.
        terminal: whether to show a live line; by default if standard output of the main process is a terminal.
        clock: returns seconds.
    """
    if terminal is None:
        terminal = os.environ.get("RANK", "0") == "0" and sys.stdout.isatty()
    line = None if _lines else Line(terminal, f"{label} ...")
    _tasks.append(Task(label, total, clock))
    try:
        yield
    finally:
        _tasks.pop()
        if line:
            line.close()


def advance(amount: float) -> None:
    """Counts completed work of the innermost task; does nothing outside a task."""
    if _tasks:
        _tasks[-1].advance(amount)


def _bar(waiting: str) -> Any:
    """rich's progress bar with one task; None if rich is not installed."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.table import Column
    except ImportError:
        return None
    # No auto_refresh: its thread would slow the training loop down and would run while data workers fork.
    bar = Bar(
        BarColumn(bar_width=12),
        TextColumn("{task.fields[facts]}", markup=False, table_column=Column()),
        console=Console(force_terminal=True, soft_wrap=True),  # a text that is printed above it stays on one line
        auto_refresh=False,
        transient=True,
    )
    bar.add_task("", total=None, facts=waiting)
    return bar
