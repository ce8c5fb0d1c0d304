"""Exported adapters are whole: plain PEFT gives the trained model, vLLM gets its own names or a refusal."""

import json
import re
import shutil
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from command import Command
from in_process import InThisProcess
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file, save_file
from support import hf_tokens
from trainable_cases import ALL, CASES, LORA, ctc_logits, logits, merge, perturb
from transformers import GraniteSpeechForConditionalGeneration

from finetune import partial_runs
from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, ModelError
from finetune.core.model_limits import read_limits
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance, write_manifest
from finetune.evaluation.no_speech import calibrate_no_speech
from finetune.exporting.adaptation import Adaptation
from finetune.exporting.adapter_folder import base_name
from finetune.exporting.merge import trained_outputs
from finetune.exporting.peft_format import UNCHANGED, ZERO_LORA, export_peft
from finetune.exporting.save import save_weights
from finetune.exporting.trained_weights import TrainedWeights
from finetune.exporting.verify import largest_difference, target_logits
from finetune.exporting.vllm_format import export_vllm_lora
from finetune.inference.recognize import recognize
from finetune.model import adapter
from finetune.model.adapter import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    FULL_WEIGHTS,
    LORA_WEIGHTS,
    PARTS,
    load_adapter,
    read_adapter,
    save_adapter,
)
from finetune.model.granite import SpeechModel, load_model
from finetune.model.trainable import LoraSpec, TrainableParts, open_parts


@dataclass(frozen=True)
class Made:
    """A run whose parts were perturbed instead of trained, and its model in memory."""

    recipe: Recipe
    run: RunDir
    model: SpeechModel


Make = Callable[[TrainableParts], Made]


@pytest.fixture
def make(model: Callable[[], SpeechModel], clips: list[Utterance], nano: Path, tmp_path: Path) -> Make:
    def made(parts: TrainableParts) -> Made:
        granite, run = model(), RunDir(tmp_path / "run")
        adapted = open_parts(granite, parts)
        perturb(granite)
        save_adapter(granite, adapted, run.best)
        write_manifest(run.manifest("test"), clips[:2])
        write_manifest(run.manifest("valid"), clips[:2])
        settings = {
            "name": "run",
            "runs": str(tmp_path),
            "model": {"base": str(nano)},
            "data": {"train": ["x"], "valid": ["x"], "test": ["x"]},
            "decode": {"max_new_tokens": 4},
            "export": {"clips": 2},
        }
        return Made(Recipe.model_validate(settings), run, granite.eval())

    return made


@pytest.fixture
def on_bfloat16(make: Make, tmp_path: Path) -> Made:
    """A run with LoRA and full parts whose base is stored in bfloat16, as the real one is."""
    made = make(CASES["all parts"])
    rounded = load_model(made.recipe.model.base, "float32")
    rounded.hf.to(torch.bfloat16).save_pretrained(tmp_path / "narrow")
    rounded.tokenizer.save_pretrained(tmp_path / "narrow")
    model = made.recipe.model.model_copy(update={"base": str(tmp_path / "narrow")})
    return replace(made, recipe=made.recipe.model_copy(update={"model": model}))


