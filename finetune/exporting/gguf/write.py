"""Writes a merged folder as two GGUF files for llama.cpp: the language model, and encoder with projector (`mmproj`).

Tensors are read, converted and written one at a time, so memory holds one tensor.
"""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from finetune.core.errors import ModelError
from finetune.core.extras import require
from finetune.exporting.gguf.metadata import add_audio_metadata, add_text_metadata, add_tokenizer
from finetune.exporting.gguf.tensors import HubWeights, StoredTensor, stored_tensors
from finetune.model.model_config import parse_config

FLOAT32_ONLY = re.compile(r"(a\.proj_query|attn_rel_pos_emb|conv_dw\.weight)$")  # llama.cpp computes so with these
QUANTIZED_BLOCK = 32  # values that share a scale in Q8_0


def write_gguf(folder: Path, target: Path, dtype: str) -> tuple[Path, Path]:
    """Writes `model-DTYPE.gguf` and `mmproj-DTYPE.gguf` into an existing folder.

    Args:
        folder: A model in hub layout with merged weights.
        target: Where the files go.
        dtype: F32, F16, BF16 or Q8_0, for all matrices; vectors, and what llama.cpp needs so, are float32. In a Q8_0
            file, a matrix with rows that are no multiple of 32 is F16.

    Returns:
        The paths of the language model and of encoder with projector.

    Raises:
        ModelError: the folder has a layout that llama.cpp does not know.
        MissingExtraError: the package `gguf` is missing.
    """
    gguf = require("gguf", extra="gguf")
    config = merged_config(folder)
    text = config["text_config"]
    tensors = stored_tensors(HubWeights(folder), text["num_attention_heads"], text["num_key_value_heads"])
    paths = target / f"model-{dtype}.gguf", target / f"mmproj-{dtype}.gguf"
    writer = gguf.GGUFWriter(paths[0], "granite")
    add_text_metadata(writer, config, folder.resolve().name)
    add_tokenizer(writer, folder, config)
    write_tensors(writer, [tensor for tensor in tensors if not tensor.of_audio], dtype, exact=FLOAT32_ONLY)
    writer = gguf.GGUFWriter(paths[1], "clip")
    writer.add_type(gguf.GGUFType.MMPROJ)
    add_audio_metadata(writer, config, folder.resolve().name)
    write_tensors(writer, [tensor for tensor in tensors if tensor.of_audio], dtype, exact=FLOAT32_ONLY)
    return paths


def merged_config(folder: Path) -> dict[str, Any]:
    """config.json with the defaults of what it does not state. Raises ModelError for weights that are not merged."""
    config = dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    if config.get("has_lora_adapter"):
        raise ModelError(f"{folder}: it has an adapter that is not merged; export it with --format hf first")
    with suppress(KeyError, ValueError):  # positions that transformers refuses; they are refused later with their type
        config = parse_config(config).to_dict()
    return config


def write_tensors(writer: Any, tensors: list[StoredTensor], dtype: str, exact: re.Pattern[str]) -> None:
    """Writes the file of a writer that has its metadata, one tensor at a time.

    Args:
        writer: A `gguf.GGUFWriter`.
        tensors: The tensors, in their order in the file.
        dtype: Of the matrices, as in `write_gguf`.
        exact: Matches names of matrices that stay in float32.
    """
    import gguf

    writer.add_file_type(int(gguf.LlamaFileType[f"MOSTLY_{dtype}" if dtype != "F32" else "ALL_F32"]))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    types = gguf.GGMLQuantizationType
    kinds = [types.F32 if exact.search(tensor.name) else _kind(tensor, dtype, types) for tensor in tensors]
    for tensor, kind in zip(tensors, kinds, strict=True):
        values, size = gguf.GGML_QUANT_SIZES[kind]
        count = int(np.prod(tensor.shape)) // values * size
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), count, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, kind in zip(tensors, kinds, strict=True):
        writer.write_tensor_data(gguf.quants.quantize(tensor.read().contiguous().numpy(), kind))
    writer.close()


def _kind(tensor: StoredTensor, dtype: str, types: Any) -> Any:
    """The type in which a tensor is stored."""
    if len(tensor.shape) < 2:
        return types.F32
    if dtype == "Q8_0" and tensor.shape[-1] % QUANTIZED_BLOCK:
        return types.F16
    return types[dtype]
