"""What a recipe trains, as the model package takes it."""

from finetune.core.config import Recipe
from finetune.model.trainable import LoraSpec, PartSpec, TrainableParts


def trainable_parts(recipe: Recipe) -> TrainableParts:
    """The recipe's `parts` as plain values."""
    parts = recipe.parts
    lora = parts.lora
    return TrainableParts(
        LoraSpec(lora.rank, lora.alpha, lora.dropout, lora.variant, list(lora.modules)),
        PartSpec(parts.projector.mode, parts.projector.rank, parts.projector.alpha),
        PartSpec(parts.encoder.mode, parts.encoder.rank, parts.encoder.alpha),
        parts.encoder.blocks,
        parts.ctc_head.mode == "full",
        parts.lm_head.mode == "full",
        parts.language_model.layers,
    )
