"""Saves and restores checkpoints: staged, hashed, then renamed; tensors in safetensors, other data in JSON."""

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
    is_disk_full,
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
        folder: folder of the checkpoint.
        parameters: by name.
        optimizer: optimizer of these parameters.
        progress: progress of the training; `restore` returns it.
        origin: recipe, base and data of the run, for `differences`.
        files: the file operations.

    Returns:
        False if the disk is full. Then the last checkpoint is kept, and a warning is logged.
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
        if backup_folder(folder).exists() and _damage(
            folder
        ):  # then the older version is the only valid one and is kept
            files.rmtree(folder, ignore_errors=True)
        replace_folder(staged, folder, files)
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        files.rmtree(staged, ignore_errors=True)
        log.warning(
            "%s: no checkpoint written, the disk is full (%s); the last checkpoint is kept and training continues",
            folder,
            error,
        )
        return False
    return True


def _damage(folder: Path) -> str | None:
    """The first problem of a checkpoint's files; None if all of them match their hashes."""
    try:
        hashes = read_json(folder / FILES)
        wrong = [name for name in HASHED if hashes[name] != sha256_file(folder / name)]
    except OSError as error:
        return str(error)
    except (ValueError, LookupError, TypeError) as error:
        return f"{FILES}: {type(error).__name__}: {error}"
    return f"{wrong[0]} does not match its hash" if wrong else None


def find(folder: Path) -> Path | None:
    """The newest valid checkpoint: `folder`, or the previous version, if a save was killed.

    Returns:
        Its folder; None if there is no checkpoint.

    Raises:
        CheckpointError: all checkpoints are damaged.
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
    """Restores parameters and optimizer from a checkpoint, bit for bit, and returns its progress.

    Raises:
        CheckpointError: a file is damaged, or the trained parameters are different.
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
            f"{folder}: the trained parameters of the checkpoint and of the recipe differ ({name}, {dtype}, "
            f"{list(shape)} is in only one of them); delete it to start again"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    # The optimizer's own loading moves the right values to the device.
    members = [member for group in optimizer.param_groups for member in group["params"]]
    indices = {id(member): index for index, member in enumerate(members)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        name, _, moment = key.rpartition(":")
        state.setdefault(indices[id(parameters[name])], {})[moment] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress


def read_origin(folder: Path) -> dict[str, Any]:
    """Recipe, base and data of the run that wrote a checkpoint; `folder` comes from `find`."""
    origin: dict[str, Any] = read_json(folder / ORIGIN)
    return origin


def differences(saved: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """The dotted keys in which two origins differ, with both values: `train.epochs: was 4, now 6`."""
    saved_values, current_values = (
        flatten(saved),
        flatten(json.loads(json.dumps(current))),
    )  # after JSON, a tuple is a list, as in `saved`

    def text(flat: dict[str, Any], key: str) -> str:
        value = json.dumps(flat[key], ensure_ascii=False) if key in flat else "not set"
        return value if len(value) < 66 else value[:17] + "…"  # shortens hashes, which are 66 characters long

    return [
        f"{key}: was {text(saved_values, key)}, now {text(current_values, key)}"
        for key in sorted({*saved_values, *current_values})
        if saved_values.get(key, ...)
        != current_values.get(key, ...)  # the default is not None, because None is a valid value
    ]
