"""Refuses a training that cannot run: its model, or a step that does not fit into memory, and what needs less."""

from collections.abc import Callable

from finetune.core.config import LoraPart, Recipe
from finetune.core.errors import DataError, ModelError
from finetune.core.run_dir import RunDir
from finetune.model.granite import default_device
from finetune.model.load_weights import check_quantization
from finetune.model.model_summary import open_without_weights
from finetune.planning.disk import gigabytes
from finetune.planning.machine import memory_of
from finetune.planning.memory import MemoryPlan, plan_memory
from finetune.planning.steps import largest_batch
from finetune.training.corpus import manifests_of
from finetune.training.eight_bit import check_eight_bit
from finetune.training.parts import trainable_parts


def check_model(recipe: Recipe) -> None:
    """Refuses, before the corpora are prepared, a base, parts or an optimizer with which the training would fail.

    Raises:
        ModelError, MissingExtraError: what is missing or does not fit.
    """
    model = recipe.model
    if not recipe.data.train or RunDir(f"{recipe.runs}/{recipe.name}").done("prepare") is not None:
        return
    check_quantization(model.quantize, default_device())
    if recipe.train.optimizer == "adamw-8bit":
        check_eight_bit(default_device())
    open_without_weights(model.base, model.revision, trainable_parts(recipe.parts))


def check_training(
    recipe: Recipe, run: RunDir, processes: int, memory: Callable[[str], int | None] = memory_of
) -> None:
    """Refuses a prepared training that cannot fit, before the weights are read.

    Args:
        recipe: the recipe.
        run: its run directory, with the manifests of `finetune prepare`.
        processes: training processes.
        memory: bytes of a device; None if they are not known.

    Raises:
        DataError: see `check_fits`.
        RecipeError: a batch cannot hold the longest clip.
    """
    try:
        model, _ = open_without_weights(recipe.model.base, recipe.model.revision, trainable_parts(recipe.parts))
    except ModelError:  # the training says so when it loads the model
        return
    largest, device = largest_batch(model, recipe, manifests_of(recipe, run), processes), default_device()
    check_fits(plan_memory(model, recipe, largest, device, processes, memory(device)), recipe)


def cannot_fit(plan: MemoryPlan, recipe: Recipe) -> bool:
    """Whether even the lower bound of all processes on the device is above its memory.

    With `train.batch: auto`, what depends on the batch is left out, because the batch becomes as small as it must.
    """
    return plan.available is not None and plan.processes * _least(plan, recipe) > plan.available


def _least(plan: MemoryPlan, recipe: Recipe) -> int:
    batch = plan.activations + plan.loss + plan.encoder
    return plan.low - batch * (recipe.train.batch == "auto")


def check_fits(plan: MemoryPlan, recipe: Recipe) -> None:
    """Raises DataError if the step cannot fit."""
    if plan.available is None or not cannot_fit(plan, recipe):
        return
    sizes = (
        (plan.weights, "frozen weights"),
        (plan.trained, "trained weights"),
        (plan.gradients, "gradients"),
        (plan.moments, "optimizer"),
        *([] if recipe.train.batch == "auto" else [(plan.activations + plan.loss + plan.encoder, "activations")]),
    )
    parts = [f"{gigabytes(size)} {name}" for size, name in sizes if size]
    libraries = _least(plan, recipe) - sum(size for size, _ in sizes)
    least, several = _least(plan, recipe), plan.processes > 1
    each = f" in each of {plan.processes} processes, together {gigabytes(plan.processes * least)}" if several else ""
    lines = [
        f"a training step does not fit on {plan.device}: it needs at least {gigabytes(least)} "
        f"({' + '.join(parts)} + {gigabytes(libraries)} libraries){each}, and {gigabytes(plan.available)} are here. "
        "What needs less, each with those before it:"
    ]
    lines += [f"  {item.setting}: {gigabytes(item.low)} to {gigabytes(item.high)}" for item in plan.less]
    lines += [f"  {setting}" for setting in _lora(recipe)]
    if several and plan.available >= least:
        lines.append(f"  machine.processes: {plan.available // least}")
    if recipe.train.batch != "auto":
        lines.append("  train.batch: auto, or a smaller train.batch_seconds")
    raise DataError("\n".join(lines))


def _lora(recipe: Recipe) -> list[str]:
    """LoRA in place of layers that train in full."""
    parts, changes = recipe.parts, list[str]()
    if parts.language_model.layers:
        changes += ["parts.language_model.layers: 0", f"parts.lora.rank: {parts.lora.rank or LoraPart().rank}"]
    if parts.encoder.mode == "full":
        changes.append("parts.encoder.mode: lora")
    return [f"LoRA: {', '.join(changes)}"] if changes else []