def opened_with_peft(made: Made, folder: Path) -> SpeechModel:
    """The base model in transformers with the adapter in PEFT; a warning about its keys is an error."""
    plain = GraniteSpeechForConditionalGeneration.from_pretrained(made.recipe.model.base, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        PeftModel.from_pretrained(plain, str(folder))
    return SpeechModel(plain, made.model.tokenizer, made.recipe.model.base).eval()


QUICK = ("all parts", "dora everywhere", "no lora")


@pytest.mark.parametrize("case", [pytest.param(x, marks=[] if x in QUICK else pytest.mark.slow) for x in CASES])
def test_plain_peft_gives_the_trained_model(make: Make, clips: list[Utterance], tmp_path: Path, case: str) -> None:
    """Every part: logits, CTC logits, and the tokens of transformers' own `generate`."""
    made = make(CASES[case])
    result = export_peft(made.recipe, made.run, tmp_path / "peft", InThisProcess())
    assert (result.dir, result.clips) == (str(tmp_path / "peft"), 2) and result.max_abs_logit_diff < 1e-5
    opened = opened_with_peft(made, tmp_path / "peft")
    assert torch.allclose(logits(opened, clips), logits(made.model, clips), atol=1e-5, rtol=0)
    assert torch.allclose(ctc_logits(opened, clips), ctc_logits(made.model, clips), atol=1e-5, rtol=0)
    (ours,) = recognize(made.model, clips[:1], made.recipe.model.instruction, made.recipe.decode)
    assert hf_tokens(opened, clips[0], 4) == ours.tokens
    assert {path.name for path in (tmp_path / "peft").iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "adaptation.json",
    }
    config = json.loads((tmp_path / "peft" / ADAPTER_CONFIG).read_text())
    assert config["base_model_name_or_path"] == str(Path(made.recipe.model.base).resolve())
    assert config["modules_to_save"], "vLLM refuses the folder instead of ignoring its keys"


def test_on_a_bfloat16_base_all_trained_weights_stay_float32(
    on_bfloat16: Made, clips: list[Utterance], tmp_path: Path
) -> None:
    """Logits of the unmerged model and of PEFT are those of a base in float32; the merged files are rounded once."""
    recipe, best, base = on_bfloat16.recipe, on_bfloat16.run.best, Path(on_bfloat16.recipe.model.base)
    wide = load_model(str(base), "float32")
    adapted = load_adapter(wide, best)
    trained = trained_outputs(recipe, best, base, clips[:2], TrainedWeights.of_run(recipe, best, base))
    expected = target_logits(wide, clips[:2], recipe.model.instruction, trained.tokens)
    assert largest_difference(trained.logits, expected) == 0.0
    in_this_process = InThisProcess()
    export_peft(recipe, on_bfloat16.run, tmp_path / "peft", in_this_process)
    assert largest_difference(in_this_process.logits[0], expected) < 1e-5
    merge(wide, adapted)
    wide.hf.to(torch.bfloat16).save_pretrained(tmp_path / "reference")
    (tmp_path / "ours").mkdir()
    save_weights(tmp_path / "ours", TrainedWeights.of_run(recipe, best, base), "bfloat16", 10**9)
    ours, reference = (tmp_path / name / "model.safetensors" for name in ("ours", "reference"))
    assert ours.read_bytes() == reference.read_bytes()


def test_the_self_check_of_the_readme_tells_the_adapter_from_the_base(make: Make, tmp_path: Path) -> None:
    made = make(CASES["all parts"])
    export_peft(made.recipe, made.run, tmp_path / "peft", InThisProcess())
    readme = (tmp_path / "peft" / "README.md").read_text()
    loading, check = re.findall(r"```python\n(.+?)```", readme, re.DOTALL)
    adapted, base = re.findall(r"`(\[[-\d., ]+\])`", readme)
    assert adapted != base
    assert "LoRA in 21 layers and modules trained in full (lm_head, model.encoder.layers.4" in readme
    without = loading.replace("PeftModel.from_pretrained(base, FOLDER)", "base")
    for code, expected in ((loading, adapted), (without, base)):
        with redirect_stdout(StringIO()) as output:
            exec(code + check, {"FOLDER": str(tmp_path / "peft")})
        assert torch.allclose(
            torch.tensor(json.loads(output.getvalue())), torch.tensor(json.loads(expected)), atol=2e-3
        )


def test_the_adapter_has_the_no_speech_threshold_of_the_trained_model(
    make: Make, clips: list[Utterance], tmp_path: Path
) -> None:
    made = make(CASES["all parts"])
    export_peft(made.recipe, made.run, tmp_path / "peft", InThisProcess())
    own = calibrate_no_speech(made.model, clips[:2], 240, made.recipe.seed).threshold
    limits = Adaptation.read(tmp_path / "peft").limits
    assert limits.no_speech == pytest.approx(own, abs=0.002) != read_limits(made.recipe.model.base).no_speech


def test_a_self_check_that_cannot_show_the_adapter_says_so(make: Make, tmp_path: Path) -> None:
    made = make(LORA)
    untrained = load_model(made.recipe.model.base, "float32")
    save_adapter(untrained, open_parts(untrained, LORA), made.run.best)
    export_peft(made.recipe, made.run, tmp_path / "peft", InThisProcess())
    readme = (tmp_path / "peft" / "README.md").read_text()
    assert "do not show whether it runs" in readme and "runs without the adapter" not in readme


def test_a_lora_alone_also_saves_an_unchanged_module(make: Make, tmp_path: Path) -> None:
    made = make(LORA)
    export_peft(made.recipe, made.run, tmp_path / "peft", InThisProcess())
    weights = load_file(tmp_path / "peft" / ADAPTER_WEIGHTS)
    (name,) = {name for name in weights if "lora_" not in name}
    assert name == f"base_model.model.{UNCHANGED}.weight"
    assert torch.equal(weights[name], made.model.hf.get_submodule(UNCHANGED).weight)


def test_without_lora_peft_gets_a_lora_of_zeros(make: Make, tmp_path: Path) -> None:
    made = make(CASES["no lora"])
    export_peft(made.recipe, made.run, tmp_path / "peft", InThisProcess())
    lora = {n: v for n, v in load_file(tmp_path / "peft" / ADAPTER_WEIGHTS).items() if "lora_" in n}
    assert len(lora) == 2 and all(ZERO_LORA in name and not value.any() for name, value in lora.items())


def drop_a_key(folder: Path) -> None:
    weights = {name: value.clone() for name, value in load_file(folder / ADAPTER_WEIGHTS).items()}
    del weights[next(name for name in weights if "lora_B" in name)]
    save_file(weights, folder / ADAPTER_WEIGHTS)


def rename_a_key(folder: Path) -> None:
    weights = {name: value.clone() for name, value in load_file(folder / ADAPTER_WEIGHTS).items()}
    name = next(name for name in weights if "lora_B" in name)
    weights[name.replace("layers.0", "layers.99")] = weights.pop(name)
    save_file(weights, folder / ADAPTER_WEIGHTS)


@pytest.mark.parametrize("damage", [drop_a_key, rename_a_key])
def test_a_key_that_does_not_land_is_an_error(make: Make, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """PEFT itself would only warn."""
    made = make(LORA)
    with pytest.raises(ModelError, match="has no place in the model, or no value in the adapter"):
        export_peft(made.recipe, made.run, tmp_path / "peft", InThisProcess(before=damage))
    assert not (tmp_path / "peft").exists()


def test_an_adapter_that_gives_other_text_is_refused(make: Make, tmp_path: Path) -> None:
    def halve(folder: Path) -> None:
        weights = {name: value / 2 for name, value in load_file(folder / ADAPTER_WEIGHTS).items()}
        save_file(weights, folder / ADAPTER_WEIGHTS)

    made = make(LORA)
    with pytest.raises(ModelError, match="differs from the trained model"):
        export_peft(made.recipe, made.run, tmp_path / "peft", InThisProcess(before=halve))


def test_files_of_the_user_are_not_deleted(make: Make, tmp_path: Path) -> None:
    made = make(LORA)
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "notes.txt").touch()
    for export in (export_peft, export_vllm_lora):
        with pytest.raises(CheckpointError, match=r"notes\.txt was not written by an export"):
            export(made.recipe, made.run, tmp_path / "peft")


def test_the_base_is_named_with_its_commit() -> None:
    """The folder of a hub model in the cache is named by its commit."""
    recipe = Recipe.model_validate(
        {"name": "x", "model": {"base": "ibm-granite/granite-4.0-1b-speech"}, "data": {"train": ["x"], "test": ["x"]}}
    )
    snapshot = Path("/cache/models--ibm-granite--granite-4.0-1b-speech/snapshots/6c0b1f")
    assert base_name(recipe, snapshot) == ("ibm-granite/granite-4.0-1b-speech", "6c0b1f")


@pytest.mark.parametrize("variant", ["lora", "rslora"])
def test_vllm_gets_its_own_names_a_plain_list_and_its_rank(make: Make, tmp_path: Path, variant: str) -> None:
    made = make(replace(LORA, lora=LoraSpec(4, 8.0, 0.0, variant, ALL)))
    export_vllm_lora(made.recipe, made.run, tmp_path / "lora")
    weights, trained = load_file(tmp_path / "lora" / ADAPTER_WEIGHTS), read_adapter(made.run.best).lora
    prefix = "base_model.model.language_model.model.layers."
    assert all(name.startswith(prefix) for name in weights) and len(weights) == len(trained) == 2 * 7 * 5
    for name, value in trained.items():
        layer = name.removeprefix("base_model.model.model.language_model.layers.")
        assert torch.equal(weights[prefix + layer], value), name
    config = PeftConfig.from_pretrained(str(tmp_path / "lora"))
    stored = json.loads((tmp_path / "lora" / ADAPTER_CONFIG).read_text())
    assert stored["target_modules"] == sorted(ALL) and isinstance(stored["target_modules"], list)
    assert (config.r, config.lora_alpha, config.use_rslora) == (4, 8, variant == "rslora")
    assert (config.modules_to_save, config.rank_pattern, config.bias) == (None, {}, "none")
    assert "--max-lora-rank 8 " in (tmp_path / "lora" / "README.md").read_text()


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (CASES["all parts"], "ctc_head, encoder, language_model, lm_head, projector trained too"),
        (CASES["rslora everywhere"], "encoder, projector trained too"),
        (CASES["lora in the encoder alone"], "encoder trained too"),
        (CASES["no lora"], "projector trained too"),
        (replace(LORA, lora=LoraSpec(4, 8.0, 0.0, "dora", ALL)), "vLLM has no DoRA"),
        (replace(LORA, lora=LoraSpec(513, 8.0, 0.0, "lora", ["q_proj"])), "rank 513, but vLLM serves ranks up to 512"),
    ],
    ids=["full parts", "lora elsewhere", "encoder", "no lora", "dora", "rank"],
)
def test_what_vllm_cannot_serve_is_refused(make: Make, tmp_path: Path, parts: TrainableParts, reason: str) -> None:
    made = make(parts)
    with pytest.raises(ModelError, match=reason):
        export_vllm_lora(made.recipe, made.run, tmp_path / "lora")
    assert not (tmp_path / "lora").exists() and not (tmp_path / "lora.part").exists()


