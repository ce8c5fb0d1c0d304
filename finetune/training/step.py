"""One optimizer step: forward and backward over the micro-batches of every rank, then the update."""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from finetune.core.config import Recipe
from finetune.model.first_step import check_changed, fingerprints, with_gradient
from finetune.model.granite import SpeechModel
from finetune.training.collate import Batch, silent_batch
from finetune.training.copy_loss import CopyLoss
from finetune.training.dataset import SpeechDataset
from finetune.training.loss import ctc_loss, token_loss
from finetune.training.sharded_optimizer import has_moments
from finetune.training.signals import Stop

TokenLoss = Callable[[Tensor, Tensor, Callable[[Tensor], Tensor], float], Tensor]


@dataclass(frozen=True)
class StepResult:
    """The result of a step, the same on all ranks.

    Attributes:
        loss: per target token.
        grad_norm: before clipping.
        taken: False if loss or gradient is NaN or infinite, if no clip of the step can be read, or with `unreadable`.
        stop: the signal that a rank has received, or 0.
        clips: clips of the step, without those that are skipped.
        unreadable: by utterance id, why audio that this step needs cannot be read. The model did not change: skip
            these utterances and run the step again.
    """

    loss: float
    grad_norm: float
    taken: bool
    stop: int
    clips: int
    unreadable: dict[str, str]


@dataclass(frozen=True)
class OptimizerStep:
    """Runs optimizer steps on a model.

    Attributes:
        wrapped: `model`, wrapped by Accelerate if there are several ranks.
        optimizer: Accelerate's, or torch's.
        parameters: all trainable parameters, by name.
        token_loss: the loss of the language model; the benchmark compares others.
        copy_loss: the copy loss, if the recipe has it.
    """

    recipe: Recipe
    accelerator: Accelerator
    model: SpeechModel
    wrapped: nn.Module
    optimizer: Any
    parameters: dict[str, nn.Parameter]
    data: SpeechDataset
    token_loss: TokenLoss = token_loss
    copy_loss: CopyLoss | None = None

    def losses(self, batch: Batch, tokens: int, characters: int) -> tuple[Tensor, Tensor]:
        """A micro-batch's part of the step's loss.

        Args:
            batch: one micro-batch.
            tokens: number of target tokens in the optimizer step.
            characters: number of CTC labels in the optimizer step.

        Returns:
            The loss of the language model, which is reported, and the total loss with those of CTC and of copying,
            which is minimized.
        """
        settings = self.recipe.train
        with self.copy_loss.recording() if self.copy_loss else nullcontext():
            hidden, audio = self.wrapped(batch.audio, batch.num_frames, batch.ids, batch.kind)
        lm_loss = self.token_loss(hidden, batch.labels, self.model.logits, settings.label_smoothing) / tokens
        total = lm_loss
        if self.copy_loss:
            total = total + self.recipe.keywords.copy_weight * self.copy_loss(batch.ids, batch.labels) / tokens
        if settings.ctc_weight:
            ctc = ctc_loss(self.model.ctc_logits(audio.states), batch.num_frames, batch.characters)
            total = total + settings.ctc_weight * ctc / characters
        return lm_loss, total

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
            local: the micro-batches of this rank. For an empty one the rank trains on silence, with weight 0.
            batches: the tensors of the micro-batches of `local` that are not empty, in order.
            number: number of the step, from 0. It seeds dropout.
            stop: contains the signal that this rank has received, if any.
            initial: fingerprints of the model before its first step, to check what that step changed; None later.

        Raises:
            ModelError: a frozen tensor changed, or a trained tensor did not change.
        """
        clips = self.data.readable([index for micro in step for index in micro])
        loss, unreadable = self._backward(clips, local, batches, number)
        norm = self.accelerator.clip_grad_norm_(list(self.parameters.values()), self.recipe.train.max_grad_norm)
        # One transfer for all numbers, and before the update, so a GPU can run the update while the CPU prepares
        # the next batch. The sums are the same on all ranks, so all ranks take or skip the step.
        sums = torch.stack([loss, *(torch.full_like(loss, count) for count in (stop.signum, len(unreadable)))])
        total, signum, lost, length = torch.stack([*self.accelerator.reduce(sums, "sum"), norm]).tolist()
        if lost:
            unreadable = dict(sorted(gather_object([*unreadable.items()])))
        taken = bool(clips) and not lost and math.isfinite(length) and math.isfinite(total)
        if taken:
            self._update(initial)
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(total, length, taken, int(signum), len(clips), unreadable)

    def _backward(
        self, clips: list[int], local: list[list[int]], batches: Iterator[Batch], number: int
    ) -> tuple[Tensor, dict[str, str]]:
        """Adds up the gradients of this rank's micro-batches.

        Returns:
            The sum of their losses, a scalar, and why the audio of some utterances cannot be read.
        """
        accelerator, ranks = self.accelerator, self.accelerator.num_processes
        tokens, characters = max(1, self.data.tokens(clips)), max(1, self.data.labels(clips))
        loss, unreadable = torch.zeros((), device=accelerator.device), dict[str, str]()
        for position, micro in enumerate(local):
            # Dropout depends on the step and on the position of the micro-batch in it, so it is the same for any number
            # of ranks and in a resumed run.
            index_in_step = position * ranks + accelerator.process_index
            torch.manual_seed((self.recipe.seed * 1_000_003 + number) * 4099 + index_in_step)
            is_last, batch = position == len(local) - 1, next(batches) if micro else silent_batch(self.data)
            unreadable |= batch.unreadable
            with accelerator.no_sync(self.wrapped) if not is_last else nullcontext():
                with self.model.autocast():
                    lm_loss, total_loss = self.losses(batch, tokens, characters)
                loss += lm_loss.detach() * (not batch.silent)
                # DDP averages gradients over ranks, but the step needs their sum.
                accelerator.backward(total_loss * ranks * (not batch.silent))
        return loss, unreadable

    def _update(self, initial: dict[str, int] | None) -> None:
        """Runs the optimizer. With `initial` fingerprints, checks which tensors changed."""
        # With the moments of a resumed run, its first step can be so small that a trained tensor does not change.
        check_gradients = initial is not None and not has_moments(self.optimizer)
        moved = with_gradient(self.parameters, self.optimizer.param_groups) if check_gradients else set()
        self.optimizer.step()
        if initial is not None:
            check_changed(initial, fingerprints(self.model), set(self.parameters), moved)
