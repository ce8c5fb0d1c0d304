"""The exported folder is complete, decodes as the trained model does, and loads in transformers; faults are refused."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import full_disk
from in_process import InThisProcess
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support import hf_tokens
from torch import Tensor
from trainable_cases import merge
from transformers import AutoTokenizer, GraniteSpeechForConditionalGeneration

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, ModelError
from finetune.core.files import is_disk_full, read_json
from finetune.core.model_limits import read_limits
from finetune.core.options import DecodingOptions
from finetune.core.run_dir import RunDir
from finetune.data.manifest import read_manifest
from finetune.exporting import verify
from finetune.exporting.adaptation import Adaptation
from finetune.exporting.export import export
from finetune.exporting.save import copy_side_files, save_weights
from finetune.exporting.trained_weights import TrainedWeights
from finetune.inference.recognize import recognize
from finetune.inference.saved_options import options_for
from finetune.metrics.results import read_results
from finetune.model.adapter import load_adapter
from finetune.model.granite import DTYPES, SpeechModel, load_model
from finetune.pipeline import run_recipe
from finetune.version import __version__

Trained = tuple[Recipe, RunDir, SpeechModel]


@pytest.fixture(scope="module", name="trained")
def copy_of_trained(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The shared run in a folder of this module, which writes into it."""
    recipe, run, adapted = trained
    copy = recipe.model_copy(update={"runs": str(tmp_path_factory.mktemp("runs"))})
    return copy, RunDir(shutil.copytree(run.root, Path(copy.runs) / run.root.name)), adapted


@pytest.fixture(scope="module")
def exported(trained: Trained) -> Path:
    """By the pipeline, after `evaluate`; verified in a new process."""
    recipe, run, _ = trained
    run_recipe(recipe, "export")
    return run.export


def with_export(run: RunDir, folder: Path) -> RunDir:
    """The same run directory, with another folder for its export."""
    other = RunDir(run.root)
    other.export = folder
    return other


def trained_tokens(recipe: Recipe, run: RunDir) -> list[list[int]]:
    """Greedy tokens of the unmerged model."""
    adapted, clips = (
        load_model(recipe.model.base, "float32"),
        read_manifest(run.manifest("test"))[: recipe.export.clips],
    )
    load_adapter(adapted, run.best)
    options = DecodingOptions("greedy", max_new_tokens=recipe.decode.max_new_tokens)
    return [list(item.tokens) for item in recognize(adapted, clips, recipe.model.instruction, options)]


def merged_in_memory(recipe: Recipe, run: RunDir, folder: Path, dtype: torch.dtype) -> Path:
    """A folder saved by transformers from a model that PEFT has merged in float32 as a whole."""
    reference = load_model(recipe.model.base, "float32")
    merge(reference, load_adapter(reference, run.best))
    made = folder / f"reference-{dtype}"
    reference.hf.to(dtype).save_pretrained(made)
    reference.tokenizer.save_pretrained(made)
    return made


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_files_are_those_of_a_merge_of_the_whole_model_in_memory(
    exported: Path, trained: Trained, tmp_path: Path, dtype: str
) -> None:
    """Byte for byte, though one tensor after the other was merged and written."""
    recipe, run, _ = trained
    reference = merged_in_memory(recipe, run, tmp_path, DTYPES[dtype]) / "model.safetensors"
    (tmp_path / "ours").mkdir()
    weights = TrainedWeights.of_run(recipe, run.best, Path(recipe.model.base))
    save_weights(tmp_path / "ours", weights, dtype, 10**9)
    ours = tmp_path / "ours" / "model.safetensors"
    assert ours.read_bytes() == reference.read_bytes()
    assert dtype == "bfloat16" or (exported / "model.safetensors").read_bytes() == reference.read_bytes()


def test_the_index_names_every_weight_also_of_a_single_file(exported: Path) -> None:
    index = read_json(exported / "model.safetensors.index.json")
    weights = load_file(exported / "model.safetensors")
    assert index["weight_map"] == dict.fromkeys(weights, "model.safetensors")
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in weights.values())


