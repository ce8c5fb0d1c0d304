"""What is trained: LoRA on the language model, and whole parts; how it is saved, loaded and merged.

LoRA targets are found by a regular expression anchored to the language model, because bare names
such as `up_proj` also stand in the encoder.
"""

import re
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from finetune.errors import CheckpointError, ModelError
from finetune.model.granite import GraniteSpeech

ADAPTER_CONFIG, ADAPTER_WEIGHTS, WHOLE_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "whole.safetensors"


def target_pattern(modules: list[str]) -> str:
    """A full-match regular expression for linear layers of the language model only."""
    return rf".*language_model\.layers\.\d+\.(self_attn|mlp)\.({'|'.join(map(re.escape, modules))})"


def add_lora(model: GraniteSpeech, rank: int, alpha: float, dropout: float, modules: list[str]) -> PeftModel:
    """Puts LoRA layers into the language model, in place.

    Raises:
        ModelError: a name matches no linear layer; the message lists those there are.
    """
    pattern = re.compile(target_pattern(modules))
    found = {name.rsplit(".", 1)[-1] for name, module in model.hf.named_modules()
             if pattern.fullmatch(name) and isinstance(module, nn.Linear)}
    if not modules or found != set(modules):
        layer = dict(model.hf.named_modules())["model.language_model.layers.0"]
        known = sorted(n.rsplit(".", 1)[-1] for n, m in layer.named_modules() if isinstance(m, nn.Linear))
        raise ModelError(f"train.lora_modules: {sorted(set(modules) - found)} match nothing; there are {known}")
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=target_pattern(modules))
    adapted: PeftModel = get_peft_model(model.hf, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # small updates vanish in bfloat16
    return adapted


def open_parts(model: GraniteSpeech, projector: bool, encoder_blocks: int) -> None:
    """Makes whole parts trainable: the projector, and the upper conformer blocks with the CTC head.

    Raises:
        ModelError: the encoder has fewer blocks than asked for.
    """
    if encoder_blocks > len(model.encoder.layers):
        raise ModelError(f"train.encoder_blocks: {encoder_blocks}, but the encoder has {len(model.encoder.layers)}")
    opened = [model.projector] if projector else []
    if encoder_blocks:
        opened += [model.encoder.out, *model.encoder.layers[-encoder_blocks:]]
    for part in opened:
        part.requires_grad_(True).float()  # small updates vanish in bfloat16


def part_of(name: str) -> str:
    """The part a parameter belongs to, by its name: lora, projector, encoder or language_model."""
    if "lora_" in name:
        return "lora"
    return next((part for part in ("projector", "encoder") if f"model.{part}." in name), "language_model")


def trained_parameters(model: GraniteSpeech) -> dict[str, nn.Parameter]:
    """Everything that requires a gradient, by name."""
    return {name: value for name, value in model.hf.named_parameters() if value.requires_grad}


def count_trained(model: GraniteSpeech) -> dict[str, tuple[int, int]]:
    """Tensors and parameters that train, by part."""
    table: dict[str, tuple[int, int]] = {}
    for name, value in trained_parameters(model).items():
        tensors, parameters = table.get(part_of(name), (0, 0))
        table[part_of(name)] = (tensors + 1, parameters + value.numel())
    return table


def set_mode(model: GraniteSpeech, training: bool) -> None:
    """Everything in eval mode; in training, LoRA's own dropout and the LLM's checkpointed layers are not.

    BatchNorm must stay in eval mode even where its block trains: its running statistics belong to the
    base model, no adapter stores them, and other engines fold them into the convolution.
    """
    model.eval()
    for module in model.hf.modules() if training else []:
        if hasattr(module, "lora_dropout"):
            module.lora_dropout.train()
        if getattr(module, "gradient_checkpointing", False):
            module.training = True


def save_adapter(model: GraniteSpeech, adapted: PeftModel | None, folder: Path) -> None:
    """PEFT's adapter files for LoRA, and `whole.safetensors` for parts trained in full."""
    folder.mkdir(parents=True, exist_ok=True)
    if adapted is not None:
        config = adapted.peft_config["default"]
        config.base_model_name_or_path = model.source
        config.inference_mode = True
        config.save_pretrained(folder)
        config.inference_mode = False
        state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
        save_file({name: value.cpu().contiguous() for name, value in state.items()}, folder / ADAPTER_WEIGHTS,
                  metadata={"format": "pt"})
    whole = {n: p.detach().cpu().contiguous() for n, p in trained_parameters(model).items() if part_of(n) != "lora"}
    if whole:
        save_file(whole, folder / WHOLE_WEIGHTS, metadata={"format": "pt"})


def load_adapter(model: GraniteSpeech, folder: Path) -> PeftModel | None:
    """Puts a saved adapter on a freshly loaded base model, frozen.

    Raises:
        CheckpointError: the files are missing or do not fit this base model.
    """
    adapted: PeftModel | None = None
    whole, lora = folder / WHOLE_WEIGHTS, folder / ADAPTER_WEIGHTS
    if not whole.is_file() and not lora.is_file():
        raise CheckpointError(f"{folder}: no adapter there ({ADAPTER_WEIGHTS} or {WHOLE_WEIGHTS})")
    try:
        own: dict[str, Tensor] = dict(model.hf.named_parameters())
        for name, value in (load_file(whole) if whole.is_file() else {}).items():
            if name not in own or own[name].shape != value.shape:
                raise CheckpointError(f"{whole}: {name} {tuple(value.shape)} does not fit the base model "
                                      f"{model.source}")
            with torch.no_grad():
                own[name].copy_(value)
        if lora.is_file():
            config = LoraConfig.from_pretrained(str(folder))
            config.inference_mode = False
            adapted = get_peft_model(model.hf, config)
            stored = load_file(lora)
            odd = sorted(set(stored) ^ set(get_peft_model_state_dict(adapted, save_embedding_layers=False)))
            if odd:
                raise CheckpointError(f"{lora}: {odd[0]} does not fit {ADAPTER_CONFIG} or the base model "
                                      f"{model.source}")
            set_peft_model_state_dict(adapted, stored)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: damaged, or not made from the base model {model.source}: {error}") from error
    model.hf.requires_grad_(False)
    model.eval()
    return adapted


def merge(model: GraniteSpeech, adapted: PeftModel | None) -> None:
    """Adds LoRA to the weights, in place; do it in float32 and cast afterwards (peft#1388)."""
    if adapted is not None:
        model.hf = adapted.merge_and_unload(safe_merge=True)
