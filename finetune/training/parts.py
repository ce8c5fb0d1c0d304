"""Converts the section `parts` of a recipe to the types of the model package."""

from finetune.core.config import PartsSection
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


def _number(count: int | str) -> int:
    return ALL if isinstance(count, str) else count
