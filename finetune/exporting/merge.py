"""Computes what the trained model writes, and checks that merging its adapter in float32 keeps the logits."""

import gc
from dataclasses import replace
from functools import partial
from pathlib import Path

from finetune.core.config import Recipe
from finetune.core.errors import ModelError
from finetune.data.manifest import Utterance
from finetune.exporting.trained_weights import TrainedWeights
from finetune.exporting.verify import Outputs, largest_difference, target_logits
from finetune.inference.recognize import recognize
from finetune.model.adapter import load_adapter
from finetune.model.float32 import change_weight, compute_in_float32, load_as_stored
from finetune.model.granite import SpeechModel


def trained_outputs(
    recipe: Recipe, best: Path, base: Path, clips: list[Utterance], weights: TrainedWeights | None = None
) -> Outputs:
    """Greedy tokens of the trained model, whose adapter is not merged, and their float32 logits.

    Args:
        recipe: The recipe of the run.
        best: The adapter.
        base: Folder of the files of the base model.
        clips: Clips to decode.
        weights: The same weights with a merged adapter; the logits of both are compared.

    Raises:
        ModelError: the merged logits differ by more than `export.tolerance`.
        CheckpointError: there is no adapter, or it does not fit the base.
    """
    model = trained_model(recipe, best, base)
    instruction, decoding = recipe.model.instruction, replace(recipe.decode, decoder="greedy")
    tokens = [list(item.tokens) for item in recognize(model, clips, instruction, decoding)]
    trained = Outputs(tokens, target_logits(model, clips, instruction, tokens))
    if weights is not None:
        _merge_when_used(model, weights)
        difference = largest_difference(trained.logits, target_logits(model, clips, instruction, tokens))
        if not difference <= recipe.export.tolerance:  # in this form, NaN is refused too
            raise ModelError(
                f"merged logits differ by {difference:.2g} from the unmerged model's (export.tolerance "
                f"{recipe.export.tolerance:g}); nothing was exported"
            )
    del model
    gc.collect()  # the next model must find the memory free
    return trained


def trained_model(recipe: Recipe, best: Path, base: Path) -> SpeechModel:
    """The base with its adapter, which is not merged; it computes in float32. Raises CheckpointError."""
    model = load_as_stored(recipe.model.base, base, recipe.model.revision)
    load_adapter(model, best, keep_float32=True)
    compute_in_float32(model)
    return model


def _merge_when_used(model: SpeechModel, weights: TrainedWeights) -> None:
    """Replaces PEFT's layers by their base layers, whose weights are merged at each use."""
    for name in weights.merged:
        path = name.removesuffix(".weight")
        parent, _, child = path.rpartition(".")
        layer = model.hf.get_submodule(path).base_layer
        setattr(model.hf.get_submodule(parent), child, layer)
        change_weight(layer, "weight", partial(weights.merge, name))
