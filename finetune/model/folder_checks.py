"""Checks a local model folder before anything is built from it: code, pickled weights, sizes and settings.

A model folder can come from anybody. Nothing in it is run: a folder that wants to run code is refused. Its
configuration is compared with the headers of its weights, so that a wrong number is refused before memory is allocated.
"""

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.core.errors import ModelError
from finetune.core.files import read_bytes, read_json
from finetune.core.layouts import LAYER_NAMES, unknown_alphabet, unsupported

CODE_KEYS = ("auto_map", "custom_pipelines", "custom_generate")  # transformers imports what they name
MAX_JSON, MAX_TOKENIZER = 10_000_000, 200_000_000  # bytes
MAX_HEADER = 100_000_000  # bytes, as in the safetensors library
ADAPTER_CONFIG = "adapter_config.json"
MULTIPLIERS = ("logits_scaling", "embedding_multiplier", "attention_multiplier", "residual_multiplier")
LARGEST = 10**9  # no size of a model is larger
INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"


def check_folder(folder: Path) -> None:
    """Refuses a folder that is not a plain, complete Granite Speech model.

    Raises:
        ModelError: the folder wants to run code, has no safetensors weights, or its configuration is invalid or does
            not match the weights. The message names the file and the key.
    """
    for path in sorted(folder.glob("*.json")):
        if path.name != "tokenizer.json":
            _refuse_code(path, _read_object(path))
    config = _read_object(folder / "config.json")
    if reason := unsupported(config):
        raise ModelError(f"{folder}: {reason}")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder}: no *.safetensors in this folder, so it has a configuration but no weights")
    has_lora, has_adapter = config.get("has_lora_adapter", True), (folder / ADAPTER_CONFIG).exists()
    if has_adapter and not has_lora:
        raise ModelError(
            f"{folder}: the folder also contains an adapter ({ADAPTER_CONFIG}), which transformers loads though "
            "has_lora_adapter in config.json is false; merge the adapter or move it to another folder"
        )
    if has_lora and not has_adapter:
        raise ModelError(
            f"{folder}: {ADAPTER_CONFIG} is missing, but the model has a LoRA adapter (has_lora_adapter in config.json "
            "is true or not stated); download the model again, or set it to false if the weights are merged"
        )
    shapes = dict(_shapes(folder))
    _check_settings(folder, config)
    _check_layers(folder, config, shapes)


def count_weights(folder: Path) -> int:
    """The number of values in the weights, from their headers."""
    return sum(math.prod(shape) for _, shape in _shapes(folder))


