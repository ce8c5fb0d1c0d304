"""Merges a trained adapter into its base model, in float32, and checks that the logits stay the same."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from finetune.core.config import Recipe
from finetune.core.errors import ModelError
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance
from finetune.exporting.verify import Outputs, largest_difference, target_logits
from finetune.inference.recognize import recognize
from finetune.model.adapter import load_adapter, merge
from finetune.model.granite import DTYPES, SpeechModel, load_model

Merge = Callable[[SpeechModel, Any], None]


@dataclass(frozen=True)
class MergedModel:
    """The merged model with weights rounded to the saved dtype, its outputs, and those of the unmerged model."""

    model: SpeechModel
    outputs: Outputs
    trained: Outputs


def merge_adapter(recipe: Recipe, run: RunDir, clips: list[Utterance], dtype: str, merge: Merge = merge) -> MergedModel:
    """Loads base and best adapter, merges them and rounds the weights.

    Args:
        recipe: The recipe of the run.
        run: The run directory.
        clips: Clips on which the models are compared.
        dtype: Data type of the weights to save, `float32` or `bfloat16`; the model stays float32 in memory.
        merge: Merges an adapter in place.

    Raises:
        ModelError: the merged logits differ from the unmerged model's by more than `export.tolerance`.
        CheckpointError: there is no adapter, or it does not fit the base.
    """
    instruction, decoding = recipe.model.instruction, replace(recipe.decode, decoder="greedy")
    model = load_model(recipe.model.base, "float32", "cpu", recipe.model.revision)
    adapted = load_adapter(model, run.best)
    tokens = [list(item.tokens) for item in recognize(model, clips, instruction, decoding)]
    trained = Outputs(tokens, target_logits(model, clips, instruction, tokens))
    merge(model, adapted)
    difference = largest_difference(trained.logits, target_logits(model, clips, instruction, tokens))
    if not difference <= recipe.export.tolerance:  # in this form, NaN is refused too
        raise ModelError(
            f"merged logits differ by {difference:.2g} from the unmerged model's (export.tolerance "
            f"{recipe.export.tolerance:g}); nothing was exported"
        )
    if dtype == "float32":
        return MergedModel(model, trained, trained)
    round_weights(model, dtype)
    rounded_tokens = [list(item.tokens) for item in recognize(model, clips, instruction, decoding)]
    return MergedModel(model, Outputs(rounded_tokens, target_logits(model, clips, instruction, tokens)), trained)


def round_weights(model: SpeechModel, dtype: str) -> None:
    """Rounds every saved tensor to `dtype`, in place. Buffers that are not saved (rotary frequencies) stay exact."""
    for tensor in model.hf.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(DTYPES[dtype]))
