"""A model that is stored in bfloat16 and computes in float32 gives the results of a model loaded in float32."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import INSTRUCTION
from trainable_cases import ctc_logits, logits
from transformers import GraniteSpeechForConditionalGeneration

from finetune.core.errors import ModelError
from finetune.core.options import DecodingOptions
from finetune.data.manifest import Utterance
from finetune.inference.recognize import recognize
from finetune.model.float32 import compute_in_float32, load_as_stored, load_for_inference
from finetune.model.granite import load_model


def test_results_are_those_of_float32_bit_for_bit(narrow: Path, clips: list[Utterance]) -> None:
    wide, stored = load_model(str(narrow), "float32"), load_as_stored(str(narrow), narrow)
    compute_in_float32(stored)
    floats = [value for value in stored.hf.parameters() if value.is_floating_point()]
    assert floats and {value.dtype for value in floats} == {torch.bfloat16}, "half of the memory"
    assert torch.equal(logits(stored, clips), logits(wide, clips))
    assert torch.equal(ctc_logits(stored, clips), ctc_logits(wide, clips))
    options = replace(DecodingOptions(), decoder="speculative", max_new_tokens=6)
    ours, theirs = (recognize(model, clips[:2], "transcribe", options) for model in (stored, wide))
    assert [(row.tokens, row.log_probability) for row in ours] == [(row.tokens, row.log_probability) for row in theirs]


def test_float32_from_bfloat16_files_is_that_of_transformers_without_mapped_files(narrow: Path, tmp_path: Path) -> None:
    folder, maps = shutil.copytree(narrow, tmp_path / "copy"), Path("/proc/self/maps")
    ours = load_model(str(folder), "float32").hf
    assert not maps.exists() or str(folder) not in maps.read_text(), "pages of the files are released"
    theirs = GraniteSpeechForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    assert ours.config.to_dict() == theirs.config.to_dict()
    for one, other in ((ours.named_parameters, theirs.named_parameters), (ours.named_buffers, theirs.named_buffers)):
        expected = dict(other())
        for name, value in one():
            assert value.dtype == expected[name].dtype and torch.equal(value, expected.pop(name)), name
        assert not expected


def test_a_folder_with_one_float32_weight_is_loaded_in_float32(narrow: Path, nano: Path) -> None:
    assert {value.dtype for value in load_as_stored(str(nano), nano).hf.parameters()} == {torch.float32}
    assert load_as_stored(str(narrow), narrow).lm_head.weight.dtype == torch.bfloat16


def test_inference_keeps_bfloat16_files_and_gives_the_text_of_float32(
    narrow: Path, clips: list[Utterance], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    loaded = load_for_inference(str(narrow), "auto", "cpu", native=lambda: False)
    assert {value.dtype for value in loaded.hf.parameters()} == {torch.bfloat16}
    assert loaded.encoder.input_linear.weight.dtype == torch.float32
    assert "no bfloat16 instructions" in caplog.text
    wide = load_model(str(narrow), "float32")
    options = DecodingOptions(max_new_tokens=6)
    texts = [[item.tokens for item in recognize(one, clips[:3], INSTRUCTION, options)] for one in (loaded, wide)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(("native", "computes"), [(True, torch.bfloat16), (False, torch.float32)])
def test_bfloat16_is_computed_only_where_the_processor_can(
    narrow: Path, native: bool, computes: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    loaded = load_for_inference(str(narrow), "bfloat16", "cpu", native=lambda: native)
    assert {value.dtype for value in loaded.hf.parameters()} == {torch.bfloat16}
    assert loaded.encoder.input_linear.weight.dtype == computes
    assert ("emulates bfloat16" in caplog.text) is not native


def test_float32_is_loaded_as_before(narrow: Path, nano: Path) -> None:
    """Files in float32, or `model.dtype: float32`; an adapter is told whether to keep its float32 parameters."""
    told = list[bool]()
    for folder, dtype in ((nano, "auto"), (narrow, "float32"), (narrow, "auto")):
        model = load_for_inference(str(folder), dtype, "cpu", adapt=lambda _, keep: told.append(keep))
        assert model.encoder.input_linear.weight.dtype == torch.float32
    assert told == [False, False, True]


def test_a_folder_without_weights_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        load_for_inference(str(tmp_path), "auto", "cpu")


def test_the_best_adapter_of_a_run_is_named_as_what_it_is(tmp_path: Path) -> None:
    """The hint to the export comes before any look at the weights."""
    best = tmp_path / "run" / "best"
    (tmp_path / "run" / "export").mkdir(parents=True)
    (tmp_path / "run" / "export" / "config.json").touch()
    best.mkdir()
    (best / "lora.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="did you mean .*export"):
        load_for_inference(str(best), "auto", "cpu")
