"""Checkpoints: staged, hashed, then renamed; tensors in safetensors, the rest in JSON, no pickle."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from finetune.core.errors import CheckpointError
from finetune.core.files import backup_folder, is_full, read_json, replace_folder, sha256_file, write_json
from finetune.core.run_dir import flatten

log = logging.getLogger(__name__)

WEIGHTS, OPTIMIZER, PROGRESS = "weights.safetensors", "optimizer.safetensors", "progress.json"
ORIGIN, FILES = "origin.json", "files.json"
HASHED = (WEIGHTS, OPTIMIZER, PROGRESS, ORIGIN)


def save(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
    origin: dict[str, Any],
) -> bool:
    """Writes weights, AdamW's moments (by parameter name), `progress` and `origin`, all or nothing.

    Args:
        progress: where training stands; `restore` gives it back.
        origin: what the run was made from, for `differences`.

    Returns:
        False where the disk is full: the last checkpoint stands, and a warning says so.
    """
    staged = folder.with_name(folder.name + ".part")
    try:
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        save_file({name: value.detach().cpu().contiguous() for name, value in parameters.items()}, staged / WEIGHTS)
        moments = {}
        for name, parameter in parameters.items():
            for key, value in optimizer.state.get(parameter, {}).items():
                moments[f"{name}:{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
        save_file(moments, staged / OPTIMIZER)
        write_json(staged / PROGRESS, progress)
        write_json(staged / ORIGIN, origin)
        write_json(staged / FILES, {name: sha256_file(staged / name) for name in HASHED})
        if backup_folder(folder).exists() and _damage(
            folder
        ):  # the older one is all there is: it must not give way to this
            shutil.rmtree(folder, ignore_errors=True)
        replace_folder(staged, folder)
    except (OSError, SafetensorError) as error:
        if not is_full(error):
            raise
        shutil.rmtree(staged, ignore_errors=True)
        log.warning("%s: no checkpoint, the disk is full (%s); the last one stays, training goes on", folder, error)
        return False
    return True


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files; None where all of them have their hashes."""
    try:
        hashes = read_json(folder / FILES)
        wrong = [name for name in HASHED if hashes[name] != sha256_file(folder / name)]
    except OSError as error:
        return str(error)
    except (ValueError, LookupError, TypeError) as error:
        return f"{FILES}: {type(error).__name__}: {error}"
    return f"{wrong[0]} is not what was written" if wrong else None


def find(folder: Path) -> Path | None:
    """The newest whole checkpoint: `folder`, or the older one that a killed save has left beside it.

    Raises:
        CheckpointError: something is there, and none of it is whole.
    """
    damaged: list[str] = []
    for candidate in (folder, backup_folder(folder)):
        if not candidate.exists():
            continue
        problem = _damage(candidate)
        if problem is None:
            if damaged:
                log.warning("%s; going on from the one before, %s", damaged[0], candidate)
            return candidate
        damaged.append(f"{candidate}: unreadable ({problem})")
    if damaged:
        raise CheckpointError(f"{'; '.join(damaged)}; delete it to start again")
    return None


def restore(folder: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Loads what `save` wrote into parameters and optimizer, bit by bit; returns its progress.

    Raises:
        CheckpointError: a file is damaged, or its parameters are not those that train now.
    """
    try:
        weights: dict[str, Tensor] = load_file(folder / WEIGHTS)
        moments: dict[str, Tensor] = load_file(folder / OPTIMIZER)
        progress: dict[str, Any] = read_json(folder / PROGRESS)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: damaged ({error}); delete it to start again") from error
    odd = sorted(
        {(name, str(value.dtype), value.shape) for name, value in weights.items()}
        ^ {(name, str(value.dtype), value.shape) for name, value in parameters.items()}
    )
    if odd:
        name, dtype, shape = odd[0]
        raise CheckpointError(
            f"{folder}: other parts were trained there ({name}, {dtype}, {list(shape)}, stands on "
            "one side only); delete it to start again"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    # The optimizer's own loading, as it knows which of the values belong on the device.
    members = [member for group in optimizer.param_groups for member in group["params"]]
    indices = {id(member): index for index, member in enumerate(members)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        name, _, kind = key.rpartition(":")
        state.setdefault(indices[id(parameters[name])], {})[kind] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress


def read_origin(folder: Path) -> dict[str, Any]:
    """What the run of a checkpoint from `find` was made from."""
    origin: dict[str, Any] = read_json(folder / ORIGIN)
    return origin


def differences(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The dotted keys in which two origins differ, with both values: `train.epochs: 4 then, 6 now`."""
    before, after = flatten(saved), flatten(json.loads(json.dumps(now)))  # as JSON brings it back: a tuple is a list

    def said(flat: dict[str, Any], key: str) -> str:
        text = json.dumps(flat[key], ensure_ascii=False) if key in flat else "nothing"
        return text if len(text) < 66 else text[:17] + "…"  # such as a hash, which is 66 long

    return [
        f"{key}: {said(before, key)} then, {said(after, key)} now"
        for key in sorted({*before, *after})
        if before.get(key, ...) != after.get(key, ...)
    ]  # None is a value too
