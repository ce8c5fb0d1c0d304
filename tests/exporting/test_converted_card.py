"""The card of files that were made from a merged export: GGUF and ONNX."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from report_facts import recipe

from finetune.core.errors import ModelError
from finetune.core.model_limits import ModelLimits
from finetune.core.run_dir import RunDir
from finetune.exporting.adaptation import Adaptation
from finetune.exporting.card.model_card import CardFormat
from finetune.exporting.card.usage import engine_section
from finetune.exporting.card.write import CRISPASR_CARD, GGUF_CARD, ONNX_CARD, write_converted_card
from finetune.exporting.engine_checks import EngineCheck
from finetune.exporting.peft_format import USAGE as PEFT_USAGE
from finetune.exporting.vllm_format import USAGE as VLLM_USAGE

CHECK = EngineCheck(versions={}, format="hf", clips=1, equal=1, wer=0, toolkit_wer=0)
HUB = "ibm-granite/granite-4.0-1b-speech"


def card(nano: Path, tmp_path: Path, base: str, form: CardFormat, instruction: str = "write", kind: str = "") -> str:
    """The card beside an export whose base is `base`; `kind` is another model type."""
    run, folder = RunDir(tmp_path / "run"), tmp_path / "converted"
    shutil.copytree(nano, run.export)
    values = {"base": base, "instruction": instruction}
    settings = recipe().model_copy(update={"model": recipe().model.model_copy(update=values)})
    if kind:
        config = json.loads((run.export / "config.json").read_text())
        (run.export / "config.json").write_text(json.dumps({**config, "model_type": kind}))
    Adaptation.of_run(settings, run, ModelLimits()).write(run.export)
    folder.mkdir()
    write_converted_card(folder, run, form)
    return (folder / "README.md").read_text()


@pytest.mark.parametrize("form", [GGUF_CARD, CRISPASR_CARD, ONNX_CARD], ids=["gguf", "crispasr", "onnx"])
def test_the_base_on_the_hub(nano: Path, tmp_path: Path, form: CardFormat) -> None:
    """The files are of a model that was trained from the base: the hub must not list them as the base, quantized."""
    text = card(nano, tmp_path, HUB, form)
    header = yaml.safe_load(text.split("---\n")[1])
    assert (header["base_model"], header["base_model_relation"]) == (HUB, "finetune")
    assert f"- Base model: `{HUB}`; licence: apache-2.0." in text


def test_a_base_folder_that_was_deleted(nano: Path, tmp_path: Path) -> None:
    text = card(nano, tmp_path, "/srv/gone/my-base", GGUF_CARD)
    assert "- Base model: `my-base`;" in text and "huggingface.co" not in text
    assert "base_model" not in yaml.safe_load(text.split("---\n")[1])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "Input should be a valid dictionary"),
        ('{"schema_version": 2}', "schema_version: Input should be 1"),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, content: str, reason: str) -> None:
    run = RunDir(tmp_path)
    run.export.mkdir()
    (run.export / "adaptation.json").write_text(content)
    start = re.escape(f"{run.export / 'adaptation.json'}: damaged, or of another version ({reason}")
    with pytest.raises(ModelError, match=start):
        write_converted_card(tmp_path / "converted", run, GGUF_CARD)


@pytest.mark.parametrize(
    "instruction", ["write", "l'énoncé", 'say "x"', "cost in $US `now`", 'what\'s \\n "it" to $me!']
)
def test_a_shell_passes_the_instruction_on(nano: Path, tmp_path: Path, instruction: str) -> None:
    text = card(nano, tmp_path, HUB, GGUF_CARD, instruction)
    (command,) = [line for line in text.splitlines() if line.startswith("llama-mtmd-cli")]
    assert shlex.split(command)[-1] == instruction
    engines = engine_section({"llamacpp": CHECK, "mlx": CHECK}, instruction, 200)
    (command,) = [line for line in engines.splitlines() if line.startswith("llama-mtmd-cli")]
    assert shlex.split(command)[-1] == instruction
    assert f"prompt={json.dumps(instruction, ensure_ascii=False)}, max_tokens=200" in engines


def test_no_card_states_another_prompt_than_its_section(nano: Path, tmp_path: Path) -> None:
    """The plus model has a space between the audio and the instruction."""
    text = card(nano, tmp_path, HUB, ONNX_CARD, kind="granite_speech_plus")
    assert "`<|audio|> write`" in text and "<|audio|>write" not in text
    for usage in (PEFT_USAGE, VLLM_USAGE):
        assert "<|audio|>" not in usage and "{prompt_above}" in usage
