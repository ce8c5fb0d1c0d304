"""The weights of a trained model, one tensor at a time: base, parts trained in full, LoRA merged in float32.

The merge is PEFT's own `merge(safe_merge=True)` of one layer. A merge in bfloat16 would round twice (peft#1388).
"""

from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path
from typing import Any, Self

import torch
from peft import get_peft_model
from torch import Tensor, nn

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError
from finetune.model.adapter import Adapter, read_adapter
from finetune.model.granite import SpeechModel, on_meta
from finetune.model.model_config import read_config
from finetune.model.shipped_lora import ShippedLora
from finetune.model.weight_files import WeightFiles

MergeLayer = Callable[[Any], None]


def merge_layer(layer: Any) -> None:
    """Merges the adapter of one of PEFT's layers into the weight of its base layer, in place."""
    layer.merge(safe_merge=True)


class TrainedWeights:
    """The weights of a base model with an adapter, by their names in the model.

    Attributes:
        merged: names of the weights that have LoRA.
        full: names of the weights that trained in full.
    """

    def __init__(self, base: Path, meta: SpeechModel, folder: Path, merge: MergeLayer = merge_layer) -> None:
        """Compares an adapter with its base; reads no tensor of the base.

        Args:
            base: folder of the base model.
            meta: the base model on the meta device; it is changed.
            folder: the adapter.
            merge: merges the adapter of a layer in place.

        Raises:
            CheckpointError: there is no adapter, or a key of it has no place in the base, or a place has no key.
        """
        self.files, self._merge = WeightFiles(base), merge
        # The adapter inside granite-speech-3.3 belongs to the base.
        self.shipped = ShippedLora.read(base) if meta.hf.config.has_lora_adapter else None
        self.adapter = adapter = read_adapter(folder)
        self.shapes = dict(_saved_tensors(meta.hf))
        self._layers = _lora_layers(meta, adapter)
        self.merged, self.full = {f"{name}.weight" for name in self._layers}, adapter.full.keys()
        expected = {f"base_model.model.{name}.{part}" for name in self._layers for part in _parts(self._layers[name])}
        for name in (*sorted(adapter.lora.keys() ^ expected), *sorted(adapter.full.keys() - self.shapes.keys())):
            raise CheckpointError(f"{folder}: {name} does not fit its configuration or the base model {base}")
        for name, value in adapter.full.items():
            if value.shape != self.shapes[name].shape:
                raise CheckpointError(f"{folder}: {name} has another shape than in the base model {base}")

    @classmethod
    def of_run(cls, recipe: Recipe, best: Path, base: Path, merge: MergeLayer = merge_layer) -> Self:
        """Those of a run. Raises ModelError for an unusable base, and CheckpointError as the constructor."""
        config = read_config(recipe.model.base, recipe.model.revision)
        return cls(base, on_meta(config, recipe.model.base), best, merge)

    def tensor(self, name: str) -> Tensor:
        """A weight of the trained model: float32 if it was trained or has an adapter in the base, else as in the base.

        Raises:
            ModelError: the base lacks it, or its file is damaged.
            CheckpointError: the merged weight is not finite.
        """
        if name in self.adapter.full:
            return self.adapter.full[name]
        stored = self.files.read(name)
        if self.shipped is not None and stored.is_floating_point():
            stored = self.shipped.merged(name, stored.float())
        return self.merge(name, stored.float()) if name in self.merged else stored

    def merge(self, name: str, weight: Tensor) -> Tensor:
        """The merged weight of a layer with LoRA, from its base weight in float32, which may be changed in place."""
        layer_name = name.removesuffix(".weight")
        layer = self._layers[layer_name]
        meta_layer = layer.base_layer
        shell = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        shell.weight = nn.Parameter(weight, requires_grad=False)
        layer.base_layer = shell
        try:
            for part in _parts(layer):
                getattr(layer, part.split(".")[0])["default"].weight = nn.Parameter(
                    self.adapter.lora[f"base_model.model.{layer_name}.{part}"], requires_grad=False
                )
            self._merge(layer)
        except (ValueError, RuntimeError) as error:
            raise CheckpointError(f"{name}: the adapter cannot be merged ({error})") from error
        finally:
            layer.base_layer = meta_layer
            layer.merged_adapters.clear()
        return shell.weight.data


def _lora_layers(meta: SpeechModel, adapter: Adapter) -> dict[str, Any]:
    """PEFT's layers on the meta device, by the names of the layers that they replace."""
    if adapter.config is None:
        return {}
    config = copy(adapter.config)
    config.base_model_name_or_path = None  # PEFT warns if the model has another name
    with torch.device("meta"):
        get_peft_model(meta.hf, config)
    return {name: module for name, module in meta.hf.named_modules() if hasattr(module, "lora_A")}


def _parts(layer: Any) -> list[str]:
    """The names of a layer's LoRA tensors in a file of PEFT."""
    return ["lora_A.weight", "lora_B.weight", *(["lora_magnitude_vector"] if layer.lora_magnitude_vector else [])]


def _saved_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and saved buffers by name; of tied parameters, the first."""
    seen = set[int]()
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            yield name, value
        seen.add(id(value))
