"""AdamW whose moments are divided over the ranks (ZeRO stage 1, arXiv 1910.02054): less memory in full fine-tuning.

Every rank keeps all weights and gradients, and updates its share of the parameters; then the ranks exchange the new
weights. The result is that of AdamW on one rank.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim import AdamW, Optimizer

from finetune.training.eight_bit import restored, separate

Moments = Mapping[str, Tensor]


def shard(groups: list[dict[str, Any]], **settings: Any) -> Optimizer:
    """AdamW with divided moments. The process group must exist.

    Args:
        groups: parameter groups, the same on all ranks.
        settings: of AdamW.
    """
    optimizer: Optimizer = ZeroRedundancyOptimizer(groups, AdamW, **settings)
    return optimizer


def unwrapped(optimizer: Any) -> Optimizer:
    """The optimizer inside Accelerate's."""
    inner: Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner


def has_moments(optimizer: Any) -> bool:
    """Whether a step was taken or restored."""
    inner = unwrapped(optimizer)
    return bool((inner.optim if isinstance(inner, ZeroRedundancyOptimizer) else inner).state)


def gather_moments(optimizer: Any) -> None:
    """Sends the moments of all ranks to rank 0, on the CPU. All ranks must call it; does nothing if it has all."""
    inner = unwrapped(optimizer)
    if isinstance(inner, ZeroRedundancyOptimizer):
        inner.consolidate_state_dict(to=0)


def moments_of(optimizer: Any) -> Mapping[Tensor, Moments]:
    """The moments of each parameter; on rank 0 after `gather_moments`."""
    inner = unwrapped(optimizer)
    if not isinstance(inner, ZeroRedundancyOptimizer):
        return {member: separate(moments) for member, moments in inner.state.items()}
    members = [member for group in inner.param_groups for member in group["params"]]
    return {members[index]: moments for index, moments in inner.state_dict()["state"].items()}


def load_moments(optimizer: Any, moments: dict[nn.Parameter, dict[str, Tensor]]) -> None:
    """Restores the moments of all parameters; a rank keeps its share. They are moved to the device."""
    inner = unwrapped(optimizer)
    members = [member for group in inner.param_groups for member in group["params"]]
    state: dict[int, dict[str, Any]] = {
        index: moments[member] for index, member in enumerate(members) if member in moments
    }
    if not isinstance(inner, (ZeroRedundancyOptimizer, AdamW)):
        state = {index: restored(values) for index, values in state.items()}
    groups = Optimizer.state_dict(inner)["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
