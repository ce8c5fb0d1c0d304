"""Reads the weights of a model folder tensor by tensor, and names them as the hub does.

The files are read, not mapped into memory: pages of a mapped file count as memory of the process.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from torch import Tensor

from finetune.core.errors import ModelError
from finetune.model.folder_checks import read_header, weight_files

DTYPE_NAMES = {  # of safetensors
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
SAMPLE = 4096  # bytes of a tensor at each of three places
HUB_PREFIXES = (  # in transformers 5.10 and newer, and on the hub
    ("lm_head.", "language_model.lm_head."),
    ("model.language_model.", "language_model.model."),
    ("model.encoder.", "encoder."),
    ("model.projector.", "projector."),
)


def hub_name(name: str) -> str:
    """The name of a weight in the files of the hub, from its name in the model."""
    for ours, theirs in HUB_PREFIXES:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def model_name(name: str) -> str:
    """The inverse of `hub_name`; names in the layout of transformers 5 stay as they are.

    granite-speech-3.3 has one `model.` more.
    """
    name = name.replace("language_model.model.model.", "language_model.model.", 1)
    for ours, theirs in HUB_PREFIXES:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def folder_of(source: str, revision: str | None) -> Path | None:
    """The folder of the files of a model; None if it cannot be known, which loading the model will report."""
    if Path(source).is_dir():
        return Path(source) if any(Path(source).glob("*.safetensors")) else None
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=["*.json", "*.safetensors"]))
    except Exception:  # the hub has many kinds
        return None


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in a file."""

    path: Path
    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    def read(self) -> Tensor:
        """The tensor. Raises ModelError if the file has become shorter, OSError if it cannot be read."""
        content = bytearray(prod(self.shape) * self.dtype.itemsize)
        with self.path.open("rb") as file:
            file.seek(self.start)
            if file.readinto(content) != len(content):
                raise ModelError(f"{self.path}: truncated; download it again")
        if not content:
            return torch.empty(self.shape, dtype=self.dtype)
        return torch.frombuffer(content, dtype=self.dtype).view(self.shape)


class WeightFiles:
    """The weights of a model folder.

    Attributes:
        tensors: by name in the model, where each tensor is.
    """

    def __init__(self, folder: Path) -> None:
        """Raises ModelError for a file that is damaged or missing, or a type of tensor that no model has."""
        self.folder = folder
        self.tensors = {model_name(name): tensor for name, tensor in _stored(folder)}

    def read(self, name: str) -> Tensor:
        """A tensor by its name in the model. Raises ModelError if it is missing or its file is truncated."""
        if name not in self.tensors:
            raise ModelError(f"{self.folder}: the weight {hub_name(name)} is missing")
        return self.tensors[name].read()

    def sample_hash(self) -> str:
        """A hash of names, types, shapes and three short pieces of every tensor, the same for other shards.

        Training changes nearly all values of a tensor, so the pieces of a model that was trained further differ. A
        model of 4 GB takes about a second.
        """
        digest = hashlib.sha256()
        for name, item in sorted(self.tensors.items()):
            digest.update(f"{name} {item.dtype} {item.shape}\n".encode())
            size = prod(item.shape) * item.dtype.itemsize
            with item.path.open("rb") as file:
                for place in (0, size // 2, max(0, size - SAMPLE)):
                    file.seek(item.start + place)
                    digest.update(file.read(min(SAMPLE, size - place)))
        return digest.hexdigest()

    def is_bfloat16(self) -> bool:
        """Whether all floating-point tensors are bfloat16."""
        return all(item.dtype in (torch.bfloat16, torch.int64) for item in self.tensors.values())


def _stored(folder: Path) -> Iterator[tuple[str, StoredTensor]]:
    for path in weight_files(folder):
        header, start = read_header(path)
        for name, row in header.items():
            if name == "__metadata__":
                continue
            if row["dtype"] not in DTYPE_NAMES:
                raise ModelError(f"{path}: {name} has the unknown type {str(row['dtype'])[:20]!r}")
            offset = start + int(row["data_offsets"][0])
            yield name, StoredTensor(path, offset, DTYPE_NAMES[row["dtype"]], tuple(row["shape"]))
