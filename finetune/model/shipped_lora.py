"""The LoRA adapter inside a model folder (granite-speech-3.3): it belongs to the weights and is merged on loading.

The arithmetic is that of PEFT's `merge_and_unload` in float32; the sum is rounded to the data type of the weight. Not
PEFT itself, because an exported folder transcribes without it, and because a weight can be merged while it is streamed.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from finetune.core.errors import ModelError
from finetune.core.files import read_json
from finetune.core.layouts import plain_name
from finetune.model.folder_checks import ADAPTER_CONFIG

WEIGHTS = "adapter_model.safetensors"
PARTS = ("lora_A", "lora_B")
UNSUPPORTED = (  # settings of LoraConfig with another arithmetic or other weights
    "alpha_pattern", "fan_in_fan_out", "layer_replication", "lora_bias", "modules_to_save", "rank_pattern",
    "target_parameters", "trainable_token_indices", "use_dora",
)  # fmt: skip


@dataclass(frozen=True)
class ShippedLora:
    """A LoRA adapter: by the plain name of its module (see `plain_name`), the matrices A (r, in) and B (out, r)."""

    folder: Path
    scaling: float
    matrices: dict[str, tuple[Tensor, Tensor]]

    @classmethod
    def read(cls, folder: Path) -> "ShippedLora":
        """Reads the adapter of a model folder.

        Raises:
            ModelError: it is missing or damaged, or is not a plain LoRA.
        """
        path = folder / ADAPTER_CONFIG
        try:
            config = read_json(path)
            stored = load_file(folder / WEIGHTS)
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(f"{folder}: the LoRA adapter of the model cannot be read ({error})") from error
        if not isinstance(config, dict) or config.get("peft_type") != "LORA":
            raise ModelError(f"{path}: not the configuration of a LoRA adapter")
        other = [key for key in UNSUPPORTED if config.get(key)]
        if other or config.get("bias", "none") != "none":
            raise ModelError(f"{path}: {(other or ['bias'])[0]} is not supported in the adapter of a base model")
        rank, alpha = config.get("r"), config.get("lora_alpha")
        if type(rank) is not int or rank < 1 or isinstance(alpha, bool) or not isinstance(alpha, int | float):
            raise ModelError(f"{path}: r must be a whole number above 0, and lora_alpha a number")
        lora = cls(folder, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank), _pairs(folder, stored))
        wrong = next((name for name, (a, b) in lora.matrices.items() if {a.shape[0], b.shape[1]} != {rank}), "")
        if wrong:
            raise ModelError(f"{folder / WEIGHTS}: the rank of {wrong} is not r of {ADAPTER_CONFIG} ({rank})")
        lora._check_targets(config.get("target_modules"))
        return lora

    def _check_targets(self, targets: Any) -> None:
        """Each name of `target_modules` must have matrices: PEFT would leave such a layer without its LoRA."""
        names = targets if isinstance(targets, list) else []
        unused = [name for name in names if not any(module.endswith(f".{name}") for module in self.matrices)]
        if unused:
            raise ModelError(f"{self.folder / WEIGHTS}: no weights for {unused[0]}, a target of {ADAPTER_CONFIG}")

    def check(self, weights: Iterable[tuple[str, torch.Size]]) -> None:
        """Checks that every matrix fits a weight of the model, by name and shape.

        Raises:
            ModelError: a matrix has no weight, or another shape.
        """
        shapes = {plain_name(name): tuple(shape) for name, shape in weights}
        for module, (a, b) in self.matrices.items():
            expected = shapes.get(f"{module}.weight")
            if expected is None:
                raise ModelError(f"{self.folder / WEIGHTS}: {module} is not a layer of the model")
            if expected != (b.shape[0], a.shape[1]):
                raise ModelError(
                    f"{self.folder / WEIGHTS}: {module} has shape {expected} in the model, and "
                    f"{(b.shape[0], a.shape[1])} in the adapter"
                )

    def merged(self, name: str, weight: Tensor) -> Tensor:
        """A weight with its LoRA added; a weight without LoRA is returned as it is.

        Args:
            name: its name, in hub files or in transformers' modules.
            weight: its value; the result has its data type and device.
        """
        pair = self.matrices.get(plain_name(name).removesuffix(".weight"))
        if pair is None:
            return weight
        a, b = (matrix.to(weight.device, torch.float32) for matrix in pair)
        return (weight.float() + (b @ a) * self.scaling).to(weight.dtype)

    @torch.no_grad()
    def merge(self, hf: torch.nn.Module) -> None:
        """Adds the LoRA to the weights of a model in place. Weights on the meta device are only checked."""
        parameters = dict(hf.named_parameters())
        self.check((name, value.shape) for name, value in parameters.items())
        for name, value in parameters.items():
            if value.device.type != "meta" and (merged := self.merged(name, value)) is not value:
                value.copy_(merged)


def _pairs(folder: Path, stored: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Both matrices of each module, from the tensors of a PEFT file."""
    matrices_of: dict[str, dict[str, Tensor]] = {}
    for key, value in stored.items():
        module, part, end = (plain_name(key).rsplit(".", 2) + ["", ""])[:3]
        if part not in PARTS or end != "weight" or value.ndim != 2:
            raise ModelError(f"{folder / WEIGHTS}: {key} is not a matrix of a LoRA adapter")
        if not torch.isfinite(value).all():
            raise ModelError(f"{folder / WEIGHTS}: {key} has values that are NaN or infinite")
        matrices_of.setdefault(module, {})[part] = value
    half = next((module for module, matrices in matrices_of.items() if len(matrices) < len(PARTS)), "")
    if half or not matrices_of:
        raise ModelError(f"{folder / WEIGHTS}: {f'one matrix of {half} is missing' if half else 'no weights'}")
    return {module: (matrices["lora_A"], matrices["lora_B"]) for module, matrices in matrices_of.items()}


@contextmanager
def without_adapter(source: str, revision: str | None) -> Iterator[tuple[Path, Path]]:
    """The folder of a model with an adapter, and a temporary folder of links to the same files without the adapter.

    transformers applies an adapter that lies beside the weights, and wraps their modules for it.
    """
    local = Path(source)
    folder = local if local.is_dir() else Path(snapshot_download(source, revision=revision))
    with TemporaryDirectory(prefix="finetune-") as name:
        for path in folder.glob("*"):
            if path.name.startswith(("config.json", "generation_config", "model")):
                (Path(name) / path.name).symlink_to(path.resolve())
        yield folder, Path(name)
