"""The optimizer and its learning rates: AdamW with one parameter group per part, linear warmup and decay."""

import torch
from torch import nn

from finetune.core.config import Recipe
from finetune.model.trainable import part_of
from finetune.training.eight_bit import check_eight_bit, eight_bit_adamw
from finetune.training.sharded_optimizer import shard


def build_optimizer(recipe: Recipe, parameters: dict[str, nn.Parameter], ranks: int = 1) -> torch.optim.Optimizer:
    """AdamW (arXiv 1711.05101) with a parameter group for each part that trains, at its learning rate.

    With several ranks and `machine.shard_optimizer`, its moments are divided over them.

    Raises:
        MissingExtraError, ModelError: `adamw-8bit` is not available on this machine.
    """
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        parts.setdefault(part_of(name), []).append(parameter)
    groups = [{"params": members, "lr": learning_rate_of(recipe, part)} for part, members in parts.items()]
    if recipe.train.optimizer == "adamw-8bit":
        check_eight_bit(next(iter(parameters.values())).device)
        return eight_bit_adamw(groups, recipe.train.weight_decay)
    if recipe.machine.shard_optimizer and ranks > 1:
        return shard(groups, weight_decay=recipe.train.weight_decay, fused=True)
    return torch.optim.AdamW(groups, weight_decay=recipe.train.weight_decay, fused=True)


def learning_rate_of(recipe: Recipe, part: str) -> float:
    """The peak learning rate of a part: its own if the recipe sets one, else `train.learning_rate`."""
    part_rate: float | None = getattr(recipe.parts, part).learning_rate
    return recipe.train.learning_rate if part_rate is None else part_rate


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """The factor on the learning rates at a step (from 0): linear warmup, then linear decay to 0.

    Args:
        step: optimizer step, from 0.
        steps: number of optimizer steps of the training.
        warmup: fraction of the steps in the warmup.
    """
    warmup_steps = max(1, round(warmup * steps))
    return (step + 1) / warmup_steps if step < warmup_steps else (steps - step) / max(1, steps - warmup_steps)
