"""Saves a merged model as a complete folder in the hub layout of its base model."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from torch import Tensor

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, ModelError
from finetune.core.files import is_disk_full, write_json
from finetune.core.model_limits import ADAPTATION, ModelLimits, write_limits
from finetune.core.progress import advance
from finetune.core.run_dir import RunDir
from finetune.exporting import engine_checks, eval_results
from finetune.exporting.adaptation import Adaptation
from finetune.exporting.bundle import add_transcriber
from finetune.exporting.card.write import CARD, write_merged_card
from finetune.exporting.shards import TensorSpec, write_weights
from finetune.exporting.trained_weights import TrainedWeights
from finetune.model.granite import DTYPES
from finetune.model.weight_files import WeightFiles, hub_name, model_name

GIGABYTE = 10**9
OWN = {
    "transcribe",
    ADAPTATION,
    "config.json",
    "generation_config.json",
    "decode.json",
    CARD,
    eval_results.FOLDER,
    engine_checks.FILE,
}
NOT_COPIED = (
    "README.md",
    "decode.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    engine_checks.FILE,
)  # valid only for the base model
# Weights of the base model in other formats, which an engine would take for those of the export.
OTHER_WEIGHTS = (".gguf", ".onnx", ".onnx_data", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")


@contextmanager
def staged_folder(folder: Path, keep: bool = True) -> Iterator[Path]:
    """A new, empty folder beside `folder`. It is deleted if the disk is full, and without `keep` after any error."""
    staged = folder.with_name(folder.name + ".part")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        yield staged
    except BaseException as error:
        if not keep or (isinstance(error, Exception) and is_disk_full(error)):
            shutil.rmtree(staged, ignore_errors=True)
        raise


def save_weights(folder: Path, weights: TrainedWeights, dtype: str, shard_bytes: int) -> None:
    """Writes the weights tensor by tensor, then reads each file again and compares it with the trained weights.

    Raises:
        ModelError: a saved tensor is not the rounded trained one.
    """

    def tensor(name: str) -> Tensor:
        value = weights.tensor(model_name(name))
        return value.to(DTYPES[dtype]) if value.is_floating_point() else value

    specs = {
        hub_name(name): TensorSpec(DTYPES[dtype] if value.is_floating_point() else value.dtype, tuple(value.shape))
        for name, value in weights.shapes.items()
    }
    write_weights(folder, specs, shard_bytes, tensor, advance)
    saved = WeightFiles(folder)
    for name, spec in specs.items():
        if not torch.equal(saved.read(model_name(name)), tensor(name)):
            raise ModelError(f"{folder}: the saved weight {name} is not the trained one; check the disk, then rerun")
        advance(spec.bytes)


def saved_bytes(weights: TrainedWeights, dtype: str) -> int:
    """Bytes of the weights that `save_weights` writes."""
    return sum(value.numel() * DTYPES[dtype].itemsize for value in weights.shapes.values())


def save_other_files(folder: Path, recipe: Recipe, run: RunDir, base: Path, limits: ModelLimits) -> None:
    """Writes `limits.json`, `adaptation.json`, the transcriber and the model card."""
    Adaptation.of_run(recipe, run, limits).write(folder)
    write_limits(folder, limits)
    add_transcriber(folder, recipe)
    write_merged_card(folder, recipe, run, base, limits)


def base_folder(recipe: Recipe) -> Path:
    """The folder of the base model's files, from the hub's cache or downloaded if needed."""
    local = Path(recipe.model.base)
    return local if local.is_dir() else Path(snapshot_download(recipe.model.base, revision=recipe.model.revision))


def check_target(folder: Path, base: Path) -> None:
    """Raises CheckpointError if an export of `base` would delete files that no export has written."""
    own = {path.name for path in base.iterdir()} | OWN
    refuse_foreign_files(folder, lambda path: path.name in own or _is_weights(path))


def refuse_foreign_files(folder: Path, is_own: Callable[[Path], bool]) -> None:
    """Raises CheckpointError if a folder that will be replaced has files that no export has written.

    Args:
        folder: the folder, which need not exist.
        is_own: whether an export writes a file of this name.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: not a folder; move it away, then rerun")
    foreign = sorted(path.name for path in folder.iterdir() if not is_own(path))
    if foreign:
        raise CheckpointError(
            f"{folder}: {foreign[0]} was not written by an export and would be deleted; move it away, then rerun"
        )


def _is_weights(path: Path) -> bool:
    return path.name.startswith("model") and ".safetensors" in path.name


def saved_dtype(base: Path, setting: str) -> str:
    """`float32` or `bfloat16`: `export.dtype`, or for auto the data type of the base model's files."""
    if setting != "auto":
        return setting
    with safe_open(str(sorted(base.glob("model*.safetensors"))[0]), "pt") as weights:
        name = next(key for key in weights.keys() if key.endswith("weight"))  # noqa: SIM118 (not a dict)
        return "bfloat16" if weights.get_slice(name).get_dtype() == "BF16" else "float32"


def copy_side_files(base: Path, folder: Path, dtype: str) -> None:
    """Copies every file of the base model except its weights, so that all engines can load the folder.

    transformers 5 would write another config (rope_parameters) and no preprocessor_config.json.
    """
    for path in base.iterdir():
        weights = _is_weights(path) or path.name.lower().endswith(OTHER_WEIGHTS)
        if path.is_file() and not weights and path.name not in NOT_COPIED:
            shutil.copyfile(path, folder / path.name)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    for key in [name for name in ("torch_dtype", "dtype") if name in config] or ["dtype"]:
        config[key] = dtype
    config["has_lora_adapter"] = False  # the adapter of granite-speech-3.3 was merged on loading
    write_json(folder / "config.json", config)
    for path in folder.iterdir():
        path.chmod(0o644)
