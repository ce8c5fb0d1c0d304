"""Adapters beside a base model: LoRA in the base itself, switched between batches; whole parts in a model of their own.

A model with whole parts shares all other weights with the base, so it needs memory only for what was trained.
"""

import copy
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, ModelError, RecipeError
from finetune.core.model_limits import ModelLimits, read_limits
from finetune.core.options import TranscribeOptions
from finetune.core.recipe import read_recipe
from finetune.core.run_dir import RunDir
from finetune.exporting.adaptation import FILE as ADAPTATION
from finetune.exporting.adaptation import Adaptation
from finetune.inference.saved_options import options_for, options_path
from finetune.model.adapter import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    PARTS,
    Adapter,
    apply_adapter,
    not_finite,
    read_adapter,
)
from finetune.model.granite import SpeechModel
from finetune.serving.models import ServedModel

log = logging.getLogger(__name__)

PREFIX = "base_model.model."  # of the names in a file of PEFT


@dataclass(frozen=True)
class AdapterFolder:
    """An adapter that is not loaded yet.

    Attributes:
        name: in requests.
        folder: its files.
        options: how its model transcribes.
        limits: of its model.
    """

    name: str
    folder: Path
    options: TranscribeOptions
    limits: ModelLimits


class LoraModel(ServedModel):
    """An adapter of LoRA in the weights of the base; the base itself is one without LoRA.

    Args:
        adapted: PEFT's view of the base.
        lora: the name of its LoRA there; "" for none.
    """

    def __init__(self, base: ServedModel, adapted: PeftModel, name: str = "", lora: str = "") -> None:
        super().__init__(name or base.name, base.network, base.options, base.limits, base.name if lora else "")
        self._adapted, self._lora = adapted, lora

    def activate(self) -> None:
        if self._lora:
            self._adapted.base_model.enable_adapter_layers()
            self._adapted.set_adapter(self._lora, inference_mode=True)
        else:
            self._adapted.base_model.disable_adapter_layers()


def with_adapters(base: ServedModel, folders: dict[str, Path], memory: float) -> list[ServedModel]:
    """The base and its adapters.

    Args:
        base: the base, newly loaded; its network is changed.
        folders: a run, its `best`, or an export with `--format peft`, by name.
        memory: share of the free memory that all adapters can take.

    Raises:
        RecipeError: an adapter has the name of the base.
        CheckpointError: a folder has no adapter, or one that does not fit the base.
        ModelError: the adapters need too much memory.
    """
    if base.name in folders:
        raise RecipeError(f"--adapter {base.name}=...: this is the name of the base; choose another, or set --name")
    checked = [find_adapter(name, folder, base) for name, folder in folders.items()]
    adapters = [_read(item, base.network) for item in checked]
    _check_memory(base.network, adapters, memory)
    models: dict[str, ServedModel] = {}
    for item, adapter in zip(checked, adapters, strict=True):  # copies of the base as it is, before it gets LoRA
        if adapter.full:
            network = _copy_sharing(base.network, adapter.full)
            apply_adapter(network, adapter, item.folder)
            models[item.name] = ServedModel(item.name, network, item.options, item.limits, base.name)
    adapted: PeftModel | None = None
    for number, (item, adapter) in enumerate(zip(checked, adapters, strict=True)):
        if not adapter.full:
            adapted = apply_adapter(base.network, adapter, item.folder, adapted=adapted, name=f"adapter{number}")
            if adapted is None:
                raise CheckpointError(f"{item.folder}: the adapter is empty")
            model = LoraModel(base, adapted, item.name, f"adapter{number}")
            model.options, model.limits = item.options, item.limits
            models[item.name] = model
    first = base if adapted is None else LoraModel(base, adapted)
    return [first, *(models[item.name] for item in checked)]


def find_adapter(name: str, folder: Path, base: ServedModel) -> AdapterFolder:
    """What a folder of `--adapter` is: a run, its `best`, or an adapter of PEFT.

    Raises:
        CheckpointError: none of these.
        ModelError: the record of the adapter, which has its prompt, is damaged.
    """
    for run, files in ((RunDir(folder), folder / "best"), (RunDir(folder.resolve().parent), folder)):
        if run.resolved.is_file() and (files / PARTS).is_file():
            recipe = read_recipe(run.resolved)
            if options_path(run.export).is_file():  # its merged model has the same options and limits
                _check_base(name, recipe, base)
                return AdapterFolder(name, files, options_for(run.export), read_limits(run.export))
            limits = base.limits.after_training(recipe.model.instruction, run.done("train"))
            return _described(name, files, recipe, limits, base)
    try:
        adaptation = Adaptation.read(folder)
    except OSError:  # there is none
        adaptation = None
    if adaptation is not None and (folder / ADAPTER_CONFIG).is_file():
        return _described(name, folder, adaptation.recipe, adaptation.limits, base)
    if (folder / PARTS).is_file() or (folder / ADAPTER_CONFIG).is_file():
        return AdapterFolder(name, folder, base.options, base.limits)
    hint = "; a merged model is no adapter: give it as MODEL" if (folder / ADAPTATION).is_file() else ""
    raise CheckpointError(f"{folder}: not a run, its `best`, or an export with --format peft{hint}")


