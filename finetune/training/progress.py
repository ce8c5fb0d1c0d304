"""Shows training progress: one live line on a terminal, otherwise a plain log line every 30 seconds."""

import logging
import math
import resource
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch

from finetune.training.callbacks import StepRecord, TrainerCallback

log = logging.getLogger(__name__)

LIVE, PLAIN = 0.5, 30.0  # seconds between two updates of the line
DECAY = 0.95  # weight of the earlier value in the running averages


class Progress(TrainerCallback):
    """A callback that prints progress; `close` ends the live line.

    Args:
        steps: Number of optimizer steps of the training.
        completed: Steps of earlier processes, if the run is resumed.
        epochs: Number of epochs of the training.
        terminal: Whether standard output is a terminal, which gets a live line.
        clock: Returns seconds.
    """

    def __init__(
        self, steps: int, completed: int, epochs: int, terminal: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.steps, self.first, self.completed, self.epochs = steps, completed, completed, epochs
        self.clock = clock
        self.bar: Any = _bar() if terminal else None
        self.interval = LIVE if self.bar else PLAIN
        self.streams: list[tuple[Any, Any]] = []
        self.loss = self.padding = math.nan
        self.audio_seconds = self.elapsed = 0.0
        self.started, self.updated, self.last_step = clock(), -math.inf, math.nan
        if self.bar:
            terminals = (sys.stdout, sys.stderr)
            self.bar.start()
            # The bar replaces sys.stdout with a stream that prints above it; log lines must use that stream too.
            for handler in logging.getLogger().handlers:
                if isinstance(handler, logging.StreamHandler) and handler.stream in terminals:
                    self.streams.append((handler, handler.setStream(sys.stdout)))

    def close(self) -> None:
        if self.bar:
            for handler, stream in self.streams:
                handler.setStream(stream)
            self.bar.stop()

    def on_step(self, record: StepRecord) -> None:
        now = self.clock()
        self.completed += 1
        self.loss, self.padding = _average(self.loss, record.loss), _average(self.padding, record.padding)
        if not math.isnan(self.last_step):
            self.audio_seconds = DECAY * self.audio_seconds + record.audio_seconds
            self.elapsed = DECAY * self.elapsed + now - self.last_step
        self.last_step = now
        if now - self.updated < self.interval:
            return
        self.updated = now
        remaining = (now - self.started) / (self.completed - self.first) * (self.steps - self.completed)
        facts = [
            f"epoch {record.epoch}/{self.epochs}",
            f"step {self.completed}/{self.steps}",
            f"{timedelta(seconds=round(remaining))} left",
            f"loss {self.loss:.3f}",
            f"lr {record.learning_rate:.1e}",
            f"{self.audio_seconds / self.elapsed:.1f} s audio/s" if self.elapsed else "",
            f"{100 * self.padding:.0f} % padding",
            f"{_peak_memory():.1f} GiB",
        ]
        text = "  ".join(filter(None, facts))
        if self.bar:
            self.bar.update(self.bar.task_ids[0], total=self.steps, completed=self.completed, facts=text)
            self.bar.refresh()
        else:
            log.info(text)

    def on_message(self, text: str) -> None:
        """Prints a line above the live line. The time until the next step (a validation) does not count as training."""
        self.last_step = math.nan
        if self.completed == self.first:  # the base model was scored; this time is not part of the steps
            self.started = self.clock()
        log.info(text)


def _bar() -> Any:
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
        console=Console(force_terminal=True),
        auto_refresh=False,
        transient=True,
    )
    bar.add_task("", total=None, facts="waiting for the first step ...")
    return bar


def _average(average: float, value: float) -> float:
    """A running average that ignores NaN and infinity."""
    if not math.isfinite(value):
        return average
    return value if math.isnan(average) else DECAY * average + (1 - DECAY) * value


def _peak_memory() -> float:
    """Peak memory of this process in GiB: of its GPU if there is one, else main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
