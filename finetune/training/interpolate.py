"""Weights between the base and what training made of it, scored by who asks (WiSE-FT, arXiv 2109.01903)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


def starting_points(parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, Tensor]:
    """Where each parameter stands before the first step, in main memory.

    LoRA's A is left out: B starts at zero, so B alone, scaled, scales their product.
    """
    return {name: value.detach().to("cpu", copy=True) for name, value in parameters.items() if "lora_A" not in name}


@contextmanager
def interpolated(
    parameters: Mapping[str, torch.nn.Parameter], start: Mapping[str, Tensor], share: float
) -> Iterator[None]:
    """Within it, `parameters` are `share` of the way from `start` to where they stand; afterwards as they were."""
    reached = {name: parameters[name].detach().clone() for name in start}
    with torch.no_grad():
        for name, first in start.items():
            parameters[name].copy_(torch.lerp(first.to(reached[name].device), reached[name], share))
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in reached.items():
                parameters[name].copy_(value)
