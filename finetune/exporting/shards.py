"""Writes weights as safetensors tensor by tensor: only one tensor is in memory. Always with an index.

With an index, engines read the files that it names and no other *.safetensors in the folder.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from finetune.core.files import write_json
from finetune.model.folder_checks import INDEX, WEIGHTS
from finetune.model.weight_files import DTYPE_NAMES

NAMES = {dtype: name for name, dtype in DTYPE_NAMES.items()}
ALIGNMENT = 8  # bytes of the position of the first tensor


@dataclass(frozen=True)
class TensorSpec:
    """Type and shape of a tensor that will be written."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def plan_shards(specs: Mapping[str, TensorSpec], limit: int) -> dict[str, list[str]]:
    """Names of tensors by file, in order, each file with at most `limit` bytes of tensors or one larger tensor."""
    shards, size = list[list[str]](), 0
    for name, spec in specs.items():
        if not shards or size + spec.bytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += spec.bytes
    if len(shards) == 1:
        return {WEIGHTS: shards[0]}
    return {f"model-{number:05}-of-{len(shards):05}.safetensors": names for number, names in enumerate(shards, 1)}


def write_weights(
    folder: Path,
    specs: Mapping[str, TensorSpec],
    limit: int,
    tensor: Callable[[str], Tensor],
    written: Callable[[int], object],
) -> None:
    """Writes all weights and `model.safetensors.index.json`.

    Args:
        folder: an existing folder.
        specs: types and shapes by name.
        limit: bytes of tensors in a file.
        tensor: returns the tensor of a name.
        written: called with the bytes of each tensor after it is written.

    Raises:
        OSError: the disk is full, for example.
    """
    shards = plan_shards(specs, limit)
    for file, names in shards.items():
        write_safetensors(folder / file, {name: specs[name] for name in names}, tensor, written)
    index = {
        "metadata": {
            "total_parameters": sum(prod(spec.shape) for spec in specs.values()),
            "total_size": sum(spec.bytes for spec in specs.values()),
        },
        "weight_map": {name: file for file, names in shards.items() for name in names},
    }
    write_json(folder / INDEX, index)


def write_safetensors(
    path: Path, specs: Mapping[str, TensorSpec], tensor: Callable[[str], Tensor], written: Callable[[int], object]
) -> None:
    """Writes one file, with the bytes that the safetensors library would write: wider types first, then by name."""
    order = sorted(specs, key=lambda name: (-specs[name].dtype.itemsize, name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name in order:
        spec = specs[name]
        end = position + spec.bytes
        header[name] = {"dtype": NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            value = tensor(name)
            if value.dtype != specs[name].dtype or tuple(value.shape) != specs[name].shape:
                raise ValueError(f"{name}: {value.dtype} {tuple(value.shape)}, expected {specs[name]}")
            if value.numel():
                file.write(value.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
            written(specs[name].bytes)
