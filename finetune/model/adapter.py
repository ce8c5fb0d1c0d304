"""Saves, loads and merges adapters: PEFT's files for LoRA, `whole.safetensors` for parameters trained in full."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.core.errors import CheckpointError
from finetune.core.files import sha256_file
from finetune.model.granite import SpeechModel
from finetune.model.trainable import trained_parameters

ADAPTER_CONFIG, ADAPTER_WEIGHTS, FULL_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "whole.safetensors"
PARTS = "parts.json"  # SHA-256 of each weights file, to detect missing, damaged and wrong files


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each weights file that exists in the folder."""
    names = (ADAPTER_WEIGHTS, FULL_WEIGHTS)
    return {name: sha256_file(folder / name) for name in names if (folder / name).is_file()}


def save_adapter(model: SpeechModel, adapted: PeftModel | None, folder: Path) -> None:
    """Saves all trainable parameters. If all of them are LoRA, PEFT can load the folder without this toolkit."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (PARTS, ADAPTER_WEIGHTS, FULL_WEIGHTS):
        (folder / name).unlink(missing_ok=True)
    if adapted is not None:
        config = adapted.peft_config["default"]
        config.base_model_name_or_path = model.source
        config.inference_mode = True
        config.save_pretrained(folder)
        config.inference_mode = False
        _write(get_peft_model_state_dict(adapted, save_embedding_layers=False), folder / ADAPTER_WEIGHTS)
    full: dict[str, Tensor] = {n: value for n, value in trained_parameters(model).items() if "lora_" not in n}
    if full:
        _write(full, folder / FULL_WEIGHTS)
    (folder / PARTS).write_text(json.dumps(_digests(folder), indent=2) + "\n", encoding="utf-8")


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path, metadata={"format": "pt"}
    )


def load_adapter(model: SpeechModel, folder: Path) -> PeftModel | None:
    """Loads a saved adapter into a newly loaded base model and freezes all parameters.

    Returns:
        PEFT's view of the model, or None if the adapter has no LoRA.

    Raises:
        CheckpointError: a file is missing or was changed after saving, or the adapter does not fit this base model.
    """
    adapted: PeftModel | None = None
    full, lora = folder / FULL_WEIGHTS, folder / ADAPTER_WEIGHTS
    if not (folder / PARTS).is_file():
        raise CheckpointError(f"{folder}: not a complete adapter ({PARTS} is missing)")
    try:
        recorded, present = json.loads((folder / PARTS).read_text(encoding="utf-8")), _digests(folder)
        wrong = sorted(name for name in recorded.keys() | present.keys() if recorded.get(name) != present.get(name))
        if wrong:
            raise CheckpointError(f"{folder / wrong[0]}: damaged, missing, or different from its hash in {PARTS}")
        parameters: dict[str, Tensor] = dict(model.hf.named_parameters())
        for name, value in (load_file(full) if full.is_file() else {}).items():
            if name not in parameters or parameters[name].shape != value.shape:
                raise CheckpointError(
                    f"{full}: {name} with shape {tuple(value.shape)} does not fit the base model {model.source}"
                )
            with torch.no_grad():
                parameters[name].copy_(value)
        if lora.is_file():
            config = LoraConfig.from_pretrained(str(folder))
            config.inference_mode = False
            adapted = get_peft_model(model.hf, config)
            stored = load_file(lora)
            wrong = sorted(set(stored) ^ set(get_peft_model_state_dict(adapted, save_embedding_layers=False)))
            if wrong:
                raise CheckpointError(
                    f"{lora}: {wrong[0]} does not fit {ADAPTER_CONFIG} or the base model {model.source}"
                )
            set_peft_model_state_dict(adapted, stored)
    except (OSError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: damaged, or does not fit the base model {model.source}: {error}") from error
    model.hf.requires_grad_(False)
    model.eval()
    return adapted


def merge(model: SpeechModel, adapted: PeftModel | None) -> None:
    """Merges LoRA into the weights, in place. Merge in float32 and cast afterwards (peft#1388)."""
    if adapted is not None:
        model.hf = adapted.merge_and_unload(safe_merge=True)
