"""Saves and restores checkpoints: staged, hashed, then renamed; tensors in safetensors, other data in JSON.

The last two are kept, as `checkpoint` and `checkpoint.old`: if a file of the newer one is damaged, the run resumes from
the older one. While a third one is written, the disk holds three.
"""

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

from finetune.core.config import Recipe
from finetune.core.defaults import default_settings, without_new_defaults
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
from finetune.metrics.keyword_terms import sampling_inputs
from finetune.training.sharded_optimizer import load_moments, moments_of

log = logging.getLogger(__name__)

WEIGHTS, OPTIMIZER, PROGRESS = "weights.safetensors", "optimizer.safetensors", "progress.json"
ORIGIN, FILES = "origin.json", "files.json"
HASHED = (WEIGHTS, OPTIMIZER, PROGRESS, ORIGIN)
NAMES = (*HASHED, FILES)
# The sections of an origin that say how validations decode and score: scores of other settings cannot be compared.
VALIDATION = {"decode": {"max_new_tokens", "max_window", "keyword_method", "terms"}, "evaluate": {"normalizer"}}
BEAM_SEARCH = {"decoder", "num_beams", "ctc_weight"}  # also of `decode`; the other decoders write the same text
DECODER = "decode.decoder"
VERSION_KEY, VERSION = "checkpoint_version", 2  # in `files.json`; version 1 (0.2.0 and earlier) has no such key


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
    trusted: bool = False,
) -> bool:
    """Writes weights, AdamW's moments (by parameter name), `progress` and `origin`, all or nothing.

    If the disk is full, the older of the two earlier checkpoints is deleted and the save is tried again.

    Args:
        folder: folder of the checkpoint.
        parameters: by name.
        optimizer: optimizer of these parameters.
        progress: progress of the training; `restore` returns it.
        origin: recipe, base and data of the run, for `differences`.
        files: the file operations.
        trusted: this process wrote the newest checkpoint, so its files are not read again before the older is deleted.

    Returns:
        False if the disk is full. Then the last checkpoint is kept, and a warning is logged.
    """
    staged, previous = folder.with_name(folder.name + ".part"), backup_folder(folder)
    while True:
        try:
            _write(staged, parameters, optimizer, progress, origin, files)
            if not trusted and previous.exists() and _damage(folder):  # then only the older one is valid, and is kept
                files.rmtree(folder, ignore_errors=True)
            replace_folder(staged, folder, files, keep_previous=True)
            return True
        except (OSError, SafetensorError) as error:
            if not is_disk_full(error):
                raise
            files.rmtree(staged, ignore_errors=True)
            if not (previous.exists() and folder.exists()) or _damage(folder):
                kept = "the last one is kept" if folder.exists() or previous.exists() else "there is no earlier one"
                log.warning(
                    "%s: no checkpoint written, the disk is full (%s); %s, and training continues", folder, error, kept
                )
                return False
            log.warning("%s: deleted, because the disk is full (%s)", previous, error)
            files.rmtree(previous, ignore_errors=True)


