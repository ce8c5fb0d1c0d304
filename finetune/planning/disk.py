"""Disk space of a run: manifests, encoder cache, checkpoints, best adapter, export."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.core.files import backup_folder
from finetune.core.run_dir import RunDir
from finetune.exporting.save import saved_dtype
from finetune.model.granite import DTYPES, SpeechModel, default_device, resolved_dtype
from finetune.planning.memory import moment_bytes
from finetune.training.encoder_cache import predicted_bytes

MANIFEST_ROW = 350  # bytes a clip without its text: JSON Lines, and the table beside it
CHECKPOINTS = 3  # the last two are kept while the next is written
COPIES = 2  # the best adapter or the export, and the one that replaces it
FLOAT32 = 4


@dataclass(frozen=True)
class DiskPlan:
    """Bytes that a run writes.

    Attributes:
        folder: where they are written, or the nearest folder above that exists.
        free: free bytes there.
        present: bytes of these that an earlier start of the run has written. Audio in `media/`, which is not counted in
            the others, is not counted here either.
        manifests, cache: of the prepared clips, and of the encoder's output; 0 without `machine.cache_encoder`.
        checkpoints: the most that they have at a time.
        best: the best adapter, and its successor while it is written.
        export: the merged model, while it replaces an earlier one.
        least: what the run cannot do without: one of each.
    """

    folder: str
    free: int
    present: int
    manifests: int
    cache: int
    checkpoints: int
    best: int
    export: int
    least: int


def plan_disk(
    model: SpeechModel, recipe: Recipe, run: RunDir, clips: int, characters: int, frames: int, free: int | None = None
) -> DiskPlan:
    """The disk space of a run.

    Args:
        model: a model on the meta device whose parts are open.
        recipe: the recipe.
        run: its directory.
        clips: number of clips of all splits, and `characters` of their texts.
        frames: encoder frames of the clips of train and replay.
        free: free bytes; None asks the file system.
    """
    folder = next((path for path in (run.root, *run.root.parents) if path.exists()), Path())
    trained = sum(value.numel() for value in model.hf.parameters() if value.requires_grad)
    total = sum(value.numel() for name, value in model.hf.named_parameters() if "lora_" not in name)
    base = Path(recipe.model.base)
    saved = DTYPES[saved_dtype(base, recipe.export.dtype) if base.is_dir() else "bfloat16"]  # as on the hub
    export, adapter = total * saved.itemsize, trained * FLOAT32
    cache = _cache_bytes(model, recipe, frames) if recipe.machine.cache_encoder else 0
    manifests = clips * MANIFEST_ROW + 2 * characters
    checkpoint = round(trained * (FLOAT32 + moment_bytes(recipe)))
    most = (manifests, cache, CHECKPOINTS * checkpoint, COPIES * adapter, COPIES * export)
    written = (
        _size(run.manifests),
        _size(run.cache),
        _size(run.checkpoint) + _size(backup_folder(run.checkpoint)),
        _size(run.best),
        _size(run.export),
    )
    return DiskPlan(
        str(folder),
        shutil.disk_usage(folder).free if free is None else free,
        sum(map(min, most, written)),
        *most,
        manifests + cache + checkpoint + adapter + export,
    )


def check_disk(plan: DiskPlan) -> None:
    """Raises DataError if the disk cannot hold what the run needs at least."""
    if plan.least > plan.free + plan.present:
        more = f" more than the {gigabytes(plan.present)} that it has written" if plan.present else ""
        raise DataError(
            f"{plan.folder}: the run needs at least {gigabytes(plan.least - plan.present)}{more}, and "
            f"{gigabytes(plan.free)} are free; free disk space, set machine.cache_encoder: false if it is "
            "on, or set runs to a folder on another disk"
        )


def _size(folder: Path) -> int:
    """Bytes of the files of a folder; 0 if it does not exist."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def gigabytes(size: float) -> str:
    """Bytes with a unit, two digits."""
    for unit, power in (("GB", 1e9), ("MB", 1e6)):
        if size >= power:
            return f"{size / power:.1f} {unit}" if size < 100 * power else f"{size / power:,.0f} {unit}"
    return f"{size / 1e3:.1f} kB"


def _cache_bytes(model: SpeechModel, recipe: Recipe, frames: int) -> int:
    embeds = recipe.parts.projector.mode == "frozen"
    width = model.lm_head.in_features if embeds else model.encoder.input_linear.out_features
    count = -(-frames // model.window) * model.queries if embeds else frames
    dtype: torch.dtype = DTYPES[resolved_dtype(recipe.model.dtype, default_device())]
    return predicted_bytes(count, width, dtype)
