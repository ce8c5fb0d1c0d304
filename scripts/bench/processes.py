"""The same training in one process and in two: NCCL on two GPUs, gloo on a CPU."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.measured_process import run_measured
from bench.rehearsal import RECIPE, ROOT, Plan, write_clips
from finetune.core.files import read_json, read_jsonl

# Micro-batches of a process in a step, by the number of processes: a step has the same clips with both.
ACCUMULATION = {1: 2, 2: 1}


@dataclass(frozen=True)
class Processes:
    """A training with a number of processes.

    Attributes:
        seconds: wall time of the command, with loading and scoring.
        clips_per_second: in the steps.
        losses: of each step.
    """

    processes: int
    seconds: float
    clips_per_second: float
    losses: list[float]


def measure_processes(plan: Plan, batch_seconds: float) -> list[Processes]:
    """Trains with each number of processes; the base of `plan` must exist. Raises RuntimeError if a command fails."""
    write_clips(plan)
    return [_train(plan, count, batch_seconds) for count in ACCUMULATION]


def _train(plan: Plan, count: int, batch_seconds: float) -> Processes:
    settings = plan.overrides() | {
        "name": f"processes-{count}",
        "machine.processes": count,
        "train.accumulation": ACCUMULATION[count],
        "train.batch_seconds": batch_seconds,
        "train.epochs": 2,
    }
    command = [sys.executable, "-m", "finetune", "train", str(RECIPE)]
    command += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    log, run = plan.folder / f"processes-{count}.log", plan.run.parent / f"processes-{count}"
    env = {"HF_HUB_OFFLINE": "1", "FINETUNE_CACHE": "off", "PYTHONPATH": str(ROOT)}
    if torch.cuda.device_count() < 2:  # with one GPU, `finetune train` would start one process
        env["CUDA_VISIBLE_DEVICES"] = ""
    cost = run_measured(command, log, env=env)
    if cost.code:
        raise RuntimeError(
            f"exit code {cost.code}: {log.read_text(encoding='utf-8', errors='replace')[-1500:].strip()}"
        )
    return Processes(count, cost.seconds, read_json(run / "train.done.json")["clips_per_second"], losses(run))


def losses(run: Path) -> list[float]:
    """The loss of each step of a run."""
    return [row["loss"] for row in read_jsonl(run / "metrics.jsonl") if row["kind"] == "step"]


def largest_difference(results: list[Processes]) -> float:
    """Between the losses of the same step, relative to the loss; infinity if the numbers of steps differ."""
    first, *others = (result.losses for result in results)
    if any(len(other) != len(first) for other in others):
        return float("inf")
    return max((abs(a - b) / abs(a) for other in others for a, b in zip(first, other, strict=True)), default=0.0)
