"""Computes in float32 with weights that are stored in a narrower type: each is converted when a layer uses it.

A model of 2.3 billion bfloat16 weights needs 4.6 GB in this way instead of 9.2, and its results are those of a model
that is loaded in float32, bit for bit.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from finetune.model.granite import SpeechModel, load_model
from finetune.model.model_config import read_config
from finetune.model.weight_files import WeightFiles

Change = Callable[[Tensor], Tensor]


class _Changed(nn.Module):
    """A parametrization: what a module sees instead of its stored tensor."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.change = change

    def forward(self, stored: Tensor) -> Tensor:
        return self.change(stored)


def load_as_stored(source: str, files: Path, revision: str | None = None, config: Any = None) -> SpeechModel:
    """Loads a model on the CPU in bfloat16 if all of its weights are stored so, else in float32.

    Args:
        source: local folder in hub layout, or hub name.
        files: folder of its files.
        revision: branch, tag or commit of a hub name.
        config: replaces the configuration of the model.

    Raises:
        ModelError: see `load_model`.
    """
    config = config or read_config(source, revision)
    # The adapter inside granite-speech-3.3 is merged on loading, and a sum in bfloat16 would be rounded.
    narrow = WeightFiles(files).is_bfloat16() and not config.has_lora_adapter
    return load_model(source, "bfloat16" if narrow else "float32", "cpu", revision, config=config)


def change_weight(module: nn.Module, name: str, change: Change) -> None:
    """Computes a weight of a module from the stored one at each use. A second change gets the result of the first."""
    register_parametrization(module, name, _Changed(change), unsafe=True)  # unsafe: the type can change


def compute_in_float32(model: SpeechModel) -> None:
    """Makes a model compute in float32, in place; the stored weights stay as they are.

    The input embeddings are converted after the lookup, because only a few rows of a large table are used.
    """
    embeddings = model.language_model.get_input_embeddings()
    for module in list(model.hf.modules()):
        if module is embeddings:
            module.register_forward_hook(_to_float32)
            continue
        for name, value in [*module._parameters.items(), *module._buffers.items()]:
            if value is not None and value.is_floating_point() and value.dtype != torch.float32:
                change_weight(module, name, Tensor.float)


def _to_float32(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output.float()
