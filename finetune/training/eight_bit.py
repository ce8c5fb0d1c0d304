"""AdamW whose moments have 8 bits a value, in blocks of 256 (arXiv 2110.02861), from bitsandbytes.

Moments of tensors below 4,096 values stay in float32.
"""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from finetune.core.errors import ModelError
from finetune.core.extras import require

QUANTIZED = 4096  # values of the smallest tensor whose moments have 8 bits


def check_eight_bit(device: torch.device | str, load: Callable[..., ModuleType] = require) -> None:
    """Takes a step on one small tensor.

    Raises:
        MissingExtraError: the extra [quant] is not installed.
        ModelError: bitsandbytes cannot run the optimizer on this device.
    """
    value = nn.Parameter(torch.ones(QUANTIZED, device=device))
    value.grad = torch.ones_like(value)
    optimizer = eight_bit_adamw([{"params": [value], "lr": 0.1}], 0.0, load)
    try:
        optimizer.step()
        works = bool((value < 1).all()) and any(moment.dtype == torch.uint8 for moment in _tensors(optimizer, value))
    except Exception as error:  # a missing kernel raises errors of any type
        raise _unsupported(device, f"{type(error).__name__}: {error}") from error
    if not works:
        raise _unsupported(device, "a step with 8-bit moments changed nothing")


def _unsupported(device: torch.device | str, reason: str) -> ModelError:
    return ModelError(
        f"train.optimizer: adamw-8bit does not run on {torch.device(device).type} with this bitsandbytes ({reason}); "
        "set train.optimizer: adamw, or run: pip install -U bitsandbytes"
    )


def _tensors(optimizer: Optimizer, value: Tensor) -> list[Tensor]:
    return [moment for moment in optimizer.state[value].values() if isinstance(moment, Tensor)]


def eight_bit_adamw(
    groups: list[dict[str, Any]], weight_decay: float, load: Callable[..., ModuleType] = require
) -> Optimizer:
    """AdamW with 8-bit moments. Raises MissingExtraError if the extra [quant] is not installed."""
    bitsandbytes = load("bitsandbytes", extra="quant")
    optimizer: Optimizer = bitsandbytes.optim.AdamW8bit(groups, weight_decay=weight_decay)
    return optimizer


def separate(moments: Mapping[str, Any]) -> dict[str, Any]:
    """The moments of a parameter, none in memory that another parameter shares, as their file needs it."""
    return {name: value.clone() if name.startswith("qmap") else value for name, value in moments.items()}


def restored(moments: Mapping[str, Tensor]) -> dict[str, Any]:
    """The moments of a parameter from a file: bitsandbytes counts steps with a number, not with a tensor."""
    return {name: int(value) if name == "step" else value for name, value in moments.items()}