def _described(name: str, folder: Path, recipe: Recipe, limits: ModelLimits, base: ServedModel) -> AdapterFolder:
    """An adapter with the options that its export would have."""
    default = TranscribeOptions(no_speech=limits.no_speech)
    decoding = limits.with_window(replace(recipe.decode, max_new_tokens=default.decoding.max_new_tokens))
    if decoding.keyword_method == default.decoding.keyword_method:
        decoding = replace(decoding, keyword_method=limits.keyword_method)
    options = replace(default, instruction=recipe.model.instruction, decoding=decoding, vad=base.options.vad)
    _check_base(name, recipe, base)
    return AdapterFolder(name, folder, options, limits)


def _check_base(name: str, recipe: Recipe, base: ServedModel) -> None:
    """Warns if an adapter was trained on another model. Raises CheckpointError if its base was trained further."""
    source, trained_on = base.network.source, recipe.model.base
    if not _is_same(source, trained_on):
        with suppress(OSError, ModelError):  # not an export
            if _is_same(Adaptation.read(Path(source)).base, trained_on):
                raise CheckpointError(
                    f"the adapter {name} was trained on {trained_on}, and {source} was trained further from it; "
                    f"serve {trained_on}, with each of them as --adapter"
                )
        log.warning("the adapter %s was trained on %s, and this server has %s", name, trained_on, source)


def _is_same(one: str, two: str) -> bool:
    """Whether two sources of a model have the same name or folder."""
    return one == two or Path(one).resolve() == Path(two).resolve()


def _read(item: AdapterFolder, base: SpeechModel) -> Adapter:
    """Reads the weights of an adapter. Raises CheckpointError."""
    if (item.folder / PARTS).is_file():
        return read_adapter(item.folder)
    try:
        config = PeftConfig.from_peft_type(**PeftConfig.from_json_file(str(item.folder / ADAPTER_CONFIG)))
        tensors = dict(load_file(item.folder / ADAPTER_WEIGHTS))
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{item.folder}: not an adapter of PEFT ({error})") from error
    if not isinstance(config, LoraConfig):
        raise CheckpointError(f"{item.folder / ADAPTER_CONFIG}: not the configuration of a LoRA")
    if bad := not_finite(tensors):
        raise CheckpointError(f"{item.folder / ADAPTER_WEIGHTS}: {bad} has values that are NaN or infinite")
    config.modules_to_save = None
    lora = {name: value for name, value in tensors.items() if "lora_" in name}
    full_weights = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name not in lora}
    return Adapter(config, lora, _changed(full_weights, base, item.folder))


def _changed(full_weights: dict[str, Tensor], base: SpeechModel, folder: Path) -> dict[str, Tensor]:
    """The tensors that differ from those of the base. Modules are complete in an adapter of PEFT, trained or not."""
    own = base.hf.state_dict()
    for name, value in full_weights.items():
        if name not in own or own[name].shape != value.shape:
            raise CheckpointError(f"{folder / ADAPTER_WEIGHTS}: {name} does not fit the base model {base.source}")
    return {name: value for name, value in full_weights.items() if not torch.equal(value.to(own[name]), own[name])}


def _copy_sharing(model: SpeechModel, changed: dict[str, Tensor]) -> SpeechModel:
    """A copy of a model with its own values of some parameters; it shares all other tensors."""
    tensors = [*model.hf.named_parameters(), *model.hf.named_buffers()]
    memo = {id(value): value for name, value in tensors if name not in changed}
    return SpeechModel(copy.deepcopy(model.hf, memo), model.tokenizer, model.source, model.bpe_file).eval()


def _check_memory(base: SpeechModel, adapters: Sequence[Adapter], share: float) -> None:
    width = base.encoder.input_linear.weight.element_size()
    needed = sum(
        sum(4 * value.numel() for value in adapter.lora.values())
        + sum(width * value.numel() for value in adapter.full.values())
        for adapter in adapters
    )
    free = free_memory(base.device)
    if needed > share * free:
        raise ModelError(
            f"the adapters need {needed / 1e9:.2f} GB, more than {share:g} of the {free / 1e9:.2f} GB that are free; "
            "serve fewer of them, or raise --memory"
        )


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU, or on this machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with suppress(OSError, ValueError, IndexError), open("/proc/meminfo", encoding="ascii") as file:
        available = next(line for line in file if line.startswith("MemAvailable:"))
        return 1024 * int(available.split()[1])
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"))
