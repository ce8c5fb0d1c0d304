"""Checkpoints: staged, then renamed; tensors in safetensors, the rest in JSON, no pickle."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from finetune.errors import CheckpointError
from finetune.runs import read_json, write_json

WEIGHTS, OPTIMIZER, PROGRESS = "weights.safetensors", "optimizer.safetensors", "progress.json"


def replace_folder(staged: Path, target: Path) -> None:
    """Puts a finished folder in the place of an older one; a kill leaves one of the two whole."""
    old = target.with_name(target.name + ".old")
    if target.exists():  # else a kill fell between the two renames, and `old` is all there is
        shutil.rmtree(old, ignore_errors=True)
        os.replace(target, old)
    os.replace(staged, target)
    shutil.rmtree(old, ignore_errors=True)


def save(folder: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer,
         progress: dict[str, Any]) -> None:
    """Writes weights, AdamW's moments (by parameter name) and `progress`, all or nothing."""
    staged = folder.with_name(folder.name + ".part")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    save_file({name: value.detach().cpu().contiguous() for name, value in parameters.items()}, staged / WEIGHTS)
    moments = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            moments[f"{name}:{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    save_file(moments, staged / OPTIMIZER)
    write_json(staged / PROGRESS, progress)
    replace_folder(staged, folder)


def find(folder: Path) -> Path | None:
    """The checkpoint, or the older one where a save was killed between its two renames."""
    for candidate in (folder, folder.with_name(folder.name + ".old")):
        if (candidate / PROGRESS).is_file():
            return candidate
    return None


def restore(folder: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Loads what `save` wrote into parameters and optimizer; returns its progress.

    Raises:
        CheckpointError: a file is damaged, or its parameters are not those that train now.
    """
    try:
        weights: dict[str, Tensor] = load_file(folder / WEIGHTS)
        moments: dict[str, Tensor] = load_file(folder / OPTIMIZER)
        progress: dict[str, Any] = read_json(folder / PROGRESS)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: damaged ({error}); delete it to start again") from error
    odd = sorted({(name, value.shape) for name, value in weights.items()} ^
                 {(name, value.shape) for name, value in parameters.items()})
    if odd:
        raise CheckpointError(f"{folder}: other parts were trained there ({odd[0][0]}); delete it to start again")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
            optimizer.state[parameter] = {
                key.rpartition(":")[2]: value.to(parameter.device) if value.ndim else value
                for key, value in moments.items() if key.rpartition(":")[0] == name}
    return progress
