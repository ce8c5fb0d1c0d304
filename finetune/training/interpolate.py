"""Interpolates between the base weights and the trained weights (WiSE-FT, arXiv 2109.01903)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


def starting_points(parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, Tensor]:
    """A copy of each parameter before the first step, in main memory.

    LoRA's A is omitted: B starts at zero, so scaling only B scales their product.
    """
    return {name: value.detach().to("cpu", copy=True) for name, value in parameters.items() if "lora_A" not in name}


@contextmanager
def interpolated(
    parameters: Mapping[str, torch.nn.Parameter], start: Mapping[str, Tensor], alpha: float
) -> Iterator[None]:
    """Inside the block, `parameters` are `start + alpha * (trained - start)`; after the block, they are restored."""
    trained = {name: parameters[name].detach().clone() for name in start}
    with torch.no_grad():
        for name, start_value in start.items():
            parameters[name].copy_(torch.lerp(start_value.to(trained[name].device), trained[name], alpha))
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in trained.items():
                parameters[name].copy_(value)
