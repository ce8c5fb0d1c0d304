"""Adapters as models: LoRA switched in one base, whole parts in a model that shares the other weights."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import VOCABULARY
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from serving_server import running

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, ModelError, RecipeError
from finetune.core.model_limits import read_limits, write_limits
from finetune.core.options import TranscribeOptions, override
from finetune.core.run_dir import RunDir
from finetune.core.serve_options import parse_adapters
from finetune.exporting.adaptation import Adaptation
from finetune.inference.saved_options import options_for, options_path, write_options
from finetune.inference.transcript import Transcript
from finetune.model.adapter import ADAPTER_WEIGHTS, save_adapter, write_tensors
from finetune.model.granite import SpeechModel
from finetune.serving.adapters import find_adapter, with_adapters
from finetune.serving.models import Models, ServedModel, default_name

Load = Callable[[], SpeechModel]
SHORT = min((VOCABULARY / "audio" / "canary").glob("*.opus"), key=lambda path: path.stat().st_size)
LLM, ENCODER = r".*language_model.*\.(q_proj|v_proj)", r".*model\.encoder.*to_out"
WHOLE = "model.projector.linear.weight"


def short(nano: Path) -> TranscribeOptions:
    """The options of the base; its text is short, because adapters of random values do not end a text."""
    return override(options_for(nano), max_new_tokens=24)


def add_lora(model: SpeechModel, targets: str, rank: int, scale: float = 0.5) -> Any:
    """LoRA whose weights change the text."""
    torch.manual_seed(rank)
    adapted = get_peft_model(model.hf, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))
    for name, value in model.hf.named_parameters():
        if "lora_B" in name:
            value.data.normal_(0, scale)
    return adapted


@dataclass(frozen=True)
class Saved:
    """Folders of adapters, and what each model writes while it is in memory alone, before its adapter is saved."""

    folders: dict[str, Path]
    texts: dict[str, str]


@pytest.fixture(scope="module")
def saved(
    model: Load, nano: Path, direct: Callable[..., Transcript], tmp_path_factory: pytest.TempPathFactory
) -> Saved:
    """Two adapters with LoRA in different layers, and one that also has a whole layer."""
    root = tmp_path_factory.mktemp("adapters")
    saved = Saved({}, {"nano": direct(SHORT, max_new_tokens=24).text})
    for name, targets, rank, scale in (("llm", LLM, 4, 1.0), ("encoder", ENCODER, 2, 3.0), ("whole", LLM, 2, 0.5)):
        network = model()
        adapted = add_lora(network, targets, rank, scale)
        if name == "whole":
            value = dict(network.hf.named_parameters())[WHOLE]
            value.requires_grad_(True)
            value.data += 0.3 * torch.randn_like(value)
        save_adapter(network, adapted, root / name)
        saved.folders[name] = root / name
        saved.texts[name] = direct(SHORT, ServedModel(name, network.eval(), short(nano))).text
    return saved


@pytest.fixture(scope="module")
def folders(saved: Saved) -> dict[str, Path]:
    return saved.folders


@pytest.fixture(scope="module")
def models(model: Load, nano: Path, folders: dict[str, Path]) -> Models:
    return Models(with_adapters(ServedModel("nano", model(), short(nano)), folders, memory=0.9))


def test_each_model_answers_as_alone_while_all_are_busy(models: Models, saved: Saved) -> None:
    assert len({*saved.texts.values()}) == len(saved.texts), "the adapters must differ"
    with running(models) as server, ThreadPoolExecutor(8) as pool:
        names = ["nano", "llm", "whole", "encoder"] * 3

        def ask(name: str) -> str:
            return server.client().audio.transcriptions.create(model=name, file=SHORT).text

        assert list(pool.map(ask, names)) == [saved.texts[name] for name in names]
        listed = {item.id: item.parent for item in server.client().models.list()}
    assert listed == {"nano": None, "llm": "nano", "encoder": "nano", "whole": "nano"}


def test_a_model_with_a_whole_part_shares_the_other_weights(models: Models) -> None:
    base, whole = models.default.network.hf, models.by_name["whole"].network.hf
    own = dict(whole.named_parameters())
    assert own[WHOLE].data_ptr() != dict(base.named_parameters())[WHOLE].data_ptr()
    assert whole.lm_head.weight.data_ptr() == base.lm_head.weight.data_ptr()
    assert not torch.equal(own[WHOLE], dict(base.named_parameters())[WHOLE])
    assert models.by_name["llm"].network is models.default.network


@pytest.mark.filterwarnings("error::UserWarning:peft")
def test_an_adapter_of_peft_with_complete_modules(model: Load, nano: Path, tmp_path: Path) -> None:
    """Its base has another path, which is no warning of PEFT."""
    network = model()
    adapted = add_lora(network, LLM, 4)
    config = adapted.peft_config["default"]
    norm, projector = "model.language_model.norm", "model.projector.linear"
    config.modules_to_save, config.base_model_name_or_path = [norm, projector], "/another/path/of/the/base"
    config.save_pretrained(str(tmp_path))
    tensors = dict(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    changed = 0
    for name, value in network.hf.named_parameters():
        if name.startswith((f"{norm}.", f"{projector}.")):
            tensors[f"base_model.model.{name}"] = value.data
            changed += 1
    assert changed > 2
    write_tensors(tensors, tmp_path / ADAPTER_WEIGHTS)
    base = ServedModel("nano", model(), short(nano))
    _, served = with_adapters(base, {"peft": tmp_path}, memory=0.9)
    assert served.network is base.network, "unchanged modules need no model of their own"
    tensors[f"base_model.model.{WHOLE}"] = tensors[f"base_model.model.{WHOLE}"] * 1.5
    write_tensors(tensors, tmp_path / ADAPTER_WEIGHTS)
    _, served = with_adapters(ServedModel("nano", model(), short(nano)), {"peft": tmp_path}, memory=0.9)
    assert served.network is not base.network


def test_wrong_adapters_are_refused(model: Load, nano: Path, tmp_path: Path, folders: dict[str, Path]) -> None:
    base = ServedModel("nano", model(), short(nano))
    with pytest.raises(CheckpointError, match="not a run, its `best`, or an export"):
        with_adapters(base, {"x": tmp_path}, 0.9)
    with pytest.raises(CheckpointError, match="not a run"):
        with_adapters(base, {"x": nano}, 0.9)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "adapter_config.json").write_text("{}")
    (damaged / "adaptation.json").write_text("{}")
    with pytest.raises(ModelError, match="damaged, or of another version"):
        with_adapters(base, {"x": damaged}, 0.9)
    with pytest.raises(ModelError, match="more than 1e-12 of"):
        with_adapters(base, {"x": folders["llm"]}, 1e-12)
    with pytest.raises(RecipeError, match="the name of the base"):
        with_adapters(base, {"nano": folders["llm"]}, 0.9)
    for items, message in ((["x"], "give NAME=DIR"), (["=d"], "give NAME=DIR"), (["a=b", " a =c"], "given twice")):
        with pytest.raises(RecipeError, match=message):
            parse_adapters(items)
    assert parse_adapters(["a=b=c"]) == {"a": Path("b=c")}


def test_the_name_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "drugs" / "export").mkdir(parents=True)
    assert default_name(str(tmp_path / "drugs" / "export")) == "drugs"
    assert default_name(str(tmp_path / "drugs")) == "drugs"
    assert default_name("ibm-granite/granite-4.0-1b-speech") == "ibm-granite/granite-4.0-1b-speech"


def test_a_run_and_its_best_have_the_options_of_the_export(
    model: Load, nano: Path, tiny: Callable[..., Recipe], folders: dict[str, Path], tmp_path: Path
) -> None:
    run = RunDir(tmp_path / "drugs")
    recipe = tiny(tmp_path, "drugs")
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"instruction": "write the words"})})
    shutil.copytree(folders["llm"], run.best)
    run.resolved.write_text(recipe.model_dump_json(), encoding="utf-8")
    base = ServedModel("nano", model(), options_for(nano), read_limits(nano))
    for folder in (run.root, run.best):
        found = find_adapter("drugs", folder, base)
        assert found.folder.samefile(run.best) and found.options.instruction == "write the words"
        assert found.options.decoding.max_window == base.options.decoding.max_window
    options_path(run.export).parent.mkdir(parents=True)
    write_options(run.export, override(base.options, instruction="of the export"))
    write_limits(run.export, replace(base.limits, no_speech=0.25))
    found = find_adapter("drugs", run.root, base)
    assert (found.options.instruction, found.options.no_speech) == ("of the export", 0.25)
    assert found.limits.no_speech == 0.25


def test_an_adapter_for_the_base_is_no_adapter_for_a_model_trained_from_it(
    model: Load, nano: Path, tiny: Callable[..., Recipe], folders: dict[str, Path], tmp_path: Path
) -> None:
    """Both trainings together would give other texts than either."""
    run, other = RunDir(tmp_path / "drugs"), RunDir(tmp_path / "accent")
    recipe = tiny(tmp_path, "drugs")
    shutil.copytree(folders["llm"], run.best)
    run.resolved.write_text(recipe.model_dump_json(), encoding="utf-8")
    other.export.mkdir(parents=True)
    Adaptation.of_run(tiny(tmp_path, "accent"), other, read_limits(nano)).write(other.export)
    base = ServedModel("accent", model(), short(nano))
    base.network.source = str(other.export)
    with pytest.raises(CheckpointError, match="was trained further from it; serve .* with each of them as --adapter"):
        find_adapter("drugs", run.root, base)
    base.network.source = recipe.model.base
    assert find_adapter("drugs", run.root, base).folder.samefile(run.best)
