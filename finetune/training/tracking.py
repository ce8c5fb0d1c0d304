"""Records training to `metrics.jsonl`, and to wandb, tensorboard or trackio if the recipe names them.

A tracker never stops the training: a failure is logged once.
"""

import errno
import json
import logging
import math
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.core.config import Recipe
from finetune.core.extras import require
from finetune.training.callbacks import CallbackList, SkippedClip, StepRecord, TrainerCallback, ValidationRecord
from finetune.training.progress import Progress

log = logging.getLogger(__name__)

PROJECT = "finetune-granite-speech"


@dataclass(frozen=True)
class Mirror:
    """One external tracker. `log` takes numbers by name and the optimizer step."""

    log: Callable[[dict[str, float], int], object]
    close: Callable[[], object]


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
        self.mirrors: dict[str, Mirror] = {}
        for mirror in mirrors:
            try:
                self.mirrors[mirror] = START[mirror](path.parent, name, settings, step)
            except Exception as error:  # a failure of a tracker must not stop the training
                log.warning("%s is off for this run: %s", mirror, error)

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
        numbers = {f"{kind}/{key}": value for key, value in values.items() if isinstance(value, int | float)}
        for name, mirror in list(self.mirrors.items()):
            try:
                mirror.log(numbers, step)
            except Exception as error:
                log.warning("%s is off from now on, training continues: %s", name, error)
                del self.mirrors[name]

    def close(self) -> None:
        for name, mirror in self.mirrors.items():
            try:
                mirror.close()
            except Exception as error:
                log.warning("%s did not finish: %s", name, error)
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
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(b"".join(lines))
    os.replace(temporary, path)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _wandb(folder: Path, name: str, settings: dict[str, Any], step: int | None) -> Mirror:
    import wandb

    stored = folder / "wandb-id"
    if step is None or not stored.is_file():
        stored.write_text(secrets.token_hex(4), encoding="utf-8")
    run = wandb.init(
        project=PROJECT,
        name=name,
        id=stored.read_text(encoding="utf-8"),
        resume="allow",
        config=settings,
        dir=str(folder),
        settings=wandb.Settings(console="off"),
    )
    # wandb's own step can only increase, so it would reject the steps that a resumed run repeats.
    run.define_metric("*", step_metric="optimizer_step")
    return Mirror(lambda values, step: run.log({**values, "optimizer_step": step}), run.finish)


def _tensorboard(folder: Path, name: str, settings: dict[str, Any], step: int | None) -> Mirror:
    module = require("torch.utils.tensorboard", extra="tensorboard")
    writer = module.SummaryWriter(str(folder / "tensorboard"), purge_step=0 if step is None else step + 1)

    def add(values: dict[str, float], step: int) -> None:
        for key, value in values.items():
            writer.add_scalar(key, value, step)

    return Mirror(add, writer.close)


def _trackio(folder: Path, name: str, settings: dict[str, Any], step: int | None) -> Mirror:
    trackio = require("trackio", extra="trackio")

    trackio.init(project=PROJECT, name=name, config=settings, resume="never" if step is None else "allow")
    return Mirror(lambda values, step: trackio.log(values, step=step), trackio.finish)


START: dict[str, Callable[[Path, str, dict[str, Any], int | None], Mirror]] = {
    "wandb": _wandb,
    "tensorboard": _tensorboard,
    "trackio": _trackio,
}
