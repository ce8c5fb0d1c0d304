"""The tensors of a hub folder in the form in which llama.cpp stores them, one at a time."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from finetune.core.errors import ModelError
from finetune.exporting.gguf.tensor_names import gguf_name
from finetune.model.folder_checks import read_header, weight_files

NORM_EPS = 1e-5  # of the encoder's batch normalization
SKIPPED = (".num_batches_tracked", ".batch_norm.bias", ".batch_norm.running_mean", ".batch_norm.running_var")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a GGUF file; `read` computes its float32 values."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor]

    @property
    def of_audio(self) -> bool:
        """Whether it belongs to encoder or projector."""
        return self.name.startswith("a.")


class HubWeights:
    """The weights of a folder in hub layout; a tensor is read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelError if there are no weights, or the index names a file outside of the folder."""
        if not any(folder.glob("*.safetensors")):
            raise ModelError(f"{folder}: no *.safetensors in this folder")
        self._file_of = {name: path for path in weight_files(folder) for name in read_header(path)[0]}
        self._file_of.pop("__metadata__", None)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._file_of))

    def shape(self, name: str) -> tuple[int, ...]:
        with safe_open(self._file_of[name], framework="pt") as weights:
            return tuple(weights.get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        """Float32 values."""
        with safe_open(self._file_of[name], framework="pt") as weights:
            return weights.get_tensor(name).float()


def stored_tensors(weights: HubWeights, heads: int, key_heads: int) -> list[StoredTensor]:
    """All tensors of both files.

    Args:
        weights: The weights in hub layout.
        heads: Attention heads of the language model; llama.cpp rotates pairs of neighbours, so the rows of queries and
            keys of each head are reordered.
        key_heads: Heads of keys and values.

    Raises:
        ModelError: a tensor has no place in llama.cpp's Granite Speech.
    """
    tensors = []
    for name in weights:
        if name.endswith(SKIPPED):
            continue
        try:
            tensors += _stored(weights, name, heads, key_heads)
        except KeyError:
            raise ModelError(
                f"{name}: llama.cpp's Granite Speech has no such tensor, so there is no GGUF file"
            ) from None
    names = {tensor.name for tensor in tensors}
    if "token_embd.weight" not in names:  # one matrix for embedding and output, saved under the name of the output
        tensors = [
            StoredTensor("token_embd.weight", t.shape, t.read) if t.name == "output.weight" else t for t in tensors
        ]
    return tensors


def _stored(weights: HubWeights, name: str, heads: int, key_heads: int) -> list[StoredTensor]:
    read, shape = partial(weights.read, name), weights.shape(name)
    if name.endswith(".attn.to_kv.weight"):
        rows = shape[0] // 2
        return [
            StoredTensor(gguf_name(name.replace("to_kv", part)), (rows, *shape[1:]), partial(_rows, read, start, rows))
            for part, start in (("to_k", 0), ("to_v", rows))
        ]
    if match := re.search(r"self_attn\.([qk])_proj\.(?:weight|bias)$", name):
        rotated = partial(_for_rotation, read, heads if match[1] == "q" else key_heads)
        return [StoredTensor(gguf_name(name), shape, rotated)]
    if name.endswith(".batch_norm.weight"):
        prefix = name.removesuffix("weight")
        return [
            StoredTensor(gguf_name(name), shape, partial(_batch_norm_scale, weights, prefix)),
            StoredTensor(gguf_name(f"{prefix}bias"), shape, partial(_batch_norm_shift, weights, prefix)),
        ]
    if re.search(r"\.conv\.(up_conv|down_conv|depth_conv\.conv)\.weight$", name):
        size = tuple(n for n in shape if n != 1)  # pointwise (O, I, 1) and depthwise (C, 1, K) convolutions
        return [StoredTensor(gguf_name(name), size, partial(_reshaped, read, size))]
    return [StoredTensor(gguf_name(name), shape, read)]


def _rows(read: Callable[[], Tensor], start: int, count: int) -> Tensor:
    return read()[start : start + count]


def _reshaped(read: Callable[[], Tensor], shape: tuple[int, ...]) -> Tensor:
    return read().reshape(shape)


def _for_rotation(read: Callable[[], Tensor], heads: int) -> Tensor:
    """Rows of each head reordered from (first halves, second halves) to pairs."""
    rows = read()
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def _batch_norm_scale(weights: HubWeights, prefix: str) -> Tensor:
    return weights.read(f"{prefix}weight") / torch.sqrt(weights.read(f"{prefix}running_var") + NORM_EPS)


def _batch_norm_shift(weights: HubWeights, prefix: str) -> Tensor:
    return weights.read(f"{prefix}bias") - weights.read(f"{prefix}running_mean") * _batch_norm_scale(weights, prefix)
