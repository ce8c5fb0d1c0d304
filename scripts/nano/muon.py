"""Muon in float32. That of torch computes in bfloat16; where a processor emulates it, that takes 70 % of a step.

Source: https://kellerjordan.github.io/posts/muon/; rates as in Moonlight (arXiv 2502.16982), as torch.optim.Muon with
`match_rms_adamw` scales them.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS, ITERATIONS = (3.4445, -4.775, 2.0315), 5
EPS = 1e-7


def orthogonalize(matrices: Tensor) -> Tensor:
    """Matrices (N, A, B) with nearly equal singular values, by Newton-Schulz iterations."""
    is_tall = matrices.shape[1] > matrices.shape[2]
    result = matrices.mT if is_tall else matrices
    result = result / result.norm(dim=(1, 2), keepdim=True).clamp(min=EPS)
    first, second, third = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = result @ result.mT
        result = first * result + (second * gram + third * gram @ gram) @ result
    return result.mT if is_tall else result


class Muon(torch.optim.Optimizer):
    """Steps of matrices along their orthogonalized momentum; matrices of one shape are computed together.

    Args:
        params: matrices.
        lr: rate of AdamW that gives steps of the same size.
        weight_decay: decoupled from the gradient.
        momentum: of Nesterov's kind.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step; parameters without a gradient stay as they are."""
        for group in self.param_groups:
            shapes = defaultdict[torch.Size, list[nn.Parameter]](list)
            for param in group["params"]:
                if param.grad is not None:
                    shapes[param.shape].append(param)
            for shape, params in shapes.items():
                updates = orthogonalize(torch.stack([self._momentum(param, group["momentum"]) for param in params]))
                for param, update in zip(params, updates, strict=True):
                    param.mul_(1 - group["lr"] * group["weight_decay"])
                    param.add_(update, alpha=-group["lr"] * 0.2 * max(shape) ** 0.5)

    def _momentum(self, param: nn.Parameter, momentum: float) -> Tensor:
        assert param.grad is not None
        buffer = self.state[param].setdefault("momentum_buffer", torch.zeros_like(param))
        buffer.lerp_(param.grad, 1 - momentum)
        return param.grad.lerp(buffer, momentum)
