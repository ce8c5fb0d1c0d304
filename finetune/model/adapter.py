"""Saves, loads and merges adapters: LoRA in PEFT's format, `whole.safetensors` for parameters trained in full."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.core.errors import CheckpointError
from finetune.core.files import read_json, sha256_file
from finetune.model.granite import SpeechModel
from finetune.model.trainable import part_of, trained_parameters

ADAPTER_CONFIG, ADAPTER_WEIGHTS, FULL_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "whole.safetensors"
# The names of the LoRA files if other parts are trained in full. PEFT and vLLM, which would load LoRA alone and give
# other transcripts without a warning, do not find them. Version 0.2 and older always wrote PEFT's names.
PARTIAL_CONFIG, PARTIAL_WEIGHTS = "lora_config.json", "lora.safetensors"
PARTS = "parts.json"  # SHA-256 of each weights file, to detect missing, damaged and wrong files
NOTE = "README.md"
COMPLETE_NOTE = """# Adapter of a Granite Speech model
All trained weights are LoRA, in PEFT's format: `peft.PeftModel.from_pretrained(base_model, FOLDER)` loads them. The
base model is `{base}`.
"""
PARTIAL_NOTE = """# Trained parts of a Granite Speech model: not a PEFT adapter
Base model: `{base}`. Some parts are trained in full, so PEFT and vLLM cannot load this folder: the LoRA alone gives
other transcripts.

{files}

Use the exported model (`finetune export`, folder `export/` of the run), which has all trained weights. The toolkit
loads this folder with `finetune.model.adapter.load_adapter`.
"""


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each weights file that exists in the folder."""
    names = (ADAPTER_WEIGHTS, PARTIAL_WEIGHTS, FULL_WEIGHTS)
    return {name: sha256_file(folder / name) for name in names if (folder / name).is_file()}


def save_adapter(model: SpeechModel, adapted: PeftModel | None, folder: Path) -> None:
    """Saves all trainable parameters, and a README that says how to load them.

    If all of them are LoRA, PEFT can load the folder without this toolkit; otherwise PEFT refuses it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (PARTS, ADAPTER_CONFIG, ADAPTER_WEIGHTS, PARTIAL_CONFIG, PARTIAL_WEIGHTS, FULL_WEIGHTS):
        (folder / name).unlink(missing_ok=True)
    full: dict[str, Tensor] = {n: value for n, value in trained_parameters(model).items() if "lora_" not in n}
    if adapted is not None:
        config = adapted.peft_config["default"]
        config.base_model_name_or_path = model.source
        config.inference_mode = True
        config.save_pretrained(folder)
        config.inference_mode = False
        if full:
            (folder / ADAPTER_CONFIG).rename(folder / PARTIAL_CONFIG)
        weights = get_peft_model_state_dict(adapted, save_embedding_layers=False)
        _write(weights, folder / (PARTIAL_WEIGHTS if full else ADAPTER_WEIGHTS))
    if full:
        _write(full, folder / FULL_WEIGHTS)
    _write_note(folder, model.source, full)
    (folder / PARTS).write_text(json.dumps(_digests(folder), indent=2) + "\n", encoding="utf-8")


def _write_note(folder: Path, base: str, full: Iterable[str]) -> None:
    parts = ", ".join(sorted({part_of(name) for name in full}))
    lora = [f"- `{PARTIAL_WEIGHTS}`, `{PARTIAL_CONFIG}`: LoRA"] if (folder / PARTIAL_WEIGHTS).is_file() else []
    files = "\n".join([*lora, f"- `{FULL_WEIGHTS}`: weights trained in full ({parts})"])
    note = PARTIAL_NOTE.format(base=base, files=files) if parts else COMPLETE_NOTE.format(base=base)
    (folder / NOTE).write_text(note, encoding="utf-8")


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """The name of the first tensor with a value that is NaN or infinite; "" if all values are finite."""
    floats = {name: value for name, value in tensors.items() if value.is_floating_point()}
    finite = torch.stack([torch.isfinite(value).all().cpu() for value in floats.values()] or [torch.tensor(True)])
    return "" if finite.all() else list(floats)[int(finite.int().argmin())]


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path, metadata={"format": "pt"}
    )


def load_adapter(model: SpeechModel, folder: Path) -> PeftModel | None:
    """Loads a saved adapter into a newly loaded base model and freezes all parameters.

    Returns:
        PEFT's view of the model, or None if the adapter has no LoRA.

    Raises:
        CheckpointError: a file is missing or was changed after saving, has values that are not finite, or does not fit
            this base model.
    """
    adapted: PeftModel | None = None
    full, (config_file, lora) = folder / FULL_WEIGHTS, _lora_files(folder)
    if not (folder / PARTS).is_file():
        raise CheckpointError(f"{folder}: not a complete adapter ({PARTS} is missing)")
    try:
        recorded, present = read_json(folder / PARTS), _digests(folder)
        wrong = sorted(name for name in recorded.keys() | present.keys() if recorded.get(name) != present.get(name))
        if wrong:
            raise CheckpointError(f"{folder / wrong[0]}: damaged, missing, or different from its hash in {PARTS}")
        for path in (full, lora):
            if path.is_file() and (name := not_finite(load_file(path))):
                raise CheckpointError(f"{path}: {name} has values that are NaN or infinite; train again")
        parameters: dict[str, Tensor] = dict(model.hf.named_parameters())
        for name, value in (load_file(full) if full.is_file() else {}).items():
            if name not in parameters or parameters[name].shape != value.shape:
                raise CheckpointError(
                    f"{full}: {name} with shape {tuple(value.shape)} does not fit the base model {model.source}"
                )
            with torch.no_grad():
                parameters[name].copy_(value)
        if lora.is_file():
            config = PeftConfig.from_peft_type(**PeftConfig.from_json_file(str(config_file)))
            config.inference_mode = False
            adapted = get_peft_model(model.hf, config)
            stored = load_file(lora)
            wrong = sorted(set(stored) ^ set(get_peft_model_state_dict(adapted, save_embedding_layers=False)))
            if wrong:
                raise CheckpointError(
                    f"{lora}: {wrong[0]} does not fit {config_file.name} or the base model {model.source}"
                )
            set_peft_model_state_dict(adapted, stored)
    except (OSError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: damaged, or does not fit the base model {model.source}: {error}") from error
    model.hf.requires_grad_(False)
    model.eval()
    return adapted


def _lora_files(folder: Path) -> tuple[Path, Path]:
    """Configuration and weights of the LoRA; the files need not exist."""
    if (folder / ADAPTER_WEIGHTS).is_file():
        return folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS
    return folder / PARTIAL_CONFIG, folder / PARTIAL_WEIGHTS


def merge(model: SpeechModel, adapted: PeftModel | None) -> None:
    """Merges LoRA into the weights, in place. Merge in float32 and cast afterwards (peft#1388)."""
    if adapted is not None:
        model.hf = adapted.merge_and_unload(safe_merge=True)
