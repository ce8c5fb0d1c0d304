"""Each layout of the family: one epoch on a few clips, export, reload, the same text."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from family import CONFIGS, VERSIONS, WITH_BPE_HEAD, make_model
from in_process import InThisProcess
from safetensors.torch import load_file
from support import hf_tokens
from transformers import AutoTokenizer

from finetune.core.config import Recipe
from finetune.core.errors import ModelError
from finetune.core.layouts import BPE_HEAD
from finetune.core.options import DecodingOptions
from finetune.core.prompts import read_profile
from finetune.data.manifest import read_manifest
from finetune.exporting.export import export
from finetune.exporting.formats import check_adapter
from finetune.exporting.peft_format import export_peft
from finetune.exporting.vllm_format import export_vllm_lora
from finetune.inference.recognize import recognize
from finetune.model.adapter import load_adapter
from finetune.model.granite import SpeechModel, load_model
from finetune.model.load_weights import model_class
from finetune.model.model_config import read_config
from finetune.model.weight_files import hub_name, model_name
from finetune.pipeline import run_recipe

GREEDY, SPECULATIVE = DecodingOptions("greedy", max_new_tokens=6), DecodingOptions("speculative", max_new_tokens=6)
SAMPLED = "3.3-2b"  # the others are slow tests
LAYOUTS = [
    name if name == SAMPLED else pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS if name != "4.0-1b"
]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_trained_exported_and_reloaded(name: str, tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    base = make_model(name, tmp_path / "base")
    recipe = tiny(tmp_path / "runs", "run", epochs=1)
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"base": str(base)})})
    run = run_recipe(recipe, "train")
    result = export(recipe, run, run_process=InThisProcess())
    assert result.transcripts_equal and result.max_abs_logit_diff < 1e-3

    clips = read_manifest(run.manifest("test"))
    trained = load_model(str(base), "float32")
    load_adapter(trained, run.best)
    exported = load_model(str(run.export), "float32")
    assert trained.profile == exported.profile == read_profile(run.export)
    assert exported.profile.version == VERSIONS[name]
    texts = recognize(trained, clips, recipe.model.instruction, GREEDY)
    for options in (GREEDY, SPECULATIVE):
        reloaded = recognize(exported, clips, recipe.model.instruction, options)
        assert [item.tokens for item in reloaded] == [item.tokens for item in texts]
    untrained = recognize(load_model(str(base), "float32"), clips, recipe.model.instruction, GREEDY)
    assert [item.log_probability for item in untrained] != [item.log_probability for item in texts]
    check_folder_of_export(name, base, run.export)

    if name.startswith("3.3"):
        with pytest.raises(ModelError, match="has an adapter of its own"):
            check_adapter(recipe, "peft")
        for adapter_format in (export_peft, export_vllm_lora):
            with pytest.raises(ModelError, match="has an adapter of its own"):
                adapter_format(recipe, run, tmp_path / "adapter")

    plain = model_class(read_config(str(run.export))).from_pretrained(str(run.export), dtype=torch.float32).eval()
    wrapped = SpeechModel(plain, AutoTokenizer.from_pretrained(run.export), str(run.export))
    assert [hf_tokens(wrapped, item, 6) for item in clips] == [item.tokens for item in texts]


def check_folder_of_export(name: str, base: Path, folder: Path) -> None:
    """The folder has the plain layout: no adapter, the names of the base, and its second CTC head unchanged."""
    before, after = (json.loads((path / "config.json").read_text()) for path in (base, folder))
    assert after == {**before, "has_lora_adapter": False}
    assert not list(folder.glob("adapter*"))
    names = {key for path in folder.glob("model*.safetensors") for key in load_file(path)}
    stored = {key for path in base.glob("model*.safetensors") for key in load_file(path)}
    assert names == {hub_name(model_name(key)) for key in stored}
    assert names == stored or name.endswith("October"), "whose files have one `model.` more"
    assert (folder / BPE_HEAD).is_file() == (name in WITH_BPE_HEAD)
    if name in WITH_BPE_HEAD:
        assert (folder / BPE_HEAD).read_bytes() == (base / BPE_HEAD).read_bytes()