def test_an_adapter_of_another_base_is_refused(make: Make) -> None:
    """Keys without a place, places without a key, other shapes."""
    made = make(CASES["all parts"])
    lora, full = read_adapter(made.run.best).lora, read_adapter(made.run.best).full
    first, whole = next(iter(lora)), next(iter(full))
    for changed_lora, changed_full in (
        ({**lora, first.replace("layers.0", "layers.9"): lora[first]}, full),
        ({name: value for name, value in lora.items() if name != first}, full),
        (lora, {**full, "model.projector.nothing": torch.zeros(2)}),
        (lora, {**full, whole: torch.zeros(1)}),
    ):
        for content, path in ((changed_lora, LORA_WEIGHTS), (changed_full, FULL_WEIGHTS)):
            save_file({name: value.clone() for name, value in content.items()}, made.run.best / path)
        (made.run.best / PARTS).write_text(json.dumps(adapter._digests(made.run.best)))
        with pytest.raises(CheckpointError, match="base model"):
            TrainedWeights.of_run(made.recipe, made.run.best, Path(made.recipe.model.base))


def test_the_command_names_the_reason_of_a_refusal(
    trained: tuple[Recipe, RunDir, SpeechModel], finetune: Command, tmp_path: Path
) -> None:
    run = RunDir(shutil.copytree(trained[1].root, tmp_path / trained[0].name))
    before = run.done("export")
    result = finetune("export", run.resolved, "--format", "vllm-lora", "--set", f"runs={tmp_path}")
    assert result.code == 1 and "ctc_head, encoder, projector trained too" in result.err
    assert not run.exported("vllm-lora").exists() and run.done("export") == before


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"projector": {"mode": "full"}, "lm_head": {"mode": "full"}}, "lm_head, projector trained too"),
        ({"lora": {"rank": 0}, "language_model": {"layers": 2}}, "language_model trained too"),
        ({"lora": {"variant": "dora"}}, "vLLM has no DoRA"),
        ({"lora": {"rank": 513}}, "rank 513, but vLLM serves"),
    ],
)
def test_what_vllm_cannot_serve_is_refused_before_the_training(
    nano: Path, tmp_path: Path, parts: dict[str, dict[str, object]], reason: str
) -> None:
    content = {"name": "run", "runs": str(tmp_path), "model": {"base": str(nano)}, "parts": parts}
    recipe = Recipe.model_validate({**content, "data": {"train": ["x"], "valid": ["x"], "test": ["x"]}})
    with pytest.raises(ModelError, match=reason):
        partial_runs.export_adapter(recipe, "vllm-lora")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_writes_an_adapter_and_verifies_it_in_a_new_process(
    trained: tuple[Recipe, RunDir, SpeechModel], finetune: Command, tmp_path: Path
) -> None:
    recipe, run = trained[0], RunDir(shutil.copytree(trained[1].root, tmp_path / trained[0].name))
    done = finetune("export", run.resolved, "--format", "peft", "--verify", "peft", "--set", f"runs={tmp_path}")
    assert "format peft: 3 of 3 texts equal" in done.out, (done.out, done.err)
    PeftModel.from_pretrained(
        GraniteSpeechForConditionalGeneration.from_pretrained(recipe.model.base), str(run.exported("peft"))
    )
