"""Saves and loads adapters: LoRA in PEFT's format, `whole.safetensors` for parameters trained in full.

`best/` of a run is for this toolkit; `finetune export` with `--format peft` or `vllm-lora` writes adapters for others.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.core.errors import CheckpointError
from finetune.core.files import read_json, sha256_file
from finetune.model.granite import SpeechModel
from finetune.model.trainable import part_of, trained_parameters

log = logging.getLogger(__name__)

# The names of the LoRA files are not those of PEFT. PEFT would load them without the parts that trained in full, and
# vLLM would match none of their keys and answer with the base model's text, both without an error. They fail instead.
LORA_CONFIG, LORA_WEIGHTS, FULL_WEIGHTS = "lora_config.json", "lora.safetensors", "whole.safetensors"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # PEFT's; in older runs
PARTS = "parts.json"  # SHA-256 of each weights file, to detect missing, damaged and wrong files
NOTE = "README.md"
NOTE_TEXT = """# Trained parts of a Granite Speech model
Base model: `{base}`. This folder is for the toolkit that wrote it: it is no PEFT adapter and no LoRA for vLLM, and both
refuse it.

{files}

For other programs, run one of these commands with the recipe of the run:

- `finetune export RECIPE`: the merged model, which every engine loads
- `finetune export RECIPE --format peft`: an adapter with all of these parts, for PEFT
- `finetune export RECIPE --format vllm-lora`: an adapter for vLLM, if only the language model has LoRA
"""


@dataclass(frozen=True)
class Adapter:
    """The content of a saved adapter.

    Attributes:
        config: PEFT's configuration of the LoRA; None if there is no LoRA.
        lora: the LoRA tensors, by their names in a file of PEFT.
        full: the parameters that trained in full, by their names in the model.
    """

    config: LoraConfig | None
    lora: dict[str, Tensor]
    full: dict[str, Tensor]


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each weights file that exists in the folder."""
    names = (ADAPTER_WEIGHTS, LORA_WEIGHTS, FULL_WEIGHTS)
    return {name: sha256_file(folder / name) for name in names if (folder / name).is_file()}


def save_adapter(model: SpeechModel, adapted: PeftModel | None, folder: Path) -> None:
    """Saves all trainable parameters, and a README that says what they are and are not."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (PARTS, ADAPTER_CONFIG, ADAPTER_WEIGHTS, LORA_CONFIG, LORA_WEIGHTS, FULL_WEIGHTS):
        (folder / name).unlink(missing_ok=True)
    full: dict[str, Tensor] = {n: value for n, value in trained_parameters(model).items() if "lora_" not in n}
    if adapted is not None:
        config = adapted.peft_config["default"]
        config.base_model_name_or_path = model.source
        config.inference_mode = True
        config.save_pretrained(folder)
        config.inference_mode = False
        (folder / ADAPTER_CONFIG).rename(folder / LORA_CONFIG)
        write_tensors(get_peft_model_state_dict(adapted, save_embedding_layers=False), folder / LORA_WEIGHTS)
    if full:
        write_tensors(full, folder / FULL_WEIGHTS)
    _write_note(folder, model.source, full)
    (folder / PARTS).write_text(json.dumps(_digests(folder), indent=2) + "\n", encoding="utf-8")


def _write_note(folder: Path, base: str, full: Iterable[str]) -> None:
    parts = ", ".join(sorted({part_of(name) for name in full}))
    lora = [f"- `{LORA_WEIGHTS}`, `{LORA_CONFIG}`: LoRA"] if (folder / LORA_WEIGHTS).is_file() else []
    trained = [f"- `{FULL_WEIGHTS}`: weights trained in full ({parts})"] if parts else []
    (folder / NOTE).write_text(NOTE_TEXT.format(base=base, files="\n".join([*lora, *trained])), encoding="utf-8")


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """The name of the first tensor with a value that is NaN or infinite; "" if all values are finite."""
    floats = {name: value for name, value in tensors.items() if value.is_floating_point()}
    finite = torch.stack([torch.isfinite(value).all().cpu() for value in floats.values()] or [torch.tensor(True)])
    return "" if finite.all() else list(floats)[int(finite.int().argmin())]


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes a safetensors file that other users, such as that of a server, can read too."""
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path, metadata={"format": "pt"}
    )
    path.chmod(0o644)  # safetensors writes files that only their owner can read