def _write(
    staged: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
    origin: dict[str, Any],
    files: CheckpointFiles,
) -> None:
    """Writes a checkpoint to a new folder."""
    files.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in parameters.items()}
    files.save_file(weights, staged / WEIGHTS)
    moments, by_parameter = {}, moments_of(optimizer)
    for name, parameter in parameters.items():
        for key, value in by_parameter.get(parameter, {}).items():
            moments[f"{name}:{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    files.save_file(moments, staged / OPTIMIZER)
    files.write_json(staged / PROGRESS, progress)
    files.write_json(staged / ORIGIN, origin)
    hashes = {name: sha256_file(staged / name) for name in HASHED}
    files.write_json(staged / FILES, {VERSION_KEY: VERSION, **hashes})


def _damage(folder: Path) -> str | None:
    """The first problem of a checkpoint's files; None if all of them match their hashes."""
    try:
        hashes = read_json(folder / FILES)
        if (version := hashes.get(VERSION_KEY, 1)) not in range(1, VERSION + 1):
            raise CheckpointError(
                f"{folder}: a checkpoint of version {version!r}; this version of the toolkit reads versions 1 to "
                f"{VERSION}. Resume with the version that wrote it, or choose another name with --set name=..."
            )
        wrong = [name for name in HASHED if hashes[name] != sha256_file(folder / name)]
    except OSError as error:
        return str(error)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return f"{FILES}: {type(error).__name__}: {error}"
    return f"{wrong[0]} does not match its hash" if wrong else None


def find(folder: Path) -> Path | None:
    """The newest valid checkpoint: `folder`, or the previous one if `folder` is damaged or a save was killed.

    Returns:
        Its folder; None if there is no checkpoint.

    Raises:
        CheckpointError: all checkpoints are damaged, or one is of a newer version or not of this toolkit.
    """
    damaged: list[str] = []
    for candidate in (folder, backup_folder(folder)):
        if not candidate.exists():
            continue
        if not candidate.is_dir() or ((names := {path.name for path in candidate.iterdir()}) and not names & {*NAMES}):
            raise CheckpointError(
                f"{candidate}: not a checkpoint of this toolkit; move it away, or choose another name with "
                "--set name=..."
            )
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
    state: dict[nn.Parameter, dict[str, Tensor]] = {}
    for key, value in moments.items():
        name, _, moment = key.rpartition(":")
        if name not in parameters:
            raise CheckpointError(f"{folder / OPTIMIZER}: {key} is of no trained parameter; delete it to start again")
        state.setdefault(parameters[name], {})[moment] = value
    load_moments(optimizer, state)
    return progress


def read_origin(folder: Path) -> dict[str, Any]:
    """Recipe, base and data of the run that wrote a checkpoint; `folder` comes from `find`.

    Raises:
        CheckpointError: it is not an object.
    """
    origin = read_json(folder / ORIGIN)
    if not isinstance(origin, dict):
        raise CheckpointError(f"{folder / ORIGIN}: not an object; delete {folder} to start again")
    return origin


def origin_of(
    recipe: Recipe, base: str, manifests: dict[str, str], batches_in_a_step: int, batch_seconds: float
) -> dict[str, Any]:
    """What a run must not change while it trains: settings, fingerprint of the base, hashes of the manifests, plan."""
    sections = dict.fromkeys(("model", "augment", "parts", "train", "seed"), True)
    decode = VALIDATION["decode"] | (BEAM_SEARCH if recipe.decode.decoder == "beam" else set())
    settings = recipe.model_dump(mode="json", include={**sections, **VALIDATION, "decode": decode})
    if settings["decode"]["keyword_method"] == "auto":  # the same in a training
        settings["decode"]["keyword_method"] = "prompt"
    return {
        **settings,
        **sampling_inputs(recipe),
        "base": base,
        "data": manifests,
        "replay_weight": recipe.data.replay_weight,
        "batches_in_a_step": batches_in_a_step,
        "batch_seconds": batch_seconds,
    }


def identity(saved: Path | None) -> str:
    """A hash of a checkpoint's hashes; "" without a checkpoint. `saved` comes from `find`."""
    return sha256_file(saved / FILES) if saved else ""


def batches_in_a_step(saved: Path | None, recipe: Recipe, ranks: int) -> int:
    """Micro-batches in an optimizer step: those of the checkpoint, so that a run continues on another number of ranks.

    Args:
        saved: the checkpoint, from `find`.
        recipe: the recipe.
        ranks: number of processes now.
    """
    accumulation, origin = recipe.train.accumulation, read_origin(saved) if saved else {}
    unchanged = origin.get("train", {}).get("accumulation") == accumulation
    return int(origin["batches_in_a_step"]) if unchanged and "batches_in_a_step" in origin else ranks * accumulation


def require_origin(folder: Path, origin: dict[str, Any]) -> None:
    """Checks that a checkpoint is of this recipe, base and data.

    Raises:
        CheckpointError: it is not; the message names the differences.
    """
    if changed := differences(saved := read_origin(folder), origin):
        is_changed = any(line.startswith(f"data.{split}: ") for line in changed for split in saved.get("data", ()))
        data = " (a manifest differs: clips or transcripts of the corpora were changed)" if is_changed else ""
        older = "was written by an earlier version of the toolkit and " if version_of(folder) < VERSION else ""
        advice = "resume with that version" if older else "restore these values"
        raise CheckpointError(
            f"{folder} {older}does not match this run: {'; '.join(changed[:5])}{data}. To continue it, {advice}; to "
            "start again, choose another name with --set name=..., or delete the run directory"
        )


def version_of(folder: Path) -> int:
    """The version of a checkpoint's format; `folder` comes from `find`."""
    return int(read_json(folder / FILES).get(VERSION_KEY, 1))


def differences(saved: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """The dotted keys in which two origins differ, with both values: `train.epochs: was 4, now 6`.

    A setting that an earlier version did not store is equal to its default; one of `VALIDATION` is not compared.
    """
    current = json.loads(json.dumps(current))  # after JSON, a tuple is a list, as in `saved`
    current = {name: value for name, value in current.items() if name in saved or name not in VALIDATION}
    saved_values, current_values = flatten(saved), flatten(without_new_defaults(current, saved))
    keys = {*saved_values, *current_values}
    # The default of `get` is not None, because None is a valid value.
    changed = {key for key in keys if saved_values.get(key, ...) != current_values.get(key, ...)}
    if DECODER in changed:  # then the other settings of beam search are in only one of them
        changed -= {f"decode.{name}" for name in BEAM_SEARCH} - {DECODER}
    return [f"{key}: was {_shown(saved_values, key)}, now {_shown(current_values, key)}" for key in sorted(changed)]


def _shown(values: dict[str, Any], key: str) -> str:
    """A value for a message, as JSON; the default of a setting that is not stored."""
    if key not in values and key == DECODER:
        return "another decoder"
    defaults = {key: value for key, value in flatten(default_settings()).items() if not key.startswith("data.")}
    known = values if key in values else defaults  # `data` of an origin has hashes
    value = json.dumps(known[key], ensure_ascii=False) if key in known else "not set"
    return value if len(value) < 66 else value[:17] + "…"  # shortens hashes, which are 66 characters long
