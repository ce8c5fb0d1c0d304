"""Finds how many seconds of audio a batch can hold, for `train.batch: auto`, by trying the worst batches."""

from collections.abc import Callable
from functools import partial

import torch

from finetune.model.trainable import set_mode
from finetune.training.batch_size import BatchSizeCache, largest_that_fits
from finetune.training.batches import BatchSource
from finetune.training.plan import plan_epoch
from finetune.training.step import OptimizerStep


def fit_batch_seconds(step: OptimizerStep, source: BatchSource, base: str, cache: BatchSizeCache) -> float:
    """`train.batch_seconds`, halved until the worst batch of all clips of all epochs fits into memory.

    Args:
        step: must not be wrapped for several ranks, because a wrapped model waits for the other ranks.
        source: makes the batches; the clips of all epochs are open afterwards.
        base: fingerprint of the base weights.
        cache: results of earlier runs on this machine; the new result is added.

    Returns:
        Seconds of padded audio, the same on all ranks.

    Raises:
        ModelError: the longest clip alone does not fit.
    """
    recipe, data, device = step.recipe, step.data, step.accelerator.device
    settings = recipe.train
    data.open_all_epochs()
    longest = float(data.durations.max())
    content = recipe.model_dump(include={"parts", "model"})
    several = step.accelerator.num_processes > 1
    key = (
        f"{base} {content} {settings.batch_seconds} {settings.batch_tokens} {settings.ctc_weight > 0} "
        f"{longest} {recipe.machine.gradient_checkpointing} {source.kind} {several}"
        + " encoder checkpointing" * recipe.machine.encoder_checkpointing
        + f" {settings.optimizer}" * (settings.optimizer != "adamw")
        # Keywords make prompts longer, and clips of the same length can have more text.
        + f" {int(data.positions.max())} positions"
        + " copy loss" * (step.copy_loss is not None)
    )
    seconds = cache.get(device, key)
    if seconds is None:
        set_mode(step.model, training=True)
        attempt: Callable[[float], None] = partial(_try_batches, step, source, several)
        seconds = largest_that_fits(settings.batch_seconds, longest, attempt)
        cache.put(device, key, seconds)
    all_ranks = step.accelerator.gather(torch.tensor([seconds], device=device))
    return float(all_ranks.min())


def _try_batches(step: OptimizerStep, source: BatchSource, several: bool, seconds: float) -> None:
    """Runs forward and backward on the largest batch by padded audio and on the largest by positions.

    It also reserves the memory of AdamW's two moments and, with several ranks, of DDP's gradient buckets.
    """
    recipe, data = step.recipe, step.data
    plan = plan_epoch(
        data.durations,
        data.positions,
        seconds,
        recipe.train.batch_tokens,
        1,
        recipe.seed,
        0,
        range(len(data.durations)),
    )
    worst = [
        max((step[0] for step in plan), key=lambda batch: max(sizes[batch].tolist()) * len(batch))
        for sizes in (data.durations, data.positions)
    ]
    moments = torch.uint8 if recipe.train.optimizer == "adamw-8bit" else torch.float32
    copies = [moments, moments, *[torch.float32] * several]
    reserved = [torch.empty_like(value, dtype=dtype) for value in step.parameters.values() for dtype in copies]
    for batch in source.batches(worst, 0):
        with step.model.autocast():
            loss = step.losses(batch, 1, 1)[1]
        torch.autograd.backward(loss)
    for parameter in step.parameters.values():
        parameter.grad = None
    del reserved
