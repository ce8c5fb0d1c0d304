"""Adapters: saving, loading and merging keep the trained weights; damaged and wrong files are refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from trainable_cases import CASES, FULL, LORA, ctc_logits, logits, merge, perturb

from finetune.core.errors import CheckpointError
from finetune.data.manifest import Utterance
from finetune.model import adapter
from finetune.model.adapter import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    FULL_WEIGHTS,
    LORA_CONFIG,
    LORA_WEIGHTS,
    NOTE,
    PARTS,
    load_adapter,
    save_adapter,
    write_tensors,
)
from finetune.model.granite import SpeechModel, load_model
from finetune.model.trainable import TrainableParts, open_parts, part_of

Load = Callable[[], SpeechModel]
LORA_AND_FULL = replace(LORA, projector=FULL)


def opened_and_perturbed(model: SpeechModel, parts: TrainableParts) -> PeftModel | None:
    adapted = open_parts(model, parts)
    perturb(model)
    return adapted


@pytest.mark.filterwarnings("error::UserWarning:peft")
def test_another_spelling_of_the_base_is_no_warning(model: Load, tmp_path: Path) -> None:
    granite = model()
    adapted = opened_and_perturbed(granite, LORA)
    granite.source = "data/granite-speech-nano"
    save_adapter(granite, adapted, tmp_path)
    load_adapter(model(), tmp_path)


def record_digests(folder: Path) -> None:
    """Records the current files as saved files."""
    (folder / PARTS).write_text(json.dumps(adapter._digests(folder)))


@pytest.mark.parametrize("case", CASES)
def test_loaded_adapter_equals_saved_adapter(model: Load, clips: list[Utterance], tmp_path: Path, case: str) -> None:
    granite = model()
    plain = logits(granite, clips)
    adapted = opened_and_perturbed(granite, CASES[case])
    save_adapter(granite, adapted, tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    full = case in ("all parts", "no lora")
    lora = [LORA_CONFIG, LORA_WEIGHTS] if case != "no lora" else []
    assert files == {PARTS, NOTE, *lora, *([FULL_WEIGHTS] if full else ())}
    assert any(value.requires_grad for value in granite.parameters()), "saving freezes no parameter"

    again = model()
    load_adapter(again, tmp_path)
    assert not any(value.requires_grad for value in again.parameters())
    assert not any(module.training for module in again.modules())
    assert not torch.allclose(logits(granite, clips), plain, atol=1e-3), "the perturbation changes the logits"
    assert torch.allclose(logits(again, clips), logits(granite, clips), atol=1e-5)
    assert torch.allclose(ctc_logits(again, clips), ctc_logits(granite, clips), atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_merged_and_saved_model_keeps_the_logits(
    model: Load, clips: list[Utterance], tmp_path: Path, case: str
) -> None:
    granite = model()
    ctc_plain = ctc_logits(granite, clips)
    adapted = opened_and_perturbed(granite, CASES[case])
    before, ctc_before = logits(granite, clips), ctc_logits(granite, clips)
    assert torch.equal(ctc_before, ctc_plain) == (case in ("lora", "no lora")), (
        "LoRA in the encoder changes the CTC logits"
    )
    merge(granite, adapted)
    assert not any("lora_" in name for name, _ in granite.hf.named_parameters())
    assert float((logits(granite, clips) - before).abs().max()) < 1e-4
    assert float((ctc_logits(granite, clips) - ctc_before).abs().max()) < 1e-4
    granite.hf.save_pretrained(tmp_path)
    granite.tokenizer.save_pretrained(tmp_path)
    with safe_open(str(tmp_path / "model.safetensors"), "pt") as weights:
        names = list(weights.keys())
    assert {part_of("model." + name) for name in names} == {
        "encoder",
        "ctc_head",
        "projector",
        "language_model",
        "lm_head",
    }
    assert [name for name in names if "base_layer" in name or "lora" in name] == []
    again = load_model(str(tmp_path), "float32")
    assert float((logits(again, clips) - before).abs().max()) < 1e-4


@pytest.mark.parametrize("parts", [LORA, LORA_AND_FULL], ids=["lora", "with full parts"])
def test_peft_and_vllm_do_not_find_an_adapter(model: Load, tmp_path: Path, parts: TrainableParts) -> None:
    """PEFT would load the LoRA alone, and vLLM would match none of its names; both would write other text."""
    granite = model()
    save_adapter(granite, opened_and_perturbed(granite, parts), tmp_path)
    with pytest.raises(ValueError, match=r"adapter_config\.json"):
        PeftModel.from_pretrained(model().hf, str(tmp_path))
    note = (tmp_path / NOTE).read_text()
    assert f"Base model: `{granite.source}`" in note and "no PEFT adapter and no LoRA for vLLM" in note
    assert "`finetune export RECIPE --format peft`" in note and "`lora.safetensors`" in note
    assert ("`whole.safetensors`: weights trained in full (projector)" in note) == (parts is LORA_AND_FULL)


def test_a_folder_of_version_0_2_is_loaded_with_a_warning(
    model: Load, clips: list[Utterance], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    granite = model()
    save_adapter(granite, opened_and_perturbed(granite, LORA_AND_FULL), tmp_path)
    (tmp_path / LORA_CONFIG).rename(tmp_path / ADAPTER_CONFIG)
    (tmp_path / LORA_WEIGHTS).rename(tmp_path / ADAPTER_WEIGHTS)
    record_digests(tmp_path)
    other = model()
    assert load_adapter(other, tmp_path) is not None
    assert "PEFT loads its LoRA without whole.safetensors" in caplog.text
    assert torch.allclose(logits(other, clips), logits(granite, clips), atol=1e-5)


def test_missing_and_damaged_adapters_are_refused(model: Load, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a complete adapter"):
        load_adapter(model(), tmp_path)
    granite = model()
    save_adapter(granite, opened_and_perturbed(granite, LORA_AND_FULL), tmp_path)
    files = [tmp_path / name for name in (LORA_CONFIG, LORA_WEIGHTS, FULL_WEIGHTS, PARTS)]
    base = model()
    for path in files:
        original = path.read_bytes()
        path.write_bytes(original[: len(original) // 2])
        with pytest.raises(CheckpointError, match="damaged"):
            load_adapter(base, tmp_path)
        path.unlink()  # the other files alone would give another model
        with pytest.raises(CheckpointError):
            load_adapter(base, tmp_path)
        path.write_bytes(original)
    bits = bytearray(files[2].read_bytes())
    bits[-1] ^= 1
    files[2].write_bytes(bits)
    with pytest.raises(CheckpointError, match=r"whole\.safetensors: damaged"):
        load_adapter(base, tmp_path)


def test_saving_removes_files_of_an_older_adapter(model: Load, tmp_path: Path) -> None:
    for parts, exists in ((LORA_AND_FULL, True), (LORA, False)):
        granite = model()
        save_adapter(granite, opened_and_perturbed(granite, parts), tmp_path)
        assert (tmp_path / FULL_WEIGHTS).is_file() == exists
    load_adapter(model(), tmp_path)
    save_file({"model.projector.nothing": torch.zeros(2)}, tmp_path / FULL_WEIGHTS)
    with pytest.raises(CheckpointError, match=r"whole\.safetensors"):
        load_adapter(model(), tmp_path)


def test_adapter_with_other_names_or_shapes_is_refused(model: Load, tmp_path: Path) -> None:
    granite = model()
    save_adapter(granite, opened_and_perturbed(granite, LORA_AND_FULL), tmp_path)
    lora, full = tmp_path / LORA_WEIGHTS, tmp_path / FULL_WEIGHTS
    weights = {name: value.clone() for name, value in load_file(lora).items()}  # not mapped to the file
    first = next(iter(weights))
    for changed in (
        {k: v for k, v in weights.items() if k != first},  # a missing tensor would keep its initial values
        {**weights, "base_model.model.model.language_model.layers.99.x": torch.zeros(2)},
        {**weights, first: weights[first][:1].contiguous()},
    ):
        save_file(changed, lora)
        record_digests(tmp_path)
        with pytest.raises(CheckpointError, match="base model"):
            load_adapter(model(), tmp_path)
    save_file(weights, lora)
    save_file({"model.projector.nothing": torch.zeros(2)}, full)
    record_digests(tmp_path)
    with pytest.raises(CheckpointError, match="does not fit the base model"):
        load_adapter(model(), tmp_path)


def test_other_users_can_read_the_weights(tmp_path: Path) -> None:
    """A server in a container often has another user."""
    write_tensors({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o644
