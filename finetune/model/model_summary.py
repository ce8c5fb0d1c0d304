"""Counts the parameters of a base model and of its trainable parts, on the meta device, without reading weights."""

import json
from pathlib import Path

import torch
from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError

from finetune.core.errors import ModelError
from finetune.model.granite import SpeechModel, check_size, is_folder_name, load_tokenizer, on_meta, read_config
from finetune.model.trainable import TrainableParts, open_parts, summarize_parts

INDEX = "model.safetensors.index.json"


def model_without_weights(base: str, revision: str | None) -> SpeechModel:
    """A base model on the meta device, with its tokenizer.

    Raises:
        ModelError: configuration or tokenizer cannot be read.
    """
    config = read_config(base, revision)
    check_size(config, Path(base))
    return on_meta(config, base, load_tokenizer(base, revision))


def count_parts(model: SpeechModel) -> dict[str, int]:
    """Number of parameters of encoder, projector, language model body and head."""
    parts = {
        "encoder": model.encoder,
        "projector": model.projector,
        "language model": model.language_model,
        "lm_head": model.lm_head,
    }
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def find_weights(name: str, revision: str | None, cache: Path | None = None) -> str:
    """Where the weights of a hub name are, without downloading them; `cache` replaces the folder of the hub's cache.

    Raises:
        ModelError: the local cache does not have all of them, and the hub has none or is not reachable.
    """
    cached = [try_to_load_from_cache(name, file, cache, revision) for file in ("model.safetensors", INDEX)]
    files = [Path(path) for path in cached if isinstance(path, str)]
    if files and files[-1].name == INDEX:
        names = sorted({*json.loads(files[-1].read_text(encoding="utf-8"))["weight_map"].values()})
        files = [files[-1].parent / shard for shard in names]
    if files and all(path.is_file() for path in files):
        return f"configuration and {len(files)} weight files are in the local cache"
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"{name}: its weights are not in the local cache, and the hub is off (HF_HUB_OFFLINE)")
    try:
        listed = HfApi().list_repo_files(name, revision=revision)
    except (OSError, HfHubHTTPError) as error:
        raise ModelError(f"{name}: its weights are not in the local cache, and the hub fails ({error})") from error
    if not (weights := [file for file in listed if file.endswith(".safetensors")]):
        raise ModelError(f"{name}: no *.safetensors on the hub, so it has a configuration but no weights")
    return f"the configuration can be read; {len(weights)} weight files are on the hub and are downloaded by `train`"


def summarize_model(base: str, revision: str | None, parts: TrainableParts) -> list[str]:
    """Lines for `finetune check`: the parts of the base model, then the trainable parts, with parameter counts.

    For a hub name, the first line says where configuration and weights were found.

    Raises:
        ModelError: `base` is not a model, or its weights are missing; `parts` names modules or layers that the base
            does not have.
    """
    config = read_config(base, revision)
    found = [] if is_folder_name(base) else [f"{base}: {find_weights(base, revision)}", ""]
    check_size(config, Path(base))
    model = on_meta(config, base)
    lines = [f"{name:15} {count:>15,} parameters" for name, count in count_parts(model).items()]
    with torch.device("meta"):
        open_parts(model, parts)
    trainable = [
        f"{row.part:15} {row.parameters:>15,} parameters  in {row.tensors} tensors of {row.modules} modules"
        for row in summarize_parts(model)
    ]
    return [*found, *lines, "", "trainable:", *trainable]