def test_shards_have_at_most_the_size_of_the_setting(exported: Path, trained: Trained, tmp_path: Path) -> None:
    recipe, run, _ = trained
    small = recipe.model_copy(update={"export": recipe.export.model_copy(update={"shard_gb": 0.01})})
    export(small, with_export(run, tmp_path / "export"), run_process=InThisProcess())
    shards = sorted((tmp_path / "export").glob("*.safetensors"))
    assert [path.name for path in shards] == [f"model-0000{number}-of-00004.safetensors" for number in range(1, 5)]
    parts = [load_file(path) for path in shards]
    assert all(sum(value.nbytes for value in part.values()) <= 10_000_000 for part in parts)
    whole = load_file(exported / "model.safetensors")
    joined = {name: value for part in parts for name, value in part.items()}
    assert joined.keys() == whole.keys() and all(torch.equal(joined[name], whole[name]) for name in whole)
    index = read_json(tmp_path / "export" / "model.safetensors.index.json")["weight_map"]
    assert index == {name: path.name for path, part in zip(shards, parts, strict=True) for name in part}


def test_a_weight_that_the_disk_changes_is_refused(trained: Trained, tmp_path: Path) -> None:
    """Each tensor is read again and compared."""
    recipe, run, _ = trained
    weights = TrainedWeights.of_run(recipe, run.best, Path(recipe.model.base))
    calls: list[str] = []
    read = weights.tensor

    def flipped(name: str) -> Tensor:
        calls.append(name)
        return read(name) + (1e-6 if len(calls) == 7 else 0)

    weights.tensor = flipped  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="is not the trained one"):
        save_weights(tmp_path, weights, "float32", 10**9)


