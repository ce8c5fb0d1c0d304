"""The second CTC head of granite-speech 4.1 and 5.0: tokens of the language model, on frames pooled by fours.

The pooling weights of the frames are 1 minus the posterior of the blank of the character head in the middle layer.
Label 0 is the blank, label i is token i - 1. Source: IBM's notebook speculative_decoding_bpe.ipynb.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional as F
from transformers.utils import cached_file

from finetune.core.errors import ModelError
from finetune.core.layouts import BPE_HEAD
from finetune.model.conformer import frame_mask

POOLED = 4  # frames in a pooled frame
TINY = 1e-8  # avoids a division by zero in a window of blanks
ROWS = 256  # pooled frames whose logits are in memory at once: 100 MB in float32 with 100,353 labels


@dataclass(frozen=True)
class PooledLabels:
    """The most probable label of each pooled frame of a batch.

    Attributes:
        labels: (B, P) labels.
        posteriors: (B, P) posterior of the label.
        entropies: (B, P) entropy of the frame in nats.
        counts: (B,) pooled frames of each clip.
    """

    labels: Tensor
    posteriors: Tensor
    entropies: Tensor
    counts: Tensor


@dataclass(frozen=True)
class BpeHead:
    """The weights of the head: `weight` (labels, D) and `bias` (labels,)."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def read(cls, path: Path, like: Tensor) -> "BpeHead":
        """Reads the head, with the data type and on the device of a weight of the encoder. Raises ModelError."""
        try:
            with safe_open(str(path), "pt") as file:
                return cls(*(file.get_tensor(name).to(like) for name in ("weight", "bias")))
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path}: damaged ({error}); download it again") from error

    @torch.inference_mode()
    def label(self, states: Tensor, speech: Tensor, num_frames: Tensor) -> PooledLabels:
        """Labels of encoder states (B, T, D) with weights `speech` (B, T); padded frames have no influence."""
        pooled = pool(states, speech * frame_mask(num_frames, states.shape[1]))
        flat = pooled.flatten(0, 1).to(self.weight.dtype)
        columns = [self._label(rows) for rows in torch.split(flat, ROWS)]
        joined = (torch.cat(column).view(pooled.shape[:2]) for column in zip(*columns, strict=True))
        labels, posteriors, entropies = joined
        return PooledLabels(labels, posteriors, entropies, (num_frames + POOLED - 1) // POOLED)

    def _label(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Label, its posterior and the entropy of pooled frames (N, D)."""
        log_probs = F.linear(rows, self.weight, self.bias).float().log_softmax(-1)
        peaks, labels = log_probs.max(-1)
        return labels, peaks.exp(), -(log_probs.exp() * log_probs).sum(-1)


def pool(states: Tensor, weights: Tensor) -> Tensor:
    """Means of each four frames in float32: states (B, T, D), weights (B, T) -> (B, ceil(T / 4), D)."""
    missing = -states.shape[1] % POOLED
    states = torch.unflatten(F.pad(states.float(), (0, 0, 0, missing)), 1, (-1, POOLED))
    weights = torch.unflatten(F.pad(weights.float(), (0, missing)), 1, (-1, POOLED))
    weights = weights / (weights.sum(-1, keepdim=True) + TINY)
    return (states * weights[..., None]).sum(2)


def find_bpe_head(source: str, revision: str | None) -> Path | None:
    """The file of the head of a model folder or hub name; None if the model has none."""
    local = Path(source)
    if local.is_dir():
        return local / BPE_HEAD if (local / BPE_HEAD).is_file() else None
    cached = cached_file(
        source,
        BPE_HEAD,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(cached) if cached else None


def check_bpe_head(path: Path, hidden: int, vocabulary: int) -> None:
    """Compares the shape of a head with the model, from the header of its file.

    Raises:
        ModelError: the file is damaged, or the head belongs to another model.
    """
    try:
        with safe_open(str(path), "pt") as file:
            shapes = [tuple(file.get_slice(name).get_shape()) for name in ("weight", "bias")]
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: damaged, or not a CTC head ({error}); download it again") from error
    (labels, *rest), bias = shapes
    if rest != [hidden] or bias != (labels,) or not 1 < labels <= vocabulary + 1:
        raise ModelError(
            f"{path}: weight {shapes[0]} and bias {bias} do not fit {hidden} encoder channels and {vocabulary} tokens"
        )
