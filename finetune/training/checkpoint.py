"""Checkpoints: staged, hashed, then renamed. Tensors are in safetensors, the rest is in JSON; there is no pickle."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from finetune.core.errors import CheckpointError
from finetune.core.files import (
    FileOperations,
    backup_folder,
    is_full,
    read_json,
    replace_folder,
    sha256_file,
    write_json,
)
from finetune.core.run_dir import flatten

log = logging.getLogger(__name__)

WEIGHTS, OPTIMIZER, PROGRESS = "weights.safetensors", "optimizer.safetensors", "progress.json"
ORIGIN, FILES = "origin.json", "files.json"
HASHED = (WEIGHTS, OPTIMIZER, PROGRESS, ORIGIN)


@dataclass(frozen=True)
class CheckpointFiles(FileOperations):
    """The file operations of a save. Tests replace them to simulate a kill or a full disk."""

    save_file: Callable[[dict[str, Tensor], Path], object] = save_file
    write_json: Callable[[Path, Any], object] = write_json


DISK = CheckpointFiles()


def save(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
    origin: dict[str, Any],
    files: CheckpointFiles = DISK,
) -> bool:
    """Writes weights, AdamW's moments (by parameter name), `progress` and `origin`, all or nothing.

    Args:
        folder: where the checkpoint stands afterwards.
        parameters: by name.
        optimizer: over these parameters.
        progress: where training stands; `restore` returns it.
        origin: recipe, base and data of the run, for `differences`.
        files: the file operations.

    Returns:
        False where the disk is full: the last checkpoint stays, and a warning is logged.
    """
    staged = folder.with_name(folder.name + ".part")
    try:
        files.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        weights = {name: value.detach().cpu().contiguous() for name, value in parameters.items()}
        files.save_file(weights, staged / WEIGHTS)
        moments = {}
        for name, parameter in parameters.items():
            for key, value in optimizer.state.get(parameter, {}).items():
                moments[f"{name}:{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
        files.save_file(moments, staged / OPTIMIZER)
        files.write_json(staged / PROGRESS, progress)
        files.write_json(staged / ORIGIN, origin)
        files.write_json(staged / FILES, {name: sha256_file(staged / name) for name in HASHED})
        if backup_folder(folder).exists() and _damage(folder):  # then the older one is the only valid one and must stay
            files.rmtree(folder, ignore_errors=True)
        replace_folder(staged, folder, files)
    except (OSError, SafetensorError) as error:
        if not is_full(error):
            raise
        files.rmtree(staged, ignore_errors=True)
        log.warning(
            "%s: no checkpoint, the disk is full (%s); the last checkpoint stays and training continues", folder, error
        )
        return False
    return True


def _damage(folder: Path) -> str | None:
    """The first problem of a checkpoint's files; None when all of them match their hashes."""
    try:
        hashes = read_json(folder / FILES)
        wrong = [name for name in HASHED if hashes[name] != sha256_file(folder / name)]
    except OSError as error:
        return str(error)
    except (ValueError, LookupError, TypeError) as error:
        return f"{FILES}: {type(error).__name__}: {error}"
    return f"{wrong[0]} does not match its hash" if wrong else None


def find(folder: Path) -> Path | None:
    """The newest valid checkpoint: `folder`, or the older one that a killed save left beside it.

    Returns:
        Its folder; None where there is no checkpoint at all.

    Raises:
        CheckpointError: there are checkpoints, and all of them are damaged.
    """
    damaged: list[str] = []
    for candidate in (folder, backup_folder(folder)):
        if not candidate.exists():
            continue
        problem = _damage(candidate)
        if problem is None:
            if damaged:
                log.warning("%s; resuming from the previous checkpoint, %s", damaged[0], candidate)
            return candidate
        damaged.append(f"{candidate}: unreadable ({problem})")
    if damaged:
        raise CheckpointError(f"{'; '.join(damaged)}; delete it to start again")
    return None


def restore(folder: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Loads what `save` wrote into parameters and optimizer, bit for bit; returns its progress.

    Raises:
        CheckpointError: a file is damaged, or its parameters are not those that train now.
    """
    try:
        weights: dict[str, Tensor] = load_file(folder / WEIGHTS)
        moments: dict[str, Tensor] = load_file(folder / OPTIMIZER)
        progress: dict[str, Any] = read_json(folder / PROGRESS)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: damaged ({error}); delete it to start again") from error
    unmatched = sorted(
        {(name, str(value.dtype), value.shape) for name, value in weights.items()}
        ^ {(name, str(value.dtype), value.shape) for name, value in parameters.items()}
    )
    if unmatched:
        name, dtype, shape = unmatched[0]
        raise CheckpointError(
            f"{folder}: the checkpoint has other trained parameters than the recipe ({name}, {dtype}, {list(shape)} is "
            "in only one of them); delete it to start again"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    # Through the optimizer's own loading, which knows which of the values belong on the device.
    members = [member for group in optimizer.param_groups for member in group["params"]]
    indices = {id(member): index for index, member in enumerate(members)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        name, _, kind = key.rpartition(":")
        state.setdefault(indices[id(parameters[name])], {})[kind] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress


def read_origin(folder: Path) -> dict[str, Any]:
    """Recipe, base and data of the run that wrote a checkpoint; `folder` comes from `find`."""
    origin: dict[str, Any] = read_json(folder / ORIGIN)
    return origin


def differences(saved: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """The dotted keys in which two origins differ, with both values: `train.epochs: was 4, now 6`."""
    before, after = flatten(saved), flatten(json.loads(json.dumps(current)))  # through JSON, where a tuple is a list

    def text(flat: dict[str, Any], key: str) -> str:
        value = json.dumps(flat[key], ensure_ascii=False) if key in flat else "not set"
        return value if len(value) < 66 else value[:17] + "…"  # shortens hashes, which are 66 characters long

    return [
        f"{key}: was {text(before, key)}, now {text(after, key)}"
        for key in sorted({*before, *after})
        if before.get(key, ...) != after.get(key, ...)  # not None as the default, which is a value too
    ]
