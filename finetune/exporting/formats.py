"""The formats of `finetune export --format NAME`, by name."""

from collections.abc import Callable, Mapping
from pathlib import Path

from finetune.core.config import Recipe
from finetune.core.run_dir import RunDir
from finetune.exporting.adapter_folder import AdapterResult, refuse_shipped_lora
from finetune.exporting.engines.registry import PEFT, VLLM_LORA
from finetune.exporting.peft_format import export_peft
from finetune.exporting.vllm_format import check_parts, export_vllm_lora
from finetune.model.model_config import read_config

ADAPTERS: Mapping[str, Callable[[Recipe, RunDir, Path], AdapterResult]] = {
    PEFT: export_peft,
    VLLM_LORA: export_vllm_lora,
}


def check_adapter(recipe: Recipe, name: str) -> None:
    """Checks before the training whether a format can hold what a recipe trains. Raises ModelError if it cannot."""
    refuse_shipped_lora(bool(read_config(recipe.model.base, recipe.model.revision).has_lora_adapter), name)
    if name == VLLM_LORA:
        check_parts(recipe.parts)


def export_adapter(recipe: Recipe, run: RunDir, name: str) -> AdapterResult:
    """Writes `export-NAME/` in the run directory. Raises the errors of the format."""
    return ADAPTERS[name](recipe, run, run.exported(name))
