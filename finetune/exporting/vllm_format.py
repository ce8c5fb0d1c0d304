"""`--format vllm-lora`: the LoRA of the language model under vLLM's names, with vLLM's limits."""

import logging
import re
from copy import copy
from pathlib import Path

from peft import LoraConfig
from torch import Tensor

from finetune.core.config import PartsSection, Recipe
from finetune.core.errors import ModelError
from finetune.core.files import replace_folder
from finetune.core.model_limits import read_limits
from finetune.core.run_dir import RunDir
from finetune.exporting.adapter_folder import (
    AdapterResult,
    base_name,
    check_adapter_target,
    refuse_shipped_lora,
    write_adapter,
)
from finetune.exporting.card.usage import PROMPT_ABOVE
from finetune.exporting.card.write import write_adapter_card
from finetune.exporting.save import base_folder, staged_folder
from finetune.exporting.trained_weights import TrainedWeights
from finetune.model.adapter import Adapter
from finetune.model.trainable import part_of

log = logging.getLogger(__name__)

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the values of vLLM's max_lora_rank
OURS, THEIRS = "base_model.model.model.language_model.", "base_model.model.language_model.model."
LAYER = re.compile(r"base_model\.model\.(.+)\.lora_(?:A|B)\.weight")
USAGE = """LoRA for vLLM. Base model: `{base}`{revision}. LoRA of the language model (rank {rank}), under
the names of vLLM. PEFT needs the adapter of `finetune export --format peft`.

```
vllm serve {base} {pin}--enable-lora --max-lora-rank {max_rank} --lora-modules adapted=FOLDER --max-model-len 2048
```

Request the model `adapted`, with {prompt_above};
`/v1/audio/transcriptions` writes a prompt of its own. vLLM ignores an adapter whose names it does not know without an
error; `finetune verify FOLDER --engine vllm-lora` compares its texts with those of the trained model.
"""


def export_vllm_lora(recipe: Recipe, run: RunDir, folder: Path) -> AdapterResult:
    """Writes the adapter.

    Raises:
        ModelError: vLLM cannot serve it; the message names the reason.
        CheckpointError: there is no adapter, it does not fit the base, or `folder` has files of the user.
    """
    check_adapter_target(folder)
    base = base_folder(recipe)
    weights = TrainedWeights.of_run(recipe, run.best, base)
    refuse_shipped_lora(weights.shipped is not None, "vllm-lora")
    config, tensors = vllm_adapter(weights.adapter)
    name, revision = base_name(recipe, base)
    how = USAGE.format(
        base=name,
        revision=f", revision `{revision}`" if revision else "",
        pin=f"--revision {revision} " if revision else "",
        rank=config.r,
        max_rank=max_lora_rank(config.r),
        prompt_above=PROMPT_ABOVE,
    )
    limits = read_limits(base).after_training(recipe.model.instruction, run.done("train"))
    with staged_folder(folder, keep=False) as staged:
        write_adapter(staged, config, tensors, recipe, run, base, limits)
        write_adapter_card(staged, recipe, run, base, limits, how)
        replace_folder(staged, folder)
    log.info("exported to %s", folder)
    return AdapterResult(str(folder), 0.0, 0)


def _check(others: set[str], rank: int, dora: bool) -> None:
    """Raises ModelError if vLLM cannot serve a LoRA of this rank, or other parts that are trained too."""
    if others:
        raise ModelError(
            f"--format vllm-lora: {', '.join(sorted(others))} trained too, and vLLM serves only LoRA of the language "
            "model; use the merged model (`finetune export` without --format)"
        )
    if not rank:
        raise ModelError("--format vllm-lora: the run has no LoRA; use the merged model")
    if dora:
        raise ModelError("--format vllm-lora: vLLM has no DoRA (parts.lora.variant: dora); use the merged model")
    if rank > RANKS[-1]:
        raise ModelError(
            f"--format vllm-lora: rank {rank}, but vLLM serves ranks up to {RANKS[-1]}; use the merged model"
        )


def max_lora_rank(rank: int) -> int:
    """The smallest `--max-lora-rank` that serves a rank; above all of them, the largest."""
    return next((allowed for allowed in RANKS if allowed >= rank), RANKS[-1])


def check_parts(parts: PartsSection) -> None:
    """Raises ModelError if vLLM cannot serve what a recipe trains; no training is needed to know it."""
    modes = {name: getattr(parts, name).mode for name in ("ctc_head", "encoder", "lm_head", "projector")}
    others = {name for name, mode in modes.items() if mode != "frozen"}
    if parts.language_model.layers:
        others.add("language_model")
    _check(others, parts.lora.rank, parts.lora.variant == "dora")


def vllm_adapter(adapter: Adapter) -> tuple[LoraConfig, dict[str, Tensor]]:
    """Configuration and tensors under vLLM's names. Raises ModelError if vLLM cannot serve the adapter."""
    config = copy(adapter.config)
    others = {part_of(name) for name in adapter.full} | {part_of(name) for name in adapter.lora} - {"lora"}
    _check(others, config.r if config else 0, bool(config and config.use_dora))
    assert config is not None, "its rank is not 0"
    names = {name: name.replace(OURS, THEIRS, 1) for name in adapter.lora}
    config.target_modules = sorted({match[1].rpartition(".")[2] for name in names if (match := LAYER.fullmatch(name))})
    if config.lora_alpha == int(config.lora_alpha):
        config.lora_alpha = int(config.lora_alpha)
    return config, {names[name]: value for name, value in adapter.lora.items()}