def _read_object(path: Path) -> dict[str, Any]:
    try:
        read_bytes(path, MAX_JSON)
        content = read_json(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON ({str(error)[:200]})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: not a JSON object")
    return content


def _refuse_code(path: Path, content: dict[str, Any]) -> None:
    for key, value in content.items():
        if key in CODE_KEYS and value:
            raise ModelError(
                f"{path}: {key} asks to run code of the model folder, which this toolkit never does; use a model "
                f"without code, or remove {key} if transformers' own classes fit"
            )
        if isinstance(value, dict):
            _refuse_code(path, value)


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads: those of the index, or the single file."""
    if not (folder / INDEX).exists():
        if not (folder / WEIGHTS).exists():
            other = next(iter(sorted(folder.glob("*.safetensors"))))
            raise ModelError(f"{folder}: no {WEIGHTS} and no {INDEX}; {other.name} is not read")
        return [folder / WEIGHTS]
    names = _read_object(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{folder / INDEX}: weight_map must name a file for each weight")
    files = sorted({*names.values()})
    for name in files:
        if name != Path(name).name or not name.endswith(".safetensors"):
            raise ModelError(f"{folder / INDEX}: {name[:200]!r} is not a *.safetensors file inside the folder")
        if not (folder / name).exists():
            raise ModelError(f"{folder / INDEX}: {name} is missing; download the model again")
    return [folder / name for name in files]


def _shapes(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The names and shapes of all weights, from the headers of their files."""
    for path in weight_files(folder):
        for name, row in read_header(path)[0].items():
            if name == "__metadata__":
                continue
            shape = row.get("shape") if isinstance(row, dict) else None
            if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
                raise ModelError(f"{path}: damaged: {name[:100]!r} has no shape; download it again")
            yield name, tuple(shape)


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file and the position of its first tensor. Sizes and offsets must match the file."""
    try:
        if not path.is_file():
            raise ModelError(f"{path}: not a regular file")
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if start == b"version ":
                raise ModelError(f"{path}: this is a Git LFS pointer, not the weights; run `git lfs pull`")
            if not 0 < length <= min(size - 8, MAX_HEADER):
                raise ModelError(f"{path}: not a safetensors file, or truncated; download it again")
            header = json.loads(file.read(length))
        ends = [int(row["data_offsets"][1]) for name, row in header.items() if name != "__metadata__"]
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ModelError(f"{path}: the header of this safetensors file is damaged; download it again") from error
    if 8 + length + max(ends, default=0) != size:
        raise ModelError(f"{path}: truncated, or its header is damaged; download this safetensors file again")
    return dict(header), 8 + length


def _check_settings(folder: Path, config: dict[str, Any]) -> None:
    path = folder / "config.json"
    for section in ("text_config", "encoder_config", "projector_config"):
        if not isinstance(config.get(section), dict):
            raise ModelError(f"{path}: {section} must be an object")
    for key, value in _numbers(config):
        if not math.isfinite(value) or abs(value) > LARGEST:
            raise ModelError(f"{path}: {key} is {str(value)[:40]}, which no model has")
    for keys in (
        ("window_size",),
        ("downsample_rate",),
        *(("text_config", key) for key in (*MULTIPLIERS, "max_position_embeddings")),
    ):
        _positive(path, config, keys)
    if (kind := config["text_config"].get("model_type", "granite")) != "granite":
        raise ModelError(
            f"{path}: text_config.model_type is {str(kind)[:40]!r}; the language model of the family is 'granite'"
        )
    if reason := unknown_alphabet(config["encoder_config"].get("output_dim")):
        raise ModelError(f"{path}: {reason}")
    if config.get("downsample_rate", 1) > config.get("window_size", LARGEST):
        raise ModelError(f"{path}: downsample_rate is larger than window_size")
    if config.get("window_size", 15) % config.get("downsample_rate", 5):  # defaults of transformers
        raise ModelError(f"{path}: window_size must be a multiple of downsample_rate")
    token = config.get("audio_token_index", config.get("audio_token_id", 0))
    vocabulary = config["text_config"].get("vocab_size", LARGEST)
    if type(token) is not int or not 0 <= token < vocabulary:
        raise ModelError(f"{path}: audio_token_index must be a token below vocab_size, got {str(token)[:40]!r}")


def _positive(path: Path, config: dict[str, Any], keys: tuple[str, ...]) -> None:
    """Refuses a setting that is present and not a number above 0."""
    section: Any = config
    for key in keys[:-1]:
        section = section[key]
    value = section.get(keys[-1], 1)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ModelError(f"{path}: {'.'.join(keys)} must be a number above 0, got {str(value)[:40]!r}")


def _numbers(content: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a configuration with its dotted key."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _numbers(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(content, list):
        for value in content:
            yield from _numbers(value, prefix)
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield prefix, content


def _check_layers(folder: Path, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    """Compares the numbers of layers with the weights; building a layer takes memory even without weights."""
    for (section, key), pattern in LAYER_NAMES.items():
        stated = config[section].get(key)
        layers = {int(match[1]) for name in shapes if (match := pattern.search(name))}
        if stated is None or not layers:
            continue
        if type(stated) is not int or stated != len(layers):
            raise ModelError(
                f"{folder / 'config.json'}: {section}.{key} is {str(stated)[:40]}, but the weights have {len(layers)} "
                "layers; the configuration belongs to another model"
            )
