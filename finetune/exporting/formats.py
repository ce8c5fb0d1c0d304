"""The formats of `finetune export --format NAME`, by name."""

from collections.abc import Callable, Mapping
from pathlib import Path

from finetune.core.config import Recipe
from finetune.core.run_dir import RunDir
from finetune.exporting.adapter_folder import AdapterResult
from finetune.exporting.peft_format import export_peft
from finetune.exporting.vllm_format import export_vllm_lora

ADAPTERS: Mapping[str, Callable[[Recipe, RunDir, Path], AdapterResult]] = {
    "peft": export_peft,
    "vllm-lora": export_vllm_lora,
}


def export_adapter(recipe: Recipe, run: RunDir, name: str) -> AdapterResult:
    """Writes `export-NAME/` in the run directory. Raises the errors of the format."""
    return ADAPTERS[name](recipe, run, run.exported(name))
