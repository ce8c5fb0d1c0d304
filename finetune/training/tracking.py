"""Records training to `metrics.jsonl`, and to the trackers of the recipe."""

import errno
import json
import logging
import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from finetune.core.config import Recipe
from finetune.core.files import write_bytes
from finetune.tracking.trackers import call_each, close_trackers, open_trackers
from finetune.training.callbacks import CallbackList, SkippedClip, StepRecord, TrainerCallback, ValidationRecord
from finetune.training.progress import Progress

log = logging.getLogger(__name__)


class Tracker(TrainerCallback):
    """A callback that appends one JSON object per line to `path`; a mirror that fails is dropped with a warning.

    Args:
        path: `metrics.jsonl`; the files of the mirrors are written beside it.
        name: Name of the run, for the mirrors.
        mirrors: Any of wandb, tensorboard, trackio.
        settings: Settings of the run, for the mirrors.
        step: Step of the checkpoint from which training resumes, None for a new run. Later records are dropped.
    """

    def __init__(self, path: Path, name: str, mirrors: list[str], settings: dict[str, Any], step: int | None) -> None:
        self.path, self.num_lost = path, 0
        try:
            rewind(path, -1 if step is None else step)
        except OSError as error:
            log.warning("%s still has the records of an earlier run: %s", path, error)
        self.mirrors = open_trackers(mirrors, path.parent, name, settings, step)

    def on_step(self, record: StepRecord) -> None:
        self.record("step", record.step, loss=record.loss, grad_norm=record.grad_norm, rate=record.learning_rate)

    def on_validation(self, record: ValidationRecord) -> None:
        self.record(
            "valid", record.step, epoch=record.epoch, alpha=record.alpha, wer=record.wer, canary_wer=record.canary_wer
        )

    def on_skipped_clip(self, record: SkippedClip) -> None:
        self.record("skipped_clip", record.step, split=record.split, id=record.id, reason=record.reason)

    def record(self, kind: str, step: int, **values: Any) -> None:
        """Appends `values` with the time (seconds since 1970); NaN and infinity become null."""
        values = {key: _finite(value) for key, value in values.items()}
        row = {"time": round(time.time(), 3), "kind": kind, "step": step, **values}
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            with self.path.open("ab", buffering=0) as handle:
                start = handle.tell()
                if handle.write(line) < len(line):
                    handle.truncate(start)  # removes the partial line; otherwise the next record would continue it
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        except OSError as error:
            if not self.num_lost:
                log.warning("a record cannot be written, training continues: %s", error)
            self.num_lost += 1
        curve = "interpolated" if values.get("alpha", 1.0) != 1.0 else kind  # its own curve, as in the report
        numbers = {f"{curve}/{key}": value for key, value in values.items() if isinstance(value, int | float)}
        if numbers:
            call_each(self.mirrors, lambda tracker: tracker.log(numbers, step))

    def close(self) -> None:
        close_trackers(self.mirrors)
        if self.num_lost:
            log.warning("%s: %d records are missing", self.path, self.num_lost)


def open_callbacks(
    stack: ExitStack,
    recipe: Recipe,
    metrics: Path,
    user_callbacks: Sequence[TrainerCallback],
    steps: int,
    resumed_step: int | None,
) -> CallbackList:
    """Opens the progress display and the trackers, which run before the user's callbacks; `stack` closes them all."""
    for callback in user_callbacks:
        stack.callback(callback.close)
    settings = recipe.model_dump(mode="json")
    tracker = Tracker(metrics, recipe.name, list(recipe.machine.trackers), settings, resumed_step)
    stack.callback(tracker.close)
    progress = Progress(steps, resumed_step or 0, recipe.train.epochs, sys.stdout.isatty())
    stack.callback(progress.close)
    return CallbackList([progress, tracker, *user_callbacks])


def rewind(path: Path, step: int) -> None:
    """Drops the records of training after `step`, so a resumed run has the same records as an unbroken run.

    Damaged lines are dropped too, such as a line that a kill cut off. The file is replaced atomically.
    """
    if not path.is_file():
        return
    lines, damaged = [], 0
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
            if row["kind"] not in ("step", "valid", "skipped_clip") or row["step"] <= step:
                lines.append(line + b"\n")
        except (ValueError, TypeError, KeyError):
            damaged += 1
    if damaged:
        log.warning("%s: dropped %d damaged lines", path, damaged)
    write_bytes(path, b"".join(lines))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
