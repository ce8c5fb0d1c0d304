"""A stage of the build: optimizer steps over rounds, stored every few minutes and continued exactly there."""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from finetune.training.signals import Stop
from nano.muon import Muon

SAVE_SECONDS = 240.0
REPORT = 50  # steps between progress lines
Batch = TypeVar("Batch")


class OutOfTimeError(Exception):
    """The time of this run is over; everything is stored."""


@dataclass
class Budget:
    """The time of a run: over after `minutes` (None is no limit), or after a signal."""

    minutes: float | None = None
    stop: Stop = field(default_factory=Stop)
    now: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.started = self.now()

    @property
    def over(self) -> bool:
        """Whether to store everything and end."""
        late = self.minutes is not None and self.now() - self.started >= 60 * self.minutes
        return late or bool(self.stop.signum)


class Losses:
    """The losses of a batch: the sum to train on, and means by group, such as a language, for people."""

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.sums, self.counts = Counter[str](), Counter[str]()
        self.seconds = 0.0

    def add(self, group: str, loss: Tensor, count: int) -> None:
        """Counts the loss of `count` targets of a group; it does not change the total."""
        self.sums[group] += float(loss.detach())
        self.counts[group] += count


class Rounds(Protocol[Batch]):
    """What a stage trains on, in parts."""

    def state(self) -> dict[str, Any]:
        """What a new round depends on, such as the shards that exist now."""

    def batches(self, number: int, state: dict[str, Any]) -> Sequence[Batch]:
        """The batches of a round; the same arguments give the same batches."""

    def losses(self, batch: Batch) -> Losses:
        """The losses of a batch."""


@dataclass(frozen=True)
class Schedule:
    """Steps and peak learning rate of a stage; `clip` is the largest norm of its gradients."""

    steps: int
    rate: float
    clip: float = 5.0


