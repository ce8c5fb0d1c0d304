"""What a run records while it trains: `metrics.jsonl` always, and its mirrors in wandb, tensorboard or trackio.

Nothing here ever stops training: what fails is said once.
"""

import errno
import json
import logging
import math
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.core.extras import require

log = logging.getLogger(__name__)

PROJECT = "finetune-granite-speech"


@dataclass(frozen=True)
class Mirror:
    """`log` takes numbers by name and the optimizer step, which is their x axis."""

    log: Callable[[dict[str, float], int], object]
    close: Callable[[], object]


class Tracker:
    """One JSON object a line in `path`; a mirror that fails is dropped with a warning. For rank 0 only.

    Args:
        path: `metrics.jsonl`; the mirrors' own files stand beside it.
        name: Of the run, as the mirrors show it.
        mirrors: Of wandb, tensorboard, trackio.
        settings: Of the run, as the mirrors show them.
        step: Of the checkpoint that training goes on from, None where it starts anew; later records are dropped.
    """

    def __init__(self, path: Path, name: str, mirrors: list[str], settings: dict[str, Any], step: int | None) -> None:
        self.path, self.lost = path, 0
        try:
            rewind(path, -1 if step is None else step)
        except OSError as error:
            log.warning("%s keeps what an earlier attempt recorded: %s", path, error)
        self.mirrors: dict[str, Mirror] = {}
        for mirror in mirrors:
            try:
                self.mirrors[mirror] = _START[mirror](path.parent, name, settings, step)
            except Exception as error:  # any failure of a tracker is less than a training run
                log.warning("%s is off for this run: %s", mirror, error)

    def record(self, kind: str, step: int, **values: Any) -> None:
        """Appends `values` with the time of day (seconds since 1970); NaN and infinity become null."""
        values = {key: _finite(value) for key, value in values.items()}
        row = {"time": round(time.time(), 3), "kind": kind, "step": step, **values}
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            with self.path.open("ab", buffering=0) as handle:
                start = handle.tell()
                if handle.write(line) < len(line):
                    handle.truncate(start)  # else the next record would go on in the middle of this one
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        except OSError as error:
            if not self.lost:
                log.warning("a record is lost, training goes on: %s", error)
            self.lost += 1
        numbers = {f"{kind}/{key}": value for key, value in values.items() if isinstance(value, int | float)}
        for name, mirror in list(self.mirrors.items()):
            try:
                mirror.log(numbers, step)
            except Exception as error:
                log.warning("%s stopped, training goes on: %s", name, error)
                del self.mirrors[name]

    def close(self) -> None:
        for name, mirror in self.mirrors.items():
            try:
                mirror.close()
            except Exception as error:
                log.warning("%s did not finish: %s", name, error)
        if self.lost:
            log.warning("%s lacks %d records", self.path, self.lost)


def rewind(path: Path, step: int) -> None:
    """Drops the records of kind step and valid past `step`, so that a resumed run records what an unbroken one does.

    A line that a kill cut off, or that is no record, goes too. The file is replaced as a whole.
    """
    if not path.is_file():
        return
    kept, damaged = [], 0
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
            if row["kind"] not in ("step", "valid") or row["step"] <= step:
                kept.append(line + b"\n")
        except (ValueError, TypeError, KeyError):
            damaged += 1
    if damaged:
        log.warning("%s: dropped lines that are no whole record: %d", path, damaged)
    part = path.with_name(path.name + ".part")
    part.write_bytes(b"".join(kept))
    os.replace(part, path)


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
    # wandb's own step only rises, so it would refuse the steps that a resumed run repeats.
    run.define_metric("*", step_metric="optimizer_step")
    return Mirror(lambda values, at: run.log({**values, "optimizer_step": at}), run.finish)


def _tensorboard(folder: Path, name: str, settings: dict[str, Any], step: int | None) -> Mirror:
    module = require("torch.utils.tensorboard", extra="tensorboard")
    writer = module.SummaryWriter(str(folder / "tensorboard"), purge_step=0 if step is None else step + 1)

    def add(values: dict[str, float], at: int) -> None:
        for key, value in values.items():
            writer.add_scalar(key, value, at)

    return Mirror(add, writer.close)


def _trackio(folder: Path, name: str, settings: dict[str, Any], step: int | None) -> Mirror:
    trackio = require("trackio", extra="trackio")

    trackio.init(project=PROJECT, name=name, config=settings, resume="never" if step is None else "allow")
    return Mirror(lambda values, at: trackio.log(values, step=at), trackio.finish)


_START = {"wandb": _wandb, "tensorboard": _tensorboard, "trackio": _trackio}
