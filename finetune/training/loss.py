"""The training losses, summed over target tokens; the caller divides by the target tokens of the optimizer step."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

IGNORE = -100
CHUNK = 1024  # target positions whose logits are in memory at once


def token_loss(hidden: Tensor, labels: Tensor, logits: Callable[[Tensor], Tensor], smoothing: float) -> Tensor:
    """Cross entropy of the next token, summed over target positions only.

    Args:
        hidden: (B, L, H) states of the language model.
        labels: (B, L) token ids, `IGNORE` at positions without a target; position i is predicted from i - 1.
        logits: (n, H) -> (n, V) float32, already divided by `logits_scaling`.
        smoothing: fraction of the probability that is spread over all tokens (arXiv 1512.00567).

    Returns:
        A scalar sum; the caller divides by the number of target tokens of its optimizer step.
    """
    is_target = labels[:, 1:] != IGNORE
    states, targets = hidden[:, :-1][is_target], labels[:, 1:][is_target]

    def chunk_loss(states: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits(states), targets, reduction="sum", label_smoothing=smoothing)

    if len(targets) <= CHUNK:
        return chunk_loss(states, targets)
    total = hidden.new_zeros((), dtype=torch.float32)
    for start in range(0, len(targets), CHUNK):  # the backward pass computes each chunk's logits again
        total = total + checkpoint(
            chunk_loss, states[start : start + CHUNK], targets[start : start + CHUNK], use_reentrant=False
        )
    return total


def ctc_loss(logits: Tensor, num_frames: Tensor, targets: Sequence[list[int] | None]) -> Tensor:
    """CTC loss (Graves et al., ICML 2006), summed over a batch, with label 0 as the blank.

    The loss of a clip with too few frames for its labels is 0.

    Args:
        logits: (B, T, V).
        num_frames: (B,) frames without padding.
        targets: labels of each clip; a clip with None has no part in the loss, a clip without labels is all blank.
    """
    if any(target is None for target in targets):
        rows = [row for row, target in enumerate(targets) if target is not None]
        logits, num_frames = logits[rows], num_frames[rows]
    labels = [target for target in targets if target is not None]
    if not labels:
        return logits.float().sum()  # 0 for no clips, with a gradient of 0 for the parameters of the head
    lengths = torch.tensor([len(target) for target in labels], device=logits.device)
    flat = torch.tensor([label for target in labels for label in target], dtype=torch.long, device=logits.device)
    log_probs = logits.float().log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(log_probs, flat, num_frames, lengths, reduction="sum", zero_infinity=True)
