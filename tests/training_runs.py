"""Helpers of the training tests: the content of a run directory, and callbacks and models that fail on purpose."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from finetune.core.run_dir import RunDir
from finetune.model.granite import SpeechModel, load_model
from finetune.training import checkpoint
from finetune.training.callbacks import StepRecord, TrainerCallback


def weights(run: RunDir) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(run.checkpoint / checkpoint.WEIGHTS)
    return tensors


def records(run: RunDir, kind: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "time"} for row in rows if row["kind"] == kind]


def prepared(run: RunDir, root: Path) -> RunDir:
    """A new run directory with the manifests of another run."""
    shutil.copytree(run.manifests, root / "manifests")
    return RunDir(root)


class Killed(BaseException):
    """Stands for a kill of the process."""


class KillInStep(TrainerCallback):
    """Ends the training in its `number`th step of this call (from 0), before the step's checkpoint."""

    def __init__(self, number: int) -> None:
        self.number, self.steps = number, 0

    def on_step(self, record: StepRecord) -> None:
        self.steps += 1
        if self.steps > self.number:
            raise Killed


class NoStep(TrainerCallback):
    """Fails a test in which a step is trained."""

    def on_step(self, record: StepRecord) -> None:
        raise AssertionError("a step was trained again")


Output = tuple[torch.Tensor, Any]


def load_with_hook(hook: Callable[[int, Output], Output]) -> Callable[..., SpeechModel]:
    """A `load_model` whose model passes each training forward's number (from 0) and output through `hook`."""

    def load(*arguments: Any) -> SpeechModel:
        model, calls = load_model(*arguments), iter(range(1_000_000))
        model.register_forward_hook(lambda module, inputs, output: hook(next(calls), output))
        return model

    return load
