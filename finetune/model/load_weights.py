"""Loads the weights of a model in the transformers class of its layout, quantized or with its own LoRA merged."""

from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as hf_logging

from finetune.core.errors import ModelError
from finetune.core.extras import require
from finetune.core.layouts import LAYOUTS
from finetune.core.wording import count, verb
from finetune.model.model_source import excerpt
from finetune.model.shipped_lora import ShippedLora, without_adapter
from finetune.model.weight_files import WeightFiles, folder_of


def model_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The transformers class of a configuration."""
    hf_class: type[PreTrainedModel] = getattr(transformers, LAYOUTS[config.model_type].model_class)
    return hf_class


def check_quantization(quantize: str, device: torch.device | str) -> None:
    """Checks that a device can load a quantized base.

    Raises:
        ModelError: it cannot.
        MissingExtraError: the extra [quant] is not installed.
    """
    if quantize == "none":
        return
    if torch.device(device).type != "cuda":
        raise ModelError("model.quantize: 4bit needs a CUDA GPU; set model.quantize to none on this machine")
    require("bitsandbytes", extra="quant")


def check_mergeable(source: str, config: PreTrainedConfig, quantize: str) -> None:
    """Raises ModelError if weights with a LoRA adapter inside (granite-speech-3.3) would be quantized."""
    if config.has_lora_adapter and quantize != "none":
        raise ModelError(
            f"{source}: its LoRA adapter cannot be merged into quantized weights; set model.quantize to none"
        )


def _quantization(quantize: str, dtype: torch.dtype, device: torch.device | str) -> dict[str, Any]:
    """Quantization arguments of `from_pretrained`; encoder, projector and head keep their precision."""
    if quantize == "none":
        return {}
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["model.encoder", "model.projector", "lm_head"],
    )
    return {"quantization_config": config, "device_map": {"": device}}


def load_weights(
    source: str,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    device: torch.device | str,
    revision: str | None,
    quantize: str,
) -> Any:
    """The transformers model of a folder or hub name on a device.

    The LoRA adapter inside a model (granite-speech-3.3) is merged, and `has_lora_adapter` of the configuration is then
    false: the model has the plain layout.

    Args:
        source: local folder in hub layout, or hub name.
        config: its configuration.
        dtype: data type of the weights.
        device: their device; with `meta`, names and shapes are checked and values are not read.
        revision: branch, tag or commit of a hub name.
        quantize: see `load_model`.

    Raises:
        ModelError: weights are missing or do not fit, or the adapter does not.
    """
    arguments = {
        "dtype": dtype,
        **({"device_map": {"": "meta"}} if str(device) == "meta" else {}),
        **_quantization(quantize, dtype, device),
    }
    if not config.has_lora_adapter:
        hf = _from_pretrained(source, source, config, {"revision": revision, **arguments})
        return hf if quantize != "none" else hf.to(device)
    check_mergeable(source, config, quantize)
    with without_adapter(source, revision) as (folder, plain):
        lora = ShippedLora.read(folder)
        hf = _from_pretrained(source, str(plain), config, arguments).to(device)
    lora.merge(hf)
    hf.config.has_lora_adapter = False
    hf.name_or_path = hf.config.name_or_path = source  # not the temporary folder
    return hf


def _from_pretrained(source: str, folder: str, config: PreTrainedConfig, arguments: dict[str, Any]) -> Any:
    """The transformers model with the weights of `folder`. Raises ModelError, about `source`, if they do not fit.

    Float32 weights are read from bfloat16 files one after another: transformers converts them while all files are
    mapped into memory, which takes half as much again.
    """
    on_device = "device_map" in arguments
    files = None if on_device or arguments["dtype"] != torch.float32 else _bfloat16_files(folder, arguments)
    if files:
        arguments = arguments | {"dtype": torch.bfloat16}
    verbosity = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()  # a table of weights that do not fit; the errors below name the first
    try:
        hf, info = model_class(config).from_pretrained(
            folder,
            config=config,
            use_safetensors=True,  # never pickled weights
            ignore_mismatched_sizes=True,  # the error below names the first
            trust_remote_code=False,
            output_loading_info=True,
            **arguments,
        )
    except Exception as error:
        raise ModelError(f"{source}: cannot be loaded ({excerpt(error)})") from error
    finally:
        hf_logging.set_verbosity(verbosity)
    if wrong := sorted((name, [*stored], [*stated]) for name, stored, stated in info["mismatched_keys"]):
        name, stored, stated = wrong[0]
        raise ModelError(
            f"{source}: {count(len(wrong), 'weight')} {verb(len(wrong), 'has', 'have')} another shape than config.json "
            f"states, for example {name}: {stored} in the files, {stated} by config.json"
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{source}: {count(len(missing), 'weight')} {verb(len(missing), 'is', 'are')} missing, for example "
            f"{missing[0]}"
        )
    _check_tied(hf, source, folder, arguments.get("revision"))
    if files:
        _read_as_float32(hf, files)
    return hf


def _check_tied(hf: PreTrainedModel, source: str, folder: str, revision: str | None) -> None:
    """Refuses tied embeddings with another lm_head in the files: transformers does not tie them, vLLM does.

    vLLM reads `text_config`; if only the value above it says so, which is its default, no engine ties them.
    """
    head, embeddings = hf.get_output_embeddings(), hf.get_input_embeddings()
    if not hf.config.tie_word_embeddings or head.weight is embeddings.weight:
        return
    path = folder_of(folder, revision)
    names = "lm_head.weight", "model.language_model.embed_tokens.weight"
    if path is None:
        return
    if torch.equal(*(WeightFiles(path).read(name).float() for name in names)):
        head.weight = embeddings.weight  # on the meta device, where transformers cannot compare them
    elif hf.config.text_config.tie_word_embeddings:
        raise ModelError(
            f"{source}: text_config.tie_word_embeddings in config.json is true, but the files have an lm_head that "
            "differs from the input embeddings; set it to false"
        )


def _bfloat16_files(folder: str, arguments: dict[str, Any]) -> WeightFiles | None:
    """The files of a model whose weights are all bfloat16, else None; also if loading will report an error."""
    try:
        path = folder_of(folder, arguments.get("revision"))
        files = WeightFiles(path) if path else None
        return files if files and files.is_bfloat16() else None
    except ModelError:
        return None


def _read_as_float32(hf: PreTrainedModel, files: WeightFiles) -> None:
    """Replaces the tensors of a model, which are views of mapped files whose pages were not read yet."""

    def converted(name: str, value: Tensor) -> Tensor:
        if value.dtype != torch.bfloat16:
            return value.detach().clone()
        return (files.read(name) if name in files.tensors else value.detach()).to(torch.float32)

    for path, module in hf.named_modules():
        prefix = f"{path}." if path else ""
        for name, parameter in module._parameters.items():
            if parameter is not None:
                parameter.data = converted(prefix + name, parameter)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = converted(prefix + name, buffer)
    for config in (hf.config, *(getattr(hf.config, name) for name in hf.config.sub_configs)):
        config.dtype = torch.float32
