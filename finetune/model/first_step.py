"""A check that the first optimizer step changes what trains, and nothing else: fingerprints of all tensors."""

from typing import Any

import torch
from torch import Tensor, nn

from finetune.core.errors import ModelError
from finetune.model.granite import SpeechModel

INT_DTYPES = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
CHUNK = 1 << 22  # elements hashed at once: 32 MiB as int64, and a few temporary copies


def fingerprints(model: SpeechModel) -> dict[str, int]:
    """A hash of the raw bits of each parameter and buffer, computed on its device, with one transfer at the end.

    The bits of each element are mixed before they are summed: in a plain sum the changes of Adam's first step can
    cancel, because they have equal size and both signs. A permutation of the elements of a tensor is not detected.
    """
    tensors = {**dict(model.hf.named_parameters()), **dict(model.hf.named_buffers())}
    sums = []
    for value in tensors.values():
        total = torch.zeros((), dtype=torch.int64, device=model.device)
        for chunk in value.detach().reshape(-1).view(INT_DTYPES[value.element_size()]).split(CHUNK):
            mixed = chunk.long() * 0x9E3779B97F4A7C1  # an odd factor; the product wraps around
            total += (mixed ^ (mixed >> 29)).sum().to(model.device)
        sums.append(total)
    return dict(zip(tensors, torch.stack(sums).tolist(), strict=True))


@torch.no_grad()
def with_gradient(parameters: dict[str, nn.Parameter], groups: list[dict[str, Any]]) -> set[str]:
    """Names of the parameters that AdamW's first step must change, from their gradients.

    Not all parameters change in that step:
    - The gradient of LoRA's A is zero, because B is zero.
    - A gradient near AdamW's epsilon of 1e-8 can be lost in rounding. For example, a softmax does not depend on the
      bias of its keys, so the gradient of that bias is noise.
    - At the start of a long warm-up the step, which is about as large as the learning rate, can be too small for
      float32 to change any element.

    Args:
        parameters: trainable parameters by name, with the gradients of the step.
        groups: parameter groups of the optimizer, with the learning rates of the step.

    Raises:
        ModelError: a gradient is None: the loss does not depend on the parameter, so it would never train.
    """
    unused = [name for name, value in parameters.items() if value.grad is None]
    if unused:
        raise ModelError(
            f"{_listed(unused)}: no gradient after the first backward pass, so the loss does not depend on it "
            "and it would never train; set this part to frozen"
        )
    rates = {id(value): group["lr"] for group in groups for value in group["params"]}

    def moves(value: Tensor, gradient: Tensor) -> Tensor:
        half_step = (
            0.5 * rates.get(id(value), 1.0) * gradient.sign()
        )  # in no group: rate 1, so a missing step is detected
        return ((gradient.abs() > 1e-7) & (value - half_step != value)).any()

    changes = [moves(value, value.grad) for value in parameters.values() if value.grad is not None]
    return {name for name, moved in zip(parameters, torch.stack(changes).tolist(), strict=True) if moved}


def check_changed(before: dict[str, int], after: dict[str, int], trained: set[str], with_gradient: set[str]) -> None:
    """Checks that the first optimizer step changed the trainable parameters and nothing else.

    Args:
        before: fingerprints before the step.
        after: fingerprints after the step.
        trained: names of the trainable parameters.
        with_gradient: names of the parameters that the step must change.

    Raises:
        ModelError: a frozen tensor changed, or a tensor of `with_gradient` did not change.
    """
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    if changed - trained:
        raise ModelError(f"{_listed(changed - trained)}: frozen, but changed by the first training step")
    if with_gradient - changed:
        raise ModelError(
            f"{_listed(with_gradient - changed)}: has a gradient, but the first training step did not "
            "change it; check that the optimizer has it and that the learning rate of its part is large enough"
        )


def _listed(names: set[str] | list[str]) -> str:
    """The first five names, and the number of other names."""
    shown = sorted(names)[:5]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
