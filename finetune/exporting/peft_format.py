"""`--format peft`: one folder with everything that was trained, which plain PEFT loads to exactly the trained model.

LoRA stays LoRA. Modules that trained in full are complete in `modules_to_save`, with the buffers of the base.
"""

import gc
import logging
from copy import copy
from pathlib import Path

from peft import LoraConfig
from torch import Tensor, zeros

from finetune.core.config import Recipe
from finetune.core.errors import ModelError
from finetune.core.files import replace_folder
from finetune.core.progress import task
from finetune.core.run_dir import RunDir
from finetune.core.wording import count
from finetune.data.manifest import read_manifest, seconds_of
from finetune.exporting.adapter_folder import (
    AdapterResult,
    base_name,
    check_adapter_target,
    refuse_shipped_lora,
    write_adapter,
)
from finetune.exporting.card.usage import PROMPT_ABOVE
from finetune.exporting.card.write import write_adapter_card
from finetune.exporting.limits import exported_limits
from finetune.exporting.merge import trained_model, trained_outputs
from finetune.exporting.plain_peft import python_code
from finetune.exporting.save import base_folder, staged_folder
from finetune.exporting.trained_weights import TrainedWeights
from finetune.exporting.verify import Opened, RunProcess, largest_difference, reopen, run_process
from finetune.model.load_weights import model_class
from finetune.model.model_config import read_config
from finetune.model.trainable import full_module_of

log = logging.getLogger(__name__)

# Saved unchanged if nothing else trained in full: vLLM, which knows other names of the layers, would ignore a LoRA of
# this folder without an error. It refuses modules_to_save.
UNCHANGED = "model.language_model.norm"
# PEFT needs a layer with LoRA. Without any, this one gets a LoRA of zeros. It never trains.
ZERO_LORA = "model.encoder.input_linear"
USAGE = """Base model: `{base}`{revision}. The adapter has all trained weights: {content}. It needs PEFT {peft} and
transformers 5.10 or newer. In float32 the model is exactly the trained one; in bfloat16, modules in `modules_to_save`
are rounded.

```python
{loading}```

Use the processor of the base model, and {prompt_above}.

### Self-check
This code prints `{adapted}`. {meaning}

```python
{self_check}```

vLLM cannot load this folder (modules_to_save); use the merged model, or an adapter of `--format vllm-lora`.
"""


def export_peft(recipe: Recipe, run: RunDir, folder: Path, run_process: RunProcess = run_process) -> AdapterResult:
    """Writes the adapter and verifies it: plain PEFT, in a new process, must give the logits of the trained model.

    Raises:
        ModelError: they differ; `folder` is not changed.
        CheckpointError: there is no adapter, it does not fit the base, or `folder` has files of the user.
    """
    check_adapter_target(folder)
    base, clips = base_folder(recipe), read_manifest(run.manifest("test"))[: recipe.export.clips]
    weights = TrainedWeights.of_run(recipe, run.best, base)
    refuse_shipped_lora(weights.shipped is not None, "peft")
    log.info("computing the transcripts of the trained model for %s", count(len(clips), "clip"))
    with task("compare", 2 * seconds_of(clips)):
        trained = trained_outputs(recipe, run.best, base, clips)
    limits = exported_limits(recipe, run, base, trained_model(recipe, run.best, base))
    gc.collect()  # the new process must find the memory free
    with staged_folder(folder) as staged:
        config, tensors = peft_adapter(weights)
        name, revision = base_name(recipe, base)
        write_adapter(staged, config, tensors, recipe, run, base, limits)
        log.info("loading the adapter with PEFT in a new process, and comparing it on the same clips")
        opened = Opened(recipe.model.base, str(base), recipe.model.revision, str(staged))
        loaded = reopen(opened, recipe, run, clips, trained.tokens, run_process)
        difference, equal = largest_difference(trained.logits, loaded.logits), loaded.tokens == trained.tokens
        if not (difference <= recipe.export.tolerance and equal):  # in this form, NaN is refused too
            raise ModelError(
                f"the adapter in PEFT differs from the trained model: logits by {difference:.2g} (export.tolerance "
                f"{recipe.export.tolerance:g}), transcripts {'equal' if equal else 'not equal'}; it remains in {staged}"
            )
        base_config = read_config(recipe.model.base, recipe.model.revision)
        class_name = model_class(base_config).__name__
        loading, self_check = python_code(class_name, name, revision, int(base_config.audio_token_id))
        how = USAGE.format(
            base=name,
            revision=f", revision `{revision}`" if revision else "",
            content=_content(weights),
            peft="0.19",
            loading=loading,
            self_check=self_check,
            prompt_above=PROMPT_ABOVE,
            adapted=loaded.self_check[1],
            meaning=_meaning(*loaded.self_check),
        )
        write_adapter_card(staged, recipe, run, base, limits, how)
        replace_folder(staged, folder)
    log.info("exported to %s; PEFT gives the trained model: logits differ by %.2g", folder, difference)
    return AdapterResult(str(folder), difference, len(clips))


def peft_adapter(weights: TrainedWeights) -> tuple[LoraConfig, dict[str, Tensor]]:
    """Configuration and tensors of the adapter."""
    adapter = weights.adapter
    modules = sorted({full_module_of(name) for name in adapter.full}) or [UNCHANGED]
    tensors = dict(adapter.lora)
    for name in weights.shapes:
        if any(name.startswith(f"{module}.") for module in modules):
            value = weights.tensor(name)
            tensors[f"base_model.model.{name}"] = value.float() if value.is_floating_point() else value
    config = copy(adapter.config)
    if config is None:
        config = LoraConfig(r=1, lora_alpha=1, target_modules=ZERO_LORA.replace(".", r"\."))
        outputs, inputs = weights.shapes[f"{ZERO_LORA}.weight"].shape
        tensors[f"base_model.model.{ZERO_LORA}.lora_A.weight"] = zeros(1, inputs)
        tensors[f"base_model.model.{ZERO_LORA}.lora_B.weight"] = zeros(outputs, 1)
    config.modules_to_save = modules
    return config, tensors


def _meaning(without: list[float], adapted: list[float]) -> str:
    """What another result of the self-check says."""
    if without == adapted:
        return (
            "If it prints something else, the base model is another one. The adapter changes these numbers by less "
            "than\n0.001, so they do not show whether it runs."
        )
    return (
        f"If it prints `{without}`, the base model runs without the adapter; if it prints something\nelse, the base "
        "model is another one."
    )


def _content(weights: TrainedWeights) -> str:
    modules = sorted({full_module_of(name) for name in weights.full})
    lora = [f"LoRA in {count(len(weights.merged), 'layer')}"] * bool(weights.merged)
    return " and ".join([*lora, *([f"modules trained in full ({', '.join(modules)})"] if modules else [])])
