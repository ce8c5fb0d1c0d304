"""The files that all exported adapters have: configuration, weights, `adaptation.json`."""

from dataclasses import dataclass
from pathlib import Path

from peft import LoraConfig
from torch import Tensor

from finetune.core.config import Recipe
from finetune.core.errors import ModelError
from finetune.core.model_limits import ModelLimits
from finetune.core.run_dir import RunDir
from finetune.exporting import adaptation, engine_checks
from finetune.exporting.adaptation import Adaptation
from finetune.exporting.save import refuse_foreign_files
from finetune.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, NOTE, write_tensors

FILES = {ADAPTER_CONFIG, ADAPTER_WEIGHTS, NOTE, adaptation.FILE, engine_checks.FILE}


@dataclass(frozen=True)
class AdapterResult:
    """An exported adapter.

    Attributes:
        dir: The folder.
        max_abs_logit_diff: Largest difference of logits between the adapter in its engine and the trained model.
        clips: Number of compared clips; 0 if the engine did not run.
    """

    dir: str
    max_abs_logit_diff: float
    clips: int


def base_name(recipe: Recipe, base: Path) -> tuple[str, str | None]:
    """Hub name and commit of the base model, or its absolute path and None.

    Args:
        recipe: The recipe.
        base: Folder of the files of the base model; for a hub name a snapshot, which is named by its commit.
    """
    if Path(recipe.model.base).is_dir():
        return str(base.resolve()), None
    return recipe.model.base, base.name


def refuse_shipped_lora(shipped: bool, format_name: str) -> None:
    """Raises ModelError if the base model has an adapter of its own, to which an engine would not add another."""
    if shipped:
        raise ModelError(
            f"--format {format_name}: the base model has an adapter of its own, and only one of the two would be used; "
            "use the merged model (`finetune export` without --format)"
        )


def check_adapter_target(folder: Path) -> None:
    """Raises CheckpointError if an export would delete files that no export has written."""
    refuse_foreign_files(folder, lambda path: path.name in FILES)


def write_adapter(
    folder: Path,
    config: LoraConfig,
    tensors: dict[str, Tensor],
    recipe: Recipe,
    run: RunDir,
    base: Path,
    limits: ModelLimits,
) -> None:
    """Writes everything except the model card."""
    config.base_model_name_or_path, config.revision = base_name(recipe, base)
    config.inference_mode = True
    config.save_pretrained(str(folder))
    write_tensors(tensors, folder / ADAPTER_WEIGHTS)
    Adaptation.of_run(recipe, run, limits).write(folder)
