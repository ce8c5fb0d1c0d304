"""The card of files that were made from a merged export: GGUF and ONNX."""

import shutil
from pathlib import Path

import pytest
import yaml
from report_facts import recipe

from finetune.core.model_limits import ModelLimits
from finetune.core.run_dir import RunDir
from finetune.exporting.adaptation import Adaptation
from finetune.exporting.card.model_card import CardFormat
from finetune.exporting.card.write import GGUF_CARD, ONNX_CARD, write_converted_card

HUB = "ibm-granite/granite-4.0-1b-speech"


def card(nano: Path, tmp_path: Path, base: str, form: CardFormat) -> str:
    """The card beside an export whose base is `base`."""
    run, folder = RunDir(tmp_path / "run"), tmp_path / "converted"
    shutil.copytree(nano, run.export)
    settings = recipe().model_copy(update={"model": recipe().model.model_copy(update={"base": base})})
    Adaptation.of_run(settings, run, ModelLimits()).write(run.export)
    folder.mkdir()
    write_converted_card(folder, run, form)
    return (folder / "README.md").read_text()


@pytest.mark.parametrize("form", [GGUF_CARD, ONNX_CARD], ids=["gguf", "onnx"])
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
