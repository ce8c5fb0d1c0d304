"""Ends a run that cannot learn: the base has no finite loss, steps are skipped, or trained weights are not finite."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, ModelError
from finetune.core.wording import first_of
from finetune.model.adapter import not_finite
from finetune.training.collate import Batch
from finetune.training.state import TrainState
from finetune.training.step import OptimizerStep, StepResult

log = logging.getLogger(__name__)

SHOWN = 8  # clips of a skipped step that the message lists


@torch.no_grad()
def check_base(step: OptimizerStep, batch: Batch) -> None:
    """Checks the loss of the base on one batch, before hours of decoding and training. Only this rank computes.

    Raises:
        ModelError: the loss is NaN or infinite.
    """
    alone = replace(step, wrapped=step.model.forward)  # type: ignore[arg-type]  # a wrapped model waits for the ranks
    with step.model.autocast():
        losses = [float(loss) for loss in alone.losses(batch, int((batch.labels >= 0).sum()), 1)]
    if all(map(math.isfinite, losses)):
        return
    wrong = not_finite({**dict(step.model.hf.named_parameters()), **dict(step.model.hf.named_buffers())})
    cause = f"{wrong} has values that are NaN or infinite" if wrong else "its weights are finite"
    raise ModelError(
        f"{step.model.source}: the loss of the base model on the first batch is {sum(losses):g} ({cause}), so nothing "
        "can be trained; download or export the base again, or set model.dtype: float32"
    )


def check_trained(parameters: Mapping[str, Tensor], epoch: int) -> None:
    """Checks the trained weights before they are scored and saved.

    Raises:
        CheckpointError: a value is NaN or infinite.
    """
    if wrong := not_finite(parameters):
        raise CheckpointError(
            f"epoch {epoch}: {wrong} has values that are NaN or infinite after training, so this adapter is not saved; "
            "lower the learning rates. The last checkpoint is valid"
        )


def count_skipped(state: TrainState, result: StepResult, ids: Sequence[str], limit: int) -> None:
    """Counts a step that changed nothing.

    Raises:
        CheckpointError: more than `limit` steps had a loss or a gradient that is not finite; no checkpoint is written.
    """
    state.skipped_in_epoch += 1
    if not result.clips:
        log.warning("step %d: the audio of none of its clips can be read: step skipped", state.step)
        return
    state.skipped += 1
    text = f"step {state.step}: loss {result.loss:g}, gradient {result.grad_norm:g}, "
    text += f"utterances {first_of(ids, SHOWN)}"
    if state.skipped > limit:
        raise CheckpointError(
            f"{text}. More than train.max_skipped_steps: {limit} steps were skipped; check these clips, or lower "
            "the learning rates. The last checkpoint is valid"
        )
    log.warning("%s: step skipped", text)


def check_epoch(state: TrainState, recipe: Recipe) -> None:
    """Checks at the end of an epoch, before its validation, that the weights changed in it.

    Raises:
        CheckpointError: every step was skipped.
    """
    if 0 < state.steps_in_epoch <= state.skipped_in_epoch:
        raise CheckpointError(
            f"epoch {state.epoch + 1}/{recipe.train.epochs}: all {state.steps_in_epoch} steps were skipped, so nothing "
            "was learned in it; the warnings above name the clips. Check them and the base model, or lower the "
            "learning rates"
        )
