"""The exported folder is complete, says what was trained, opens in plain transformers, and is refused otherwise."""

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support import hf_tokens
from torch import Tensor
from transformers import AutoTokenizer, GraniteSpeechForConditionalGeneration

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, ModelError
from finetune.core.files import read_json
from finetune.core.options import DecodingOptions
from finetune.core.run_dir import RunDir
from finetune.data.manifest import read_manifest
from finetune.export import export as exporting
from finetune.export import verify as parity
from finetune.inference.recognize import recognize
from finetune.model.adapter import load_adapter, merge
from finetune.model.granite import GraniteSpeech, load_model
from finetune.pipeline import run_recipe

Trained = tuple[Recipe, RunDir, GraniteSpeech]


@pytest.fixture(scope="module")
def exported(trained: Trained) -> Path:
    """By the pipeline, after `evaluate`, with the parity check in a process of its own."""
    recipe, run, _ = trained
    run_recipe(recipe, "export")
    return run.export


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parity check within this process: the same work without its ten seconds of imports."""

    def answer(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:3] == ["-m", "finetune.export.verify"]
        parity.answer(command[3], Path(command[4]))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", answer)


def test_every_side_file_of_the_base_is_there(exported: Path, nano: Path) -> None:
    side = {path.name for path in nano.iterdir() if path.suffix != ".safetensors"}
    assert {"preprocessor_config.json", "processor_config.json", "tokenizer.json", "chat_template.jinja"} <= side
    for name in side - {"config.json", "README.md"}:
        assert (exported / name).read_bytes() == (nano / name).read_bytes(), name
    assert json.loads((exported / "config.json").read_text()) == json.loads((nano / "config.json").read_text())


def test_no_adapter_file_is_there(exported: Path) -> None:
    """transformers would put it on a second time."""
    names = {path.name for path in exported.iterdir()}
    assert not [name for name in names if "adapter" in name or "whole" in name or name.endswith(".part")]
    assert {"model.safetensors", "adaptation.json"} <= names
    assert not list(exported.parent.glob("export.*"))[1:], "only export.done.json"
    assert not (exported.parent / "parity").exists()


def test_the_weights_are_the_bases_in_name_shape_and_type(exported: Path, nano: Path) -> None:
    with (
        safe_open(str(exported / "model.safetensors"), "pt") as ours,
        safe_open(str(nano / "model.safetensors"), "pt") as base,
    ):
        assert set(ours.keys()) == set(base.keys())
        for name in base.keys():  # noqa: SIM118 (not a dict)
            one, two = ours.get_slice(name), base.get_slice(name)
            assert (one.get_shape(), one.get_dtype()) == (two.get_shape(), two.get_dtype()), name
            still = "encoder.layers.0." in name and "qformer" not in name
            if still or "running_" in name or "lm_head" in name:
                assert torch.equal(ours.get_tensor(name), base.get_tensor(name)), name


def test_it_says_what_was_trained(exported: Path, trained: Trained, model: Callable[[], GraniteSpeech]) -> None:
    recipe, run, _ = trained
    clips = read_manifest(run.manifest("test"))
    options = DecodingOptions("greedy", max_new_tokens=6)
    adapted = model()
    load_adapter(adapted, run.best)
    merged = load_model(str(exported), "float32")
    expected = [item.tokens for item in recognize(adapted, clips, recipe.model.instruction, options)]
    assert [item.tokens for item in recognize(merged, clips, recipe.model.instruction, options)] == expected
    tokens = [list(item) for item in expected]
    instruction = recipe.model.instruction
    apart = parity.largest_difference(
        parity.target_logits(adapted, clips, instruction, tokens),
        parity.target_logits(merged, clips, instruction, tokens),
    )
    assert apart < 1e-3
    done = run.done("export")
    assert done is not None and done["max_abs_logit_diff"] == pytest.approx(apart, abs=1e-5)
    assert (done["transcripts_equal"], done["rounded_clips"], done["clips"], done["dtype"]) == (True, 0, 3, "float32")


def test_plain_transformers_hears_the_same(exported: Path, trained: Trained) -> None:
    recipe, run, _ = trained
    clips = read_manifest(run.manifest("test"))
    options = DecodingOptions(max_new_tokens=6)
    ours = recognize(load_model(str(exported), "float32"), clips, recipe.model.instruction, options)
    plain = GraniteSpeechForConditionalGeneration.from_pretrained(str(exported), dtype=torch.float32).eval()
    wrapped = GraniteSpeech(plain, AutoTokenizer.from_pretrained(str(exported)), str(exported))
    assert [item.tokens for item in ours] == [hf_tokens(wrapped, item, 6) for item in clips]


def test_it_can_transcribe_by_itself(exported: Path, trained: Trained) -> None:
    """tests/test_deploy.py runs such a folder where nothing else is installed."""
    recipe, _, _ = trained
    assert {path.name for path in (exported / "transcribe").iterdir()} == {"__main__.py", "finetune", "settings.json"}
    settings = read_json(exported / "transcribe" / "settings.json")
    assert settings["instruction"] == recipe.model.instruction
    assert settings["batch_seconds"] == recipe.decode.batch_seconds


def test_it_tells_where_it_comes_from(exported: Path, trained: Trained) -> None:
    recipe, run, _ = trained
    story = read_json(exported / "adaptation.json")
    assert story["base"] == recipe.model.base
    assert story["recipe"]["parts"]["lora"]["rank"] == 4
    assert set(story["data"]) == {"train", "valid", "test", "canary"}
    assert story["scores"]["test"]["adapted"]["wer"] >= 0
    assert read_json(run.summary)["export"]["transcripts_equal"] is True


def test_a_bfloat16_export_is_checked_against_rounded_weights(
    exported: Path, trained: Trained, here: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As for the real base, whose files are bfloat16. What is never saved, as the rotary frequencies, stays exact."""
    recipe, run, _ = trained
    differences: list[float] = []
    measure = parity.largest_difference

    def noted(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
        differences.append(measure(a, b))
        return differences[-1]

    monkeypatch.setattr(exporting, "largest_difference", noted)
    monkeypatch.setattr(run, "export", tmp_path / "export")
    narrow = recipe.model_copy(update={"export": recipe.export.model_copy(update={"dtype": "bfloat16"})})
    result = exporting.export(narrow, run)
    assert (result.dtype, result.dir) == ("bfloat16", str(tmp_path / "export"))
    _, opened_and_rounded, opened_and_trained = differences
    assert opened_and_rounded == 0.0
    assert 0 < result.max_abs_logit_diff == opened_and_trained < 1
    weights, full = load_file(tmp_path / "export" / "model.safetensors"), load_file(exported / "model.safetensors")
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.bfloat16}
    for name, value in weights.items():
        assert torch.equal(value, full[name].to(value.dtype)), name
    assert json.loads((tmp_path / "export" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_difference_that_is_no_number_is_not_lost_among_others() -> None:
    ones = {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(2)}
    assert parity.largest_difference(ones, {**ones, "b": torch.tensor([1.0, 3.5])}) == 2.5
    assert math.isnan(parity.largest_difference(ones, {**ones, "b": torch.tensor([1.0, math.nan])}))


def refused(trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, match: str) -> None:
    """Exports beside the good export of before, which must stay; nothing may be released."""
    recipe, run, _ = trained
    monkeypatch.setattr(run, "export", tmp_path / "export")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "before").touch()
    with pytest.raises(ModelError, match=match):
        exporting.export(recipe, run)
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["before"]


def test_a_merge_that_loses_the_adapter_is_refused(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def lose(model: GraniteSpeech, adapted: Any) -> None:
        model.hf = adapted.unload()

    monkeypatch.setattr(exporting, "merge", lose)
    refused(trained, monkeypatch, tmp_path, "merged logits differ")


def test_a_merge_that_is_no_number_is_refused(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No comparison with NaN is true, so a check that asks whether it is too large would pass it."""

    def spoil(model: GraniteSpeech, adapted: Any) -> None:
        merge(model, adapted)
        model.lm_head.weight.data[5] = float("nan")

    monkeypatch.setattr(exporting, "merge", spoil)
    refused(trained, monkeypatch, tmp_path, "merged logits differ")


@pytest.mark.parametrize("value", [1.5, float("nan")])
def test_weights_that_change_on_the_way_to_disk_are_refused(
    trained: Trained, here: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: float
) -> None:
    copy = exporting._copy_side_files

    def tamper(base: Path, staged: Path, dtype: str) -> None:
        copy(base, staged, dtype)
        weights = {
            name: value.clone() for name, value in load_file(staged / "model.safetensors").items()
        }  # not mapped to the file
        weights["language_model.model.norm.weight"] *= value
        save_file(weights, staged / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(exporting, "_copy_side_files", tamper)
    refused(trained, monkeypatch, tmp_path, "opened afresh, the export differs")


def test_a_folder_that_cannot_be_opened_is_refused_with_the_reason(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failure = subprocess.CompletedProcess([], 1, "", "Traceback: no such weight")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failure)
    refused(trained, monkeypatch, tmp_path, "(?s)cannot be opened afresh.*no such weight")


def test_a_run_without_an_adapter_has_nothing_to_export(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe, run, _ = trained
    monkeypatch.setattr(run, "best", tmp_path / "best")
    with pytest.raises(CheckpointError, match="no complete adapter found"):
        exporting.export(recipe, run)


def test_side_files_of_a_hub_snapshot(tmp_path: Path) -> None:
    """As the real base has them: shards with an index, `torch_dtype`, and for 4.1 a second head beside the model."""
    base, staged = tmp_path / "base", tmp_path / "staged"
    base.mkdir()
    staged.mkdir()
    kept = ("out_llm.safetensors", "preprocessor_config.json", "multilingual_sample.wav")
    left = (
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
    )
    for name in (*kept, *left):
        (base / name).write_text(name)
    (base / "config.json").write_text('{"torch_dtype": "bfloat16", "audio_token_index": 100352}')
    exporting._copy_side_files(base, staged, "float32")
    assert {path.name for path in staged.iterdir()} == {*kept, "config.json"}
    assert json.loads((staged / "config.json").read_text()) == {"torch_dtype": "float32", "audio_token_index": 100352}
