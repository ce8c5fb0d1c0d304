"""One optimizer step: forward and backward over the micro-batches of every rank, then the update."""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from finetune.core.config import Recipe
from finetune.model.granite import SpeechModel
from finetune.model.trainable import check_changed, fingerprints, with_gradient
from finetune.training.dataset import Batch, SpeechDataset
from finetune.training.loss import ctc_loss, token_loss
from finetune.training.signals import Stop

TokenLoss = Callable[[Tensor, Tensor, Callable[[Tensor], Tensor], float], Tensor]


@dataclass(frozen=True)
class StepResult:
    """The loss per target token and the gradient norm; `taken` is False if one of them is NaN or infinite."""

    loss: float
    grad_norm: float
    taken: bool
    stop: int  # the signal that a rank has received, or 0


@dataclass(frozen=True)
class OptimizerStep:
    """Runs optimizer steps on a model.

    Attributes:
        wrapped: `model`, wrapped by Accelerate if there are several ranks.
        optimizer: Accelerate's, or torch's.
        parameters: all trainable parameters, by name.
        token_loss: the loss of the language model; the benchmark compares others.
    """

    recipe: Recipe
    accelerator: Accelerator
    model: SpeechModel
    wrapped: nn.Module
    optimizer: Any
    parameters: dict[str, nn.Parameter]
    data: SpeechDataset
    token_loss: TokenLoss = token_loss

    def losses(self, batch: Batch, tokens: int, characters: int) -> tuple[Tensor, Tensor]:
        """A micro-batch's part of the step's loss.

        Args:
            batch: one micro-batch.
            tokens: number of target tokens in the optimizer step.
            characters: number of CTC labels in the optimizer step.

        Returns:
            The loss of the language model, which is reported, and the total loss with CTC, which is minimized.
        """
        settings = self.recipe.train
        hidden, audio = self.wrapped(batch.audio, batch.num_frames, batch.ids, batch.kind)
        lm_loss = self.token_loss(hidden, batch.labels, self.model.logits, settings.label_smoothing) / tokens
        if not settings.ctc_weight:
            return lm_loss, lm_loss
        ctc = ctc_loss(self.model.ctc_logits(audio.states), batch.num_frames, batch.characters)
        return lm_loss, lm_loss + settings.ctc_weight * ctc / characters

    def run(
        self,
        step: list[list[int]],
        local: list[list[int]],
        batches: Iterator[Batch],
        number: int,
        stop: Stop,
        initial: dict[str, int] | None,
    ) -> StepResult:
        """Forward, backward and update for one step of the plan.

        Args:
            step: the micro-batches of all ranks, as lists of clip indices.
            local: the micro-batches of this rank. An empty one repeats the first micro-batch of the step with weight 0.
            batches: the tensors of `local`, in order.
            number: number of the step, from 0. It seeds dropout.
            stop: contains the signal that this rank has received, if any.
            initial: fingerprints of the model before its first step, to check what that step changed; None later.

        Raises:
            ModelError: a frozen tensor changed, or a trained tensor did not change.
        """
        loss = self._backward(step, local, batches, number)
        norm = self.accelerator.clip_grad_norm_(list(self.parameters.values()), self.recipe.train.max_grad_norm)
        # One transfer for all numbers, and before the update, so a GPU can run the update while the CPU prepares
        # the next batch. The sums are the same on all ranks, so all ranks take or skip the step.
        sums = torch.stack([loss, torch.full_like(loss, stop.signum)])
        total, signum, length = torch.stack([*self.accelerator.reduce(sums, "sum"), norm]).tolist()
        taken = math.isfinite(length) and math.isfinite(total)
        if taken:
            self._update(initial)
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(total, length, taken, int(signum))

    def _backward(self, step: list[list[int]], local: list[list[int]], batches: Iterator[Batch], number: int) -> Tensor:
        """Adds up the gradients of this rank's micro-batches; returns the sum of their losses, a scalar."""
        accelerator, ranks = self.accelerator, self.accelerator.num_processes
        clips = [index for micro in step for index in micro]
        tokens, characters = self.data.tokens(clips), max(1, self.data.labels(clips))
        loss = torch.zeros((), device=accelerator.device)
        for position, micro in enumerate(local):
            # Dropout depends on the step and on the position of the micro-batch in it, so it is the same for any number
            # of ranks and in a resumed run.
            index_in_step = position * ranks + accelerator.process_index
            torch.manual_seed((self.recipe.seed * 1_000_003 + number) * 4099 + index_in_step)
            is_last, batch = position == len(local) - 1, next(batches)
            with accelerator.no_sync(self.wrapped) if not is_last else nullcontext():
                with self.model.autocast():
                    lm_loss, total_loss = self.losses(batch, tokens, characters)
                loss += lm_loss.detach() * bool(micro)
                # DDP averages gradients over ranks, but the step needs their sum.
                accelerator.backward(total_loss * ranks * bool(micro))
        return loss

    def _update(self, initial: dict[str, int] | None) -> None:
        """Runs the optimizer. With `initial` fingerprints, checks which tensors changed."""
        # With the moments of a resumed run, its first step can be so small that a trained tensor does not change.
        check_gradients = initial is not None and not self.optimizer.state
        moved = with_gradient(self.parameters, self.optimizer.param_groups) if check_gradients else set()
        self.optimizer.step()
        if initial is not None:
            check_changed(initial, fingerprints(self.model), set(self.parameters), moved)