@pytest.mark.parametrize("bytes_left", [1_000, 20_000_000])
def test_a_full_disk_keeps_the_earlier_export_and_frees_the_space(
    trained: Trained, tmp_path: Path, bytes_left: int
) -> None:
    """In the middle of the weights: a limit of the file size has the same effect as a full disk."""
    recipe, run, _ = trained
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "decode.json").touch()
    with full_disk(bytes_left), pytest.raises(OSError) as caught:
        export(recipe, with_export(run, tmp_path / "export"), run_process=InThisProcess())
    assert is_disk_full(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["decode.json"]


def test_every_side_file_of_the_base_is_copied(exported: Path, nano: Path) -> None:
    side = {path.name for path in nano.iterdir() if path.suffix != ".safetensors"}
    assert {"preprocessor_config.json", "processor_config.json", "tokenizer.json", "chat_template.jinja"} <= side
    for name in side - {"config.json", "README.md", "limits.json"}:
        assert (exported / name).read_bytes() == (nano / name).read_bytes(), name
    assert json.loads((exported / "config.json").read_text()) == json.loads((nano / "config.json").read_text())


def test_the_export_has_no_adapter_files(exported: Path) -> None:
    """transformers would apply it a second time."""
    names = {path.name for path in exported.iterdir()}
    assert not [name for name in names if "adapter" in name or "whole" in name or name.endswith(".part")]
    assert {"model.safetensors", "adaptation.json"} <= names
    assert not list(exported.parent.glob("export.*"))[1:], "only export.done.json"
    assert not (exported.parent / "parity").exists()


def test_weights_have_the_names_shapes_and_dtypes_of_the_base(exported: Path, nano: Path) -> None:
    with (
        safe_open(str(exported / "model.safetensors"), "pt") as ours,
        safe_open(str(nano / "model.safetensors"), "pt") as base,
    ):
        assert set(ours.keys()) == set(base.keys())
        for name in base.keys():  # noqa: SIM118 (not a dict)
            one, two = ours.get_slice(name), base.get_slice(name)
            dtype = (
                "F32" if two.get_dtype() == "F16" else two.get_dtype()
            )  # that of the config, in which the base is loaded
            assert (one.get_shape(), one.get_dtype()) == (two.get_shape(), dtype), name
            frozen = "encoder.layers.0." in name and "qformer" not in name
            if frozen or "running_" in name or "lm_head" in name:
                assert torch.equal(ours.get_tensor(name), base.get_tensor(name)), name


def test_the_export_decodes_as_the_adapted_model(
    exported: Path, trained: Trained, model: Callable[[], SpeechModel]
) -> None:
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
    difference = verify.largest_difference(
        verify.target_logits(adapted, clips, instruction, tokens),
        verify.target_logits(merged, clips, instruction, tokens),
    )
    assert difference < 1e-3
    done = run.done("export")
    assert done is not None and done["max_abs_logit_diff"] == pytest.approx(difference, abs=1e-5)
    assert (done["transcripts_equal"], done["rounded_clips"], done["clips"], done["dtype"]) == (True, 0, 3, "float32")


def test_transformers_generates_the_same_tokens(exported: Path, trained: Trained) -> None:
    recipe, run, _ = trained
    clips = read_manifest(run.manifest("test"))
    options = DecodingOptions(max_new_tokens=6)
    ours = recognize(load_model(str(exported), "float32"), clips, recipe.model.instruction, options)
    plain = GraniteSpeechForConditionalGeneration.from_pretrained(str(exported), dtype=torch.float32).eval()
    wrapped = SpeechModel(plain, AutoTokenizer.from_pretrained(str(exported)), str(exported))
    assert [item.tokens for item in ours] == [hf_tokens(wrapped, item, 6) for item in clips]


def test_the_export_carries_a_transcriber_with_the_recipes_settings(exported: Path, trained: Trained) -> None:
    """tests/exporting/test_bundle.py runs such a folder in an environment without this package."""
    recipe, _, _ = trained
    assert {path.name for path in (exported / "transcribe").iterdir()} == {"__main__.py", "finetune", "settings.json"}
    settings = read_json(exported / "transcribe" / "settings.json")
    assert settings["instruction"] == recipe.model.instruction
    assert settings["decoding"]["batch_seconds"] == recipe.decode.batch_seconds


def test_adaptation_json_has_base_recipe_data_and_scores(exported: Path, trained: Trained) -> None:
    recipe, run, _ = trained
    adaptation = Adaptation.read(exported)
    assert (adaptation.schema_version, adaptation.toolkit) == (1, __version__)
    assert (adaptation.base, adaptation.recipe) == (recipe.model.base, recipe)
    assert set(adaptation.data) == {"train", "valid", "test", "canary"}
    assert adaptation.train is not None and vars(adaptation.train) == run.done("train")
    assert adaptation.scores == read_results(run.scores).scores
    content = read_json(exported / "adaptation.json")
    assert content["train"] == run.done("train") and content["scores"] == read_json(run.scores)["scores"]
    assert read_json(run.summary)["export"]["transcripts_equal"] is True


def test_the_export_states_the_limits_of_base_and_training(exported: Path, trained: Trained, nano: Path) -> None:
    recipe, run, _ = trained
    durations = sorted(item.duration for item in read_manifest(run.manifest("train")))
    common, base, limits = run.done("train")["typical_duration"], read_limits(nano), read_limits(exported)
    assert limits.max_duration == max(base.max_duration, common) and durations[0] < common <= durations[-1]
    assert (limits.keyword_prompts, limits.instruction) == ("untrained", recipe.model.instruction)
    assert limits.no_speech > 0, "calibrated on valid"
    assert Adaptation.read(exported).limits == limits
    options = options_for(exported)
    assert (options.decoding.max_window, options.no_speech) == (limits.max_duration, limits.no_speech)


def test_a_bfloat16_export_is_compared_with_the_rounded_weights(
    exported: Path, trained: Trained, tmp_path: Path
) -> None:
    """As for the real base, whose files are bfloat16. Buffers that are not saved (rotary frequencies) stay exact."""
    recipe, run, _ = trained
    narrow = recipe.model_copy(update={"export": recipe.export.model_copy(update={"dtype": "bfloat16"})})
    in_this_process = InThisProcess()
    result = export(narrow, with_export(run, tmp_path / "export"), run_process=in_this_process)
    assert (result.dtype, result.dir) == ("bfloat16", str(tmp_path / "export"))
    clips, tokens = read_manifest(run.manifest("test"))[: recipe.export.clips], trained_tokens(recipe, run)
    rounded = load_model(str(merged_in_memory(recipe, run, tmp_path, torch.bfloat16)), "float32")
    adapted = load_model(recipe.model.base, "float32")
    load_adapter(adapted, run.best)
    (loaded,) = in_this_process.logits
    expected = verify.target_logits(rounded, clips, recipe.model.instruction, tokens)
    before = verify.target_logits(adapted, clips, recipe.model.instruction, tokens)
    assert verify.largest_difference(expected, loaded) == 0.0
    assert 0 < result.max_abs_logit_diff == verify.largest_difference(before, loaded) < 1
    weights, full = load_file(tmp_path / "export" / "model.safetensors"), load_file(exported / "model.safetensors")
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.bfloat16}
    for name, value in weights.items():
        assert torch.equal(value, full[name].to(value.dtype)), name
    assert json.loads((tmp_path / "export" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_nan_difference_is_reported_among_others() -> None:
    ones = {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(2)}
    assert verify.largest_difference(ones, {**ones, "b": torch.tensor([1.0, 3.5])}) == 2.5
    assert math.isnan(verify.largest_difference(ones, {**ones, "b": torch.tensor([1.0, math.nan])}))


def refused(trained: Trained, tmp_path: Path, match: str, **keywords: Any) -> None:
    """Exports over an earlier export, which must not change."""
    recipe, run, _ = trained
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "decode.json").touch()
    with pytest.raises(ModelError, match=match):
        export(recipe, with_export(run, tmp_path / "export"), **keywords)
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["decode.json"]


def test_a_merge_that_loses_the_adapter_is_refused(trained: Trained, tmp_path: Path) -> None:
    def lose(layer: Any) -> None:
        pass

    refused(trained, tmp_path, "merged logits differ", merge=lose)


def test_a_merge_with_nan_weights_is_refused(trained: Trained, tmp_path: Path) -> None:
    """No comparison with NaN is true, so `difference > tolerance` would accept it."""

    def spoil(layer: Any) -> None:
        layer.base_layer.weight.data = torch.full_like(layer.base_layer.weight, math.nan)

    refused(trained, tmp_path, "merged logits differ", merge=spoil)


@pytest.mark.parametrize(
    ("factor", "match"), [(1.5, "the saved model differs from the merged one"), (math.nan, "the model computes NaN")]
)
def test_saved_weights_that_differ_from_the_merged_ones_are_refused(
    trained: Trained, tmp_path: Path, factor: float, match: str
) -> None:
    def tamper(folder: Path) -> None:
        path = folder / "model.safetensors"
        weights = {name: value.clone() for name, value in load_file(path).items()}  # not mapped to the file
        weights["language_model.model.norm.weight"] *= factor
        save_file(weights, path, metadata={"format": "pt"})

    refused(trained, tmp_path, match, run_process=InThisProcess(before=tamper))


def test_a_folder_that_cannot_be_loaded_is_refused_with_the_reason(trained: Trained, tmp_path: Path) -> None:
    failure = subprocess.CompletedProcess([], 1, "", "Traceback: no such weight")
    refused(
        trained, tmp_path, "(?s)cannot be loaded in a new process.*no such weight", run_process=lambda command: failure
    )


def test_the_command_of_the_new_process_runs_as_it_is(tmp_path: Path) -> None:
    """Without a model it fails with a message on standard error."""
    done = verify.run_process([sys.executable, "-m", "finetune.exporting.verify", str(tmp_path), str(tmp_path)])
    assert done.returncode == 1 and "FileNotFoundError" in done.stderr and verify.REQUEST in done.stderr


def test_a_run_without_an_adapter_cannot_be_exported(trained: Trained, tmp_path: Path) -> None:
    recipe, run, _ = trained
    other = with_export(run, tmp_path / "export")
    other.best = tmp_path / "best"
    with pytest.raises(CheckpointError, match="not a complete adapter"):
        export(recipe, other)


def test_side_files_of_a_hub_snapshot(tmp_path: Path) -> None:
    """As in the real base: shards with an index, `torch_dtype`, and for 4.1 a second head beside the model."""
    base, staged = tmp_path / "base", tmp_path / "staged"
    base.mkdir()
    staged.mkdir()
    copied = ("out_llm.safetensors", "preprocessor_config.json", "multilingual_sample.wav")
    left = (
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
        "engines.json",
        "mmproj-F16.gguf",
        "pytorch_model-00001-of-00002.bin",
        "decoder.ONNX",
    )
    for name in (*copied, *left):
        (base / name).write_text(name)
    (base / "config.json").write_text('{"torch_dtype": "bfloat16", "audio_token_index": 100352}')
    copy_side_files(base, staged, "float32")
    assert {path.name for path in staged.iterdir()} == {*copied, "config.json"}
    assert json.loads((staged / "config.json").read_text()) == {
        "torch_dtype": "float32",
        "audio_token_index": 100352,
        "has_lora_adapter": False,
    }


@pytest.mark.parametrize("keys", [("torch_dtype",), ("dtype",), ("torch_dtype", "dtype"), ()])
def test_config_json_states_one_data_type(tmp_path: Path, keys: tuple[str, ...]) -> None:
    base, staged = tmp_path / "base", tmp_path / "staged"
    base.mkdir()
    staged.mkdir()
    (base / "config.json").write_text(json.dumps(dict.fromkeys(keys, "bfloat16")))
    copy_side_files(base, staged, "float32")
    stated = json.loads((staged / "config.json").read_text())
    assert stated == dict.fromkeys(keys or ("dtype",), "float32") | {"has_lora_adapter": False}
