"""A base model without its weights: sizes of its parts, trainable parts, and the checks that loading it would make."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError

from finetune.core.errors import ModelError
from finetune.core.wording import count
from finetune.model.granite import SpeechModel, load_model, load_tokenizer, on_meta
from finetune.model.model_config import read_config
from finetune.model.model_source import is_folder_name
from finetune.model.trainable import PartSummary, TrainableParts, open_parts, summarize_parts

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class ModelSummary:
    """Numbers of parameters.

    Attributes:
        note: for a hub name, where configuration and weights are; else "".
        parts: parameters of encoder, projector, language model body and head.
        trainable: the trainable parts.
    """

    note: str
    parts: dict[str, int]
    trainable: list[PartSummary]

    def lines(self) -> list[str]:
        """The parts of the base model, then the trainable parts, as text."""
        return [
            *([self.note, ""] if self.note else []),
            *(f"{name:15} {size:>15,} parameters" for name, size in self.parts.items()),
            "",
            "trainable:",
            *(
                f"{row.part:15} {row.parameters:>15,} parameters  in "
                f"{count(row.tensors, 'tensor')} of {count(row.modules, 'module')}"
                for row in self.trainable
            ),
        ]


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
    if number := _cached_files(name, revision, cache):
        return f"configuration and {count(number, 'weight file')} are in the local cache"
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"{name}: its weights are not in the local cache, and the hub is off (HF_HUB_OFFLINE)")
    try:
        listed = HfApi().list_repo_files(name, revision=revision)
    except (OSError, HfHubHTTPError) as error:
        raise ModelError(f"{name}: its weights are not in the local cache, and the hub fails ({error})") from error
    if not (weights := [file for file in listed if file.endswith(".safetensors")]):
        raise ModelError(f"{name}: no *.safetensors on the hub, so it has a configuration but no weights")
    return (
        f"the configuration can be read; {count(len(weights), 'weight file')} on the hub will be downloaded by `train`"
    )


def _cached_files(name: str, revision: str | None, cache: Path | None) -> int:
    """The number of weight files of a hub name in the local cache; 0 if one is missing."""
    cached = [try_to_load_from_cache(name, file, cache, revision) for file in ("model.safetensors", INDEX)]
    files = [Path(path) for path in cached if isinstance(path, str)]
    if files and files[-1].name == INDEX:
        names = sorted({*json.loads(files[-1].read_text(encoding="utf-8"))["weight_map"].values()})
        files = [files[-1].parent / shard for shard in names]
    return len(files) if all(path.is_file() for path in files) else 0


def open_without_weights(base: str, revision: str | None, parts: TrainableParts) -> tuple[SpeechModel, ModelSummary]:
    """A base on the meta device with open parts, and its summary. The values of its weights are not read.

    Raises:
        ModelError: `base` is not a model, or weights are missing or have another shape; `parts` names modules or layers
            that the base does not have.
    """
    config = read_config(base, revision)
    note = "" if is_folder_name(base) else f"{base}: {find_weights(base, revision)}"
    if is_folder_name(base) or _cached_files(base, revision, None):
        model = load_model(base, "float32", "meta", revision)
    else:
        model = on_meta(config, base, load_tokenizer(base, config, revision))
    counts = count_parts(model)
    with torch.device("meta"):
        open_parts(model, parts)
    return model, ModelSummary(note, counts, summarize_parts(model))
