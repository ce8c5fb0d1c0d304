"""Computes in float32 with weights that are stored in a narrower type: each is converted when a layer uses it.

A model of 2.3 billion bfloat16 weights needs 4.6 GB in this way instead of 9.2, and its results are those of a model
that is loaded in float32, bit for bit.
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from finetune.model.granite import SpeechModel, load_model
from finetune.model.model_config import read_config
from finetune.model.weight_files import WeightFiles, folder_of

log = logging.getLogger(__name__)

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


def load_for_inference(
    source: str,
    dtype: str,
    device: str,
    revision: str | None = None,
    adapt: Callable[[SpeechModel, bool], object] = lambda model, keep_float32: None,
    native: Callable[[], bool] | None = None,
    say: Callable[[str], object] = log.info,
) -> SpeechModel:
    """Loads a model that will not train, with the arithmetic that the processor does well.

    On a CPU, weights in bfloat16 files stay so in memory and are computed with in float32, which gives the text of a
    model that is loaded in float32, bit for bit, with half of the memory. `bfloat16` computes in bfloat16 only on a
    CPU that has instructions for it; others emulate it, many times slower than float32.

    Args:
        source: local folder in hub layout, or hub name.
        dtype: `float32`, `bfloat16` or `auto`.
        device: device of the weights.
        revision: branch, tag or commit of a hub name.
        adapt: adds an adapter; its second argument says whether parameters that trained in full must stay float32.
        native: whether the CPU computes in bfloat16; None asks torch.
        say: called with a line about the arithmetic, if it is not that of the files.

    Raises:
        ModelError: see `load_model`, or the error of `adapt`.
    """
    config = read_config(source, revision)  # first, because it says what a folder is that is not a model
    files = None if device != "cpu" or dtype == "float32" else folder_of(source, revision)
    computes = native or computes_in_bfloat16
    if files is None or not WeightFiles(files).is_bfloat16() or (dtype == "bfloat16" and computes()):
        if device == "cpu" and dtype == "bfloat16" and not computes():
            log.warning("this processor emulates bfloat16; model.dtype: float32 is faster")
        model = load_model(source, dtype, device, revision, config=config)
        adapt(model, False)
        return model
    if dtype == "bfloat16":
        say("this processor emulates bfloat16, so the weights stay in bfloat16 and the arithmetic is float32")
    elif computes():
        say("weights in bfloat16, arithmetic in float32; model.dtype: bfloat16 is faster on this processor")
    else:
        say("weights in bfloat16, arithmetic in float32: this processor has no bfloat16 instructions")
    model = load_as_stored(source, files, revision, config)
    adapt(model, True)
    compute_in_float32(model)
    return model


def arithmetic_is_float32(dtype: str, device: torch.device | str) -> bool:
    """Whether a training computes in float32 whatever the type of the stored weights: `auto` on a CPU."""
    return dtype == "auto" and torch.device(device).type == "cpu"


def load_for_training(
    source: str, dtype: str, device: torch.device | str, revision: str | None = None, quantize: str = "none"
) -> SpeechModel:
    """`load_model` for a training; with `auto` on a CPU, weights in bfloat16 files stay so until `train_in_float32`.

    Raises:
        ModelError: see `load_model`.
    """
    if arithmetic_is_float32(dtype, device) and quantize == "none":
        config = read_config(source, revision)
        if files := folder_of(source, revision):
            return load_as_stored(source, files, revision, config)
    return load_model(source, dtype, device, revision, quantize)


def stays_bfloat16(source: str, dtype: str, device: str, config: Any) -> bool:
    """Whether `load_for_training` keeps bfloat16 weights for float32 arithmetic; what is on the hub is bfloat16."""
    if not arithmetic_is_float32(dtype, device) or config.has_lora_adapter:
        return False
    return WeightFiles(Path(source)).is_bfloat16() if Path(source).is_dir() else True


def train_in_float32(model: SpeechModel) -> None:
    """Makes a model whose trained parameters are float32 compute in float32, in place; frozen weights stay as stored.

    Linear layers keep only their stored weight for the backward pass, and convert it there again.
    """
    compute_in_float32(model)
    if any(value.dtype == torch.bfloat16 for value in model.hf.parameters()):
        log.info("frozen weights stay in bfloat16, the arithmetic is float32")
    for module in model.hf.modules():
        stored = module.parametrizations if is_parametrized(module, "weight") else None
        if isinstance(module, nn.Linear) and stored is not None:
            module.forward = partial(_linear, module, stored["weight"].original)  # type: ignore[method-assign]


def _linear(module: nn.Module, stored: Tensor, x: Tensor) -> Tensor:
    out: Tensor = _StoredLinear.apply(x, stored, module.bias)  # type: ignore[no-untyped-call]
    return out


class _StoredLinear(torch.autograd.Function):
    """x (..., I), stored weight (O, I), bias (O,) or None -> (..., O) in the type of x; only x has a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stored: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(stored)
        return nn.functional.linear(x, stored.to(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (stored,) = ctx.saved_tensors
        return gradient @ stored.to(gradient.dtype), None, None


def computes_in_bfloat16() -> bool:
    """Whether the CPU has instructions for products in bfloat16, by torch's own query of the processor."""
    queries = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(query()) for name in queries if (query := getattr(torch.cpu, name, None)))


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