def read_adapter(folder: Path) -> Adapter:
    """Reads a saved adapter.

    Raises:
        CheckpointError: a file is missing or was changed after saving, or has values that are not finite.
    """
    full, (config_file, lora) = folder / FULL_WEIGHTS, _lora_files(folder)
    if not (folder / PARTS).is_file():
        raise CheckpointError(f"{folder}: not a complete adapter ({PARTS} is missing)")
    try:
        recorded, present = read_json(folder / PARTS), _digests(folder)
        wrong = sorted(name for name in recorded.keys() | present.keys() if recorded.get(name) != present.get(name))
        if wrong:
            raise CheckpointError(f"{folder / wrong[0]}: damaged, missing, or different from its hash in {PARTS}")
        tensors = {path: dict(load_file(path)) if path.is_file() else {} for path in (full, lora)}
        for path, values in tensors.items():
            if name := not_finite(values):
                raise CheckpointError(f"{path}: {name} has values that are NaN or infinite; train again")
        config: LoraConfig | None = None
        if lora.is_file():
            config = PeftConfig.from_peft_type(**PeftConfig.from_json_file(str(config_file)))
            if not isinstance(config, LoraConfig):
                raise CheckpointError(f"{config_file}: not the configuration of a LoRA")
    except (OSError, ValueError, TypeError, AttributeError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: damaged ({error})") from error
    if lora.name == ADAPTER_WEIGHTS and tensors[full]:
        log.warning(
            "%s was written by an older version: PEFT loads its LoRA without %s, and gives other text. Use `finetune "
            "export RECIPE --format peft`",
            folder,
            FULL_WEIGHTS,
        )
    return Adapter(config, tensors[lora], tensors[full])


def load_adapter(model: SpeechModel, folder: Path, keep_float32: bool = False) -> PeftModel | None:
    """Loads a saved adapter into a newly loaded base model and freezes all parameters.

    Args:
        model: the base model.
        folder: the adapter.
        keep_float32: parameters that trained in full stay float32 in a model of a narrower type.

    Returns:
        PEFT's view of the model, or None if the adapter has no LoRA.

    Raises:
        CheckpointError: a file is missing or was changed after saving, has values that are not finite, or does not fit
            this base model: a key of the adapter has no place in it, or a place has no key.
    """
    return apply_adapter(model, read_adapter(folder), folder, keep_float32)


def apply_adapter(
    model: SpeechModel,
    adapter: Adapter,
    folder: Path,
    keep_float32: bool = False,
    adapted: PeftModel | None = None,
    name: str = "default",
) -> PeftModel | None:
    """`load_adapter` for an adapter that was read before.

    Args:
        model, keep_float32: as in `load_adapter`.
        adapter: the adapter.
        folder: where it was read, for messages.
        adapted: PEFT's view of the model, if it has the LoRA of other adapters.
        name: of its LoRA among several.

    Raises:
        CheckpointError: it does not fit this base model.
    """
    try:
        parameters: dict[str, Tensor] = dict(model.hf.named_parameters())
        for key, value in adapter.full.items():
            if key not in parameters or parameters[key].shape != value.shape:
                raise CheckpointError(
                    f"{folder / FULL_WEIGHTS}: {key} with shape {tuple(value.shape)} does not fit the base model "
                    f"{model.source}"
                )
            with torch.no_grad():
                if keep_float32:
                    parameters[key].data = value.to(parameters[key].device)
                else:
                    parameters[key].copy_(value)
        if adapter.config is not None:
            adapter.config.inference_mode = False
            adapter.config.base_model_name_or_path = None  # PEFT warns if it is spelled in another way
            if adapted is None:
                adapted = get_peft_model(model.hf, adapter.config, name)
            else:
                adapted.add_adapter(name, adapter.config)
            places = get_peft_model_state_dict(adapted, adapter_name=name, save_embedding_layers=False)
            if wrong := sorted(set(adapter.lora) ^ set(places)):
                config, weights = _lora_files(folder)
                raise CheckpointError(
                    f"{weights}: {wrong[0]} does not fit {config.name} or the base model {model.source}"
                )
            set_peft_model_state_dict(adapted, adapter.lora, name)
    except (ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: damaged, or does not fit the base model {model.source}: {error}") from error
    model.hf.requires_grad_(False)
    model.eval()
    return adapted


def _lora_files(folder: Path) -> tuple[Path, Path]:
    """Configuration and weights of the LoRA; the files need not exist."""
    if (folder / ADAPTER_WEIGHTS).is_file():
        return folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS
    return folder / LORA_CONFIG, folder / LORA_WEIGHTS
