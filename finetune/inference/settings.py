"""The settings to transcribe with: those of an export, or those of a recipe."""

from finetune.core.config import DecodeSection, ModelSection, TranscribeSection
from finetune.inference.options import Settings


def settings_of(model: str) -> Settings:
    """Those an export carries; for any other model the defaults of the recipe."""
    return Settings.beside(model) or settings_from(ModelSection(), DecodeSection())


def settings_from(model: ModelSection, decode: DecodeSection) -> Settings:
    """As a recipe says them."""
    own = TranscribeSection()
    return Settings(
        model.instruction,
        decode.decoder,
        decode.max_entropy,
        decode.min_probability,
        decode.batch_seconds,
        own.max_new_tokens,
        own.max_window,
        own.vad,
        own.format,
    )