def split_parameters(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The matrices of the blocks (for Muon), and all other parameters (for AdamW)."""
    matrices, others = [], []
    for name, parameter in module.named_parameters():
        inner = parameter.ndim == 2 and not any(key in name for key in ("emb", "out_mid", "lm_head", "encoder.out."))
        (matrices if inner else others).append(parameter)
    return matrices, others


def optimizers(module: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for matrices, with rates scaled to those of AdamW; AdamW for other parameters."""
    matrices, others = split_parameters(module)
    return [
        Muon(matrices, lr=rate, weight_decay=0.02),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def one_cycle(step: int, steps: int) -> float:
    """Factor of the peak rate: 5 % warm-up, then linear decay to 1 %."""
    warm = max(1, int(0.05 * steps))
    return min(1.0, (step + 1) / warm) * max(0.01, min(1.0, (steps - step) / (steps * 0.9)))


def remove_dropout(module: nn.Module) -> None:
    """Sets every dropout probability to 0, in place: those of layers, and those of attention."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.0


def write_atomically(path: Path, content: dict[str, Any]) -> None:
    """Writes a torch file; a stop leaves the old one or the new one."""
    part = path.with_suffix(".part")
    torch.save(content, part)
    part.replace(path)


class Stage(Generic[Batch]):
    """Trains `parts` in place.

    Args:
        folder: has `NAME.pt` with the finished weights, or `NAME.state` with everything of an unfinished stage.
        name: of the stage.
        parts: what trains.
        schedule: its steps and rate.
        budget: the time of this run.
    """

    def __init__(self, folder: Path, name: str, parts: nn.ModuleDict, schedule: Schedule, budget: Budget) -> None:
        self.name, self.parts, self.schedule, self.budget = name, parts, schedule, budget
        self.finished, self.unfinished = folder / f"{name}.pt", folder / f"{name}.state"
        self.optims = optimizers(parts, schedule.rate)
        self.step, self.round, self.place = 0, 0, 0
        self.inputs: dict[str, Any] | None = None

    def run(self, make: Callable[[], Rounds[Batch]]) -> None:
        """Trains to the end, from where it was stored; a finished stage only loads its weights.

        Args:
            make: makes the rounds, if the stage is not finished.

        Raises:
            OutOfTimeError: the budget is over; the stage is stored.
        """
        if load_weights(self.finished, self.parts):
            print(f"{self.name}: finished before", flush=True)
            return
        rounds = make()
        self._restore()
        remove_dropout(self.parts)
        self.parts.train()
        progress = _Progress(self, self.budget.now)
        while self.step < self.schedule.steps:
            if self.inputs is None:
                self.inputs = rounds.state()
            batches = rounds.batches(self.round, self.inputs)
            if not batches:
                raise SystemExit(f"{self.name}: nothing to train on; the corpus is empty")
            while self.place < len(batches) and self.step < self.schedule.steps:
                if self.budget.over:
                    self._store()
                    raise OutOfTimeError(f"{self.name}: stopped after {self.step} of {self.schedule.steps} steps")
                losses = rounds.losses(batches[self.place])
                self._update(losses)
                progress.add(losses)
                if self.budget.now() - progress.stored >= SAVE_SECONDS:
                    self._store()
                    progress.stored = self.budget.now()
            self.round, self.place, self.inputs = self.round + 1, 0, None
        write_atomically(self.finished, {"parts": self.parts.state_dict()})
        self.unfinished.unlink(missing_ok=True)

    def _update(self, losses: Losses) -> None:
        """One optimizer step; skipped if the norm of the gradients is not finite."""
        losses.total.backward()
        norm = float(nn.utils.clip_grad_norm_(self.parts.parameters(), self.schedule.clip))
        for optim in self.optims:
            for group in optim.param_groups:
                group["lr"] = self.schedule.rate * one_cycle(self.step, self.schedule.steps)
            if math.isfinite(norm):
                optim.step()
        if not math.isfinite(norm):
            print(f"{self.name} {self.step}: gradients are not finite; step left out", flush=True)
        self.parts.zero_grad(set_to_none=True)
        self.step, self.place = self.step + 1, self.place + 1

    def _store(self) -> None:
        counters = {"step": self.step, "round": self.round, "place": self.place, "inputs": self.inputs}
        optims = [optim.state_dict() for optim in self.optims]
        write_atomically(self.unfinished, {"parts": self.parts.state_dict(), "optims": optims, **counters})

    def _restore(self) -> None:
        if not self.unfinished.exists():
            return
        saved = torch.load(self.unfinished, weights_only=True)
        self.parts.load_state_dict(saved["parts"])
        for optim, state in zip(self.optims, saved["optims"], strict=True):
            optim.load_state_dict(state)
        self.step, self.round, self.place = saved["step"], saved["round"], saved["place"]
        self.inputs = saved["inputs"]
        print(f"{self.name}: continues at step {self.step} of {self.schedule.steps}", flush=True)


def load_weights(path: Path, parts: nn.Module) -> bool:
    """Loads the weights of a stage into its parts; False if there is no such file."""
    if not path.exists():
        return False
    parts.load_state_dict(torch.load(path, weights_only=True)["parts"])
    return True


class _Progress:
    """Prints the mean losses by group, the speed and the time that is left."""

    def __init__(self, stage: Stage[Any], now: Callable[[], float]) -> None:
        self.stage, self.now, self.stored = stage, now, now()
        self._begin()

    def _begin(self) -> None:
        self.sums, self.counts = Counter[str](), Counter[str]()
        self.seconds, self.steps, self.started = 0.0, 0, self.now()

    def add(self, losses: Losses) -> None:
        self.sums.update(losses.sums)
        self.counts.update(losses.counts)
        self.seconds, self.steps = self.seconds + losses.seconds, self.steps + 1
        step, steps = self.stage.step, self.stage.schedule.steps
        if step % REPORT and step < steps:
            return
        taken = max(1e-9, self.now() - self.started)
        means = " ".join(f"{name} {self.sums[name] / self.counts[name]:.3f}" for name in sorted(self.sums))
        speed = f"{taken / self.steps:.2f} s/step {self.seconds / taken:.1f} audio s/s"
        left = (steps - step) * taken / self.steps / 60
        print(f"{self.stage.name} {step}/{steps} {means} | {speed}, {left:.0f} min left", flush=True)
        self._begin()
