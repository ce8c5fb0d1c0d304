"""Applies a recipe to a model: its trainable parts, and activations that the backward pass computes again."""

from finetune.core.config import MachineSection, PartsSection
from finetune.model.conformer import checkpointed_block
from finetune.model.granite import SpeechModel
from finetune.model.trainable import ALL, LoraSpec, PartSpec, TrainableParts


def trainable_parts(parts: PartsSection) -> TrainableParts:
    """The trainable parts of a recipe."""
    lora = parts.lora
    return TrainableParts(
        LoraSpec(lora.rank, lora.alpha, lora.dropout, lora.variant, list(lora.modules)),
        PartSpec(parts.projector.mode, parts.projector.rank, parts.projector.alpha),
        PartSpec(parts.encoder.mode, parts.encoder.rank, parts.encoder.alpha),
        _number(parts.encoder.blocks),
        parts.ctc_head.mode == "full",
        parts.lm_head.mode == "full",
        _number(parts.language_model.layers),
    )


def checkpoint_activations(model: SpeechModel, machine: MachineSection) -> None:
    """Turns on activation checkpointing of the language model and of the encoder, as the recipe says."""
    if machine.gradient_checkpointing:
        model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    if machine.encoder_checkpointing:
        model.encoder_block = checkpointed_block


def _number(count: int | str) -> int:
    return ALL if isinstance(count, str) else count
