"""Shows training progress: one live line on a terminal, otherwise a plain log line every 30 seconds."""

import logging
import math
import resource
import sys
import time
from collections.abc import Callable

import torch

from finetune.core.progress import Line, TimeLeft
from finetune.training.callbacks import StepRecord, TrainerCallback

log = logging.getLogger(__name__)

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
        self.steps, self.completed, self.epochs = steps, completed, epochs
        self.clock = clock
        self.line = Line(terminal, "waiting for the first step ...")
        self.time_left = TimeLeft(clock)
        self.loss = self.padding = math.nan
        self.audio_seconds = self.elapsed = 0.0
        self.updated, self.last_step = -math.inf, math.nan

    def close(self) -> None:
        self.line.close()

    def on_step(self, record: StepRecord) -> None:
        now = self.clock()
        self.completed += 1
        self.loss, self.padding = _average(self.loss, record.loss), _average(self.padding, record.padding)
        if not math.isnan(self.last_step):
            self.audio_seconds = DECAY * self.audio_seconds + record.audio_seconds
            self.elapsed = DECAY * self.elapsed + now - self.last_step
        self.last_step = now
        left = self.time_left.text(self.completed, self.steps)
        if now - self.updated < self.line.interval:
            return
        self.updated = now
        facts = [
            f"epoch {record.epoch}/{self.epochs}",
            f"step {self.completed}/{self.steps}",
            left,
            f"loss {self.loss:.3f}",
            f"lr {record.learning_rate:.1e}",
            f"{self.audio_seconds / self.elapsed:.1f} s audio/s" if self.elapsed else "",
            f"{100 * self.padding:.0f} % padding",
            f"{_peak_memory():.1f} GiB",
        ]
        self.line.show("  ".join(filter(None, facts)), self.completed, self.steps)

    def on_message(self, text: str) -> None:
        """Prints a line above the live line. The time until the next step (a validation) does not count as training."""
        self.last_step = math.nan
        log.info(text)


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
