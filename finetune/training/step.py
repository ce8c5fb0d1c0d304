"""One optimizer step: its micro-batches forward and backward, on every rank, and the update if all numbers are."""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from finetune.core.config import Recipe
from finetune.model.granite import GraniteSpeech
from finetune.model.trainable import check_changed, fingerprints, part_of, set_mode, with_gradient
from finetune.training.batch_size import largest_that_fits, remember, remembered
from finetune.training.dataset import Batch, BatchSource, SpeechDataset
from finetune.training.loss import ctc_loss, token_loss
from finetune.training.sampler import plan_epoch


@dataclass(frozen=True)
class TrainContext:
    """What a step works on; `wrapped` and `optimizer` are Accelerate's."""

    recipe: Recipe
    accelerator: Accelerator
    model: GraniteSpeech
    wrapped: nn.Module
    optimizer: Any
    parameters: dict[str, nn.Parameter]
    data: SpeechDataset


@dataclass(frozen=True)
class StepResult:
    """A step's loss per target token and gradient norm; `taken` is False where one of them is no number."""

    loss: float
    grad_norm: float
    taken: bool
    stop: int  # a signal that some rank has received, or 0


def optimizer_of(recipe: Recipe, parameters: dict[str, nn.Parameter]) -> torch.optim.AdamW:
    """AdamW with a group for each part that trains, at its learning rate."""
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        parts.setdefault(part_of(name), []).append(parameter)
    groups = [{"params": members, "lr": rate_of(recipe, part)} for part, members in parts.items()]
    return torch.optim.AdamW(groups, weight_decay=recipe.train.weight_decay, fused=True)


def rate_of(recipe: Recipe, part: str) -> float:
    """The learning rate of a part: its own, or that of `train`."""
    own: float | None = getattr(recipe.parts, part).learning_rate
    return recipe.train.learning_rate if own is None else own


def schedule(step: int, steps: int, warmup: float) -> float:
    """The factor of the learning rates at a step from 0: up linearly over a share of the steps, then down to 0."""
    rise = max(1, round(warmup * steps))
    return (step + 1) / rise if step < rise else (steps - step) / max(1, steps - rise)


def losses(engine: TrainContext, batch: Batch, tokens: int, characters: int) -> tuple[Tensor, Tensor]:
    """A micro-batch's share of the step's loss: the language model's alone, and with CTC as it is trained on."""
    settings = engine.recipe.train
    hidden, audio = engine.wrapped(batch.audio, batch.num_frames, batch.ids, batch.kind)
    said = token_loss(hidden, batch.labels, engine.model.logits, settings.label_smoothing) / tokens
    if not settings.ctc_weight:
        return said, said
    ctc = ctc_loss(engine.model.ctc_logits(audio.states), batch.num_frames, batch.characters)
    return said, said + settings.ctc_weight * ctc / characters


def take_step(
    engine: TrainContext,
    step: list[list[int]],
    mine: list[list[int]],
    batches: Iterator[Batch],
    number: int,
    stop: int,
    before: dict[str, int] | None,
) -> StepResult:
    """Forward, backward and update for one step of the plan.

    Args:
        step: the micro-batches of all ranks, as lists of clips.
        mine: those of this rank; an empty one repeats the first with weight 0.
        batches: this rank's, in order.
        number: of the step, from 0; dropout draws from it and the micro-batch's place alone, so it is alike for
            any split over ranks and in a run that was resumed.
        stop: a signal that this rank has received, or 0.
        before: fingerprints of the model before this call's first step, which is held to what may change; None later.

    Raises:
        ModelError: a frozen tensor changed, or one that should train did not.
    """
    accelerator, settings = engine.accelerator, engine.recipe.train
    clips = [index for micro in step for index in micro]
    tokens, characters = engine.data.tokens(clips), max(1, engine.data.labels(clips))
    loss = torch.zeros(2, device=accelerator.device)
    for position, micro in enumerate(mine):
        place = position * accelerator.num_processes + accelerator.process_index
        torch.manual_seed((engine.recipe.seed * 1_000_003 + number) * 4099 + place)
        last, batch = position == len(mine) - 1, next(batches)
        with accelerator.no_sync(engine.wrapped) if not last else nullcontext():
            with engine.model.autocast():
                said, whole = losses(engine, batch, tokens, characters)
            loss[0] += said.detach() * bool(micro)
            # DDP averages over ranks; the sum over all of them is wanted.
            accelerator.backward(whole * accelerator.num_processes * bool(micro))
    norm = accelerator.clip_grad_norm_(list(engine.parameters.values()), settings.max_grad_norm)
    loss[1] = stop
    # One transfer, and before the update, which a GPU then does while the next batch is made; the same on all ranks.
    total, told, length = torch.stack([*accelerator.reduce(loss, "sum"), norm]).tolist()
    taken = math.isfinite(length) and math.isfinite(total)
    if taken:
        first = before is not None and not engine.optimizer.state  # a resumed run's moments make a step of any size
        moved = with_gradient(engine.parameters, engine.optimizer.param_groups) if first else set()
        engine.optimizer.step()
        if before is not None:
            check_changed(before, fingerprints(engine.model), set(engine.parameters), moved)
    engine.optimizer.zero_grad(set_to_none=True)
    return StepResult(total, length, taken, int(told))


def fitting_seconds(engine: TrainContext, feed: BatchSource, base: str, notes: Path) -> float:
    """`train.batch_seconds`, halved until the worst batch of the first epoch fits into memory; remembered in `notes`.

    Args:
        engine: not yet wrapped for several ranks, which would wait for one another.

    Raises:
        ModelError: not even the longest clip fits.
    """
    recipe, data, device = engine.recipe, engine.data, engine.accelerator.device
    settings = recipe.train
    content = recipe.model_dump(include={"parts", "model"})
    several = engine.accelerator.num_processes > 1
    key = (
        f"{base} {content} {settings.batch_seconds} {settings.batch_tokens} {settings.ctc_weight > 0} "
        f"{max(data.durations)} {recipe.machine.gradient_checkpointing} {feed.kind} {several}"
    )
    seconds = remembered(notes, device, key)
    if seconds is None:
        set_mode(engine.model, training=True)

        def attempt(seconds: float) -> None:
            """The largest padded batch by audio, and the one by positions; with room for AdamW's two moments, and for
            the buckets in which several ranks gather their gradients."""
            plan = plan_epoch(
                data.durations,
                data.positions,
                seconds,
                settings.batch_tokens,
                1,
                recipe.seed,
                0,
                range(len(data.durations)),
            )
            batches = [step[0] for step in plan]
            worst = [
                max(batches, key=lambda batch: max(sizes[i] for i in batch) * len(batch))
                for sizes in (data.durations, data.positions)
            ]
            copies = 2 + several
            room = [torch.empty_like(parameter) for parameter in engine.parameters.values() for _ in range(copies)]
            for batch in feed.batches(worst, 0):
                with engine.model.autocast():
                    whole = losses(engine, batch, 1, 1)[1]
                torch.autograd.backward(whole)
            for parameter in engine.parameters.values():
                parameter.grad = None
            del room

        seconds = largest_that_fits(settings.batch_seconds, max(data.durations), attempt)
        remember(notes, device, key, seconds)
    everyone = engine.accelerator.gather(torch.tensor([seconds], device=device))
    return float(everyone.min())
