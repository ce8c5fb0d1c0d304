"""What a base model consists of and what a recipe would train, counted on the meta device: no weights are read."""

import re

import torch
from torch import nn
from transformers import GraniteSpeechConfig, GraniteSpeechForConditionalGeneration

from finetune.errors import ModelError
from finetune.model.granite import read_config
from finetune.model.lora import target_pattern


def on_meta(config: GraniteSpeechConfig) -> GraniteSpeechForConditionalGeneration:
    """The model's modules with shapes and no storage."""
    with torch.device("meta"):
        return GraniteSpeechForConditionalGeneration(config)


def count_parts(hf: GraniteSpeechForConditionalGeneration) -> dict[str, int]:
    """Parameters of encoder, projector, language model body and head."""
    parts = {"encoder": hf.model.encoder, "projector": hf.model.projector,
             "language model": hf.model.language_model, "lm_head": hf.lm_head}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def lora_targets(hf: GraniteSpeechForConditionalGeneration, modules: list[str]) -> dict[str, nn.Linear]:
    """The linear layers that LoRA would adapt, by name."""
    pattern = re.compile(target_pattern(modules))
    return {name: module for name, module in hf.named_modules()
            if pattern.fullmatch(name) and isinstance(module, nn.Linear)}


def outline(base: str, revision: str | None, lora_rank: int, lora_modules: list[str], projector: bool,
            encoder_blocks: int) -> list[str]:
    """Lines for `finetune check`: parts of the base, then what trains with its size."""
    try:
        config = read_config(base, revision)
    except ModelError as error:
        return [f"base model not looked into: {str(error).splitlines()[0]}"]
    hf = on_meta(config)
    lines = [f"{name:15} {count:>15,} parameters" for name, count in count_parts(hf).items()]
    trained = []
    if lora_rank:
        targets = lora_targets(hf, lora_modules)
        size = sum(lora_rank * (layer.in_features + layer.out_features) for layer in targets.values())
        trained.append(("LoRA", f"{len(targets)} linear layers of the language model", size))
    if projector:
        trained.append(("projector", "all of it", count_parts(hf)["projector"]))
    if encoder_blocks:
        opened = [hf.model.encoder.out, *hf.model.encoder.layers[-encoder_blocks:]]
        size = sum(p.numel() for part in opened for p in part.parameters())
        trained.append(("encoder", f"upper {encoder_blocks} of {len(hf.model.encoder.layers)} blocks, CTC head", size))
    return [*lines, "", "trains:", *(f"{part:15} {size:>15,} parameters  ({what})" for part, what, size in trained)]
