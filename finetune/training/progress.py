"""What a person sees while a model trains: one live line on a terminal, else a plain line now and then."""

import logging
import math
import resource
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import torch

log = logging.getLogger(__name__)

LIVE, PLAIN = 0.5, 30.0  # seconds between two pictures of the line
KEEP = 0.95  # of what was shown, when a step is mixed into it


class Progress:
    """A context manager around the training loop.

    Args:
        steps: Optimizer steps of the whole training.
        done: Of them, those before this process.
        epochs: Of the whole training.
        terminal: Whether a person watches standard output; a live line is drawn there then.
        shown: False on every rank but 0, where nothing is printed.
        clock: Seconds; the tests bring their own.
    """

    def __init__(
        self,
        steps: int,
        done: int,
        epochs: int,
        terminal: bool,
        shown: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.steps, self.first, self.done, self.epochs = steps, done, done, epochs
        self.shown, self.clock = shown, clock
        self.bar: Any = _bar() if terminal and shown else None
        self.every = LIVE if self.bar else PLAIN
        self.streams: list[tuple[Any, Any]] = []
        self.loss = self.padding = math.nan
        self.audio = self.spent = 0.0
        self.started, self.drawn, self.last = clock(), -math.inf, math.nan

    def __enter__(self) -> Self:
        if self.bar:
            own = (sys.stdout, sys.stderr)
            self.bar.start()
            # The bar has put a stream before sys.stdout that prints above it; log lines must take it too.
            for handler in logging.getLogger().handlers:
                if isinstance(handler, logging.StreamHandler) and handler.stream in own:
                    self.streams.append((handler, handler.setStream(sys.stdout)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            for handler, stream in self.streams:
                handler.setStream(stream)
            self.bar.stop()

    def step(self, *, epoch: int, loss: float, rate: float, audio_seconds: float, padding: float) -> None:
        """After each optimizer step, with that step's own numbers.

        Args:
            epoch: From 1.
            loss: One that is no number is not mixed into what is shown.
            rate: Learning rate.
            audio_seconds: Without padding, on all ranks.
            padding: Its share of the batches, 0 to 1.
        """
        if not self.shown:
            return
        now = self.clock()
        self.done += 1
        self.loss, self.padding = _mixed(self.loss, loss), _mixed(self.padding, padding)
        if not math.isnan(self.last):
            self.audio, self.spent = KEEP * self.audio + audio_seconds, KEEP * self.spent + now - self.last
        self.last = now
        if now - self.drawn < self.every:
            return
        self.drawn = now
        left = (now - self.started) / (self.done - self.first) * (self.steps - self.done)
        facts = [
            f"epoch {epoch}/{self.epochs}",
            f"step {self.done}/{self.steps}",
            f"{timedelta(seconds=round(left))} left",
            f"loss {self.loss:.3f}",
            f"rate {rate:.1e}",
            f"{self.audio / self.spent:.1f} s audio/s" if self.spent else "",
            f"{100 * self.padding:.0f} % padding",
            f"{_memory():.1f} GiB",
        ]
        text = "  ".join(filter(None, facts))
        if self.bar:
            self.bar.update(self.bar.task_ids[0], total=self.steps, completed=self.done, facts=text)
            self.bar.refresh()
        else:
            log.info(text)

    def say(self, text: str) -> None:
        """Prints a line, above the live one. The time up to the next step (an evaluation) is no part of the speed."""
        if self.shown:
            self.last = math.nan
            if self.done == self.first:  # the base model was scored: no part of the time that a step takes
                self.started = self.clock()
            log.info(text)


def _bar() -> Any:
    """None where rich is not installed."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.table import Column
    except ImportError:
        return None
    # No auto_refresh: its thread would take time from the loop's, and be there when data workers fork.
    bar = Bar(
        BarColumn(bar_width=12),
        TextColumn("{task.fields[facts]}", markup=False, table_column=Column()),
        console=Console(force_terminal=True),
        auto_refresh=False,
        transient=True,
    )
    bar.add_task("", total=None, facts="the first step ...")
    return bar


def _mixed(before: float, value: float) -> float:
    if not math.isfinite(value):
        return before
    return value if math.isnan(before) else KEEP * before + (1 - KEEP) * value


def _memory() -> float:
    """The most that this process has held so far, in GiB: of its GPU where there is one, else of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
