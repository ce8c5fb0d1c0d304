"""The prompt of `finetune verify`: that of the training, for the toolkit and for the engine."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.core.config import Recipe
from finetune.core.errors import ModelError
from finetune.core.model_limits import ModelLimits
from finetune.core.options import DecodingOptions
from finetune.core.prompts import INSTRUCTION
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance
from finetune.exporting.adaptation import FILE, Adaptation
from finetune.exporting.engines.verify import engine_clips, trained_instruction, verify
from finetune.inference.recognize import recognize
from finetune.model.granite import SpeechModel, load_model

OWN = "write it down"
PROMPTS = """#!{python}
import json, sys
request = json.load(open(sys.argv[2]))
rows = [{{"id": clip["id"], "text": clip["prompt"], "seconds": 1}} for clip in request["clips"]]
with open(sys.argv[3], "w") as answer:
    answer.writelines(json.dumps(row) + "\\n" for row in [*rows, {{"peak_memory_bytes": 1, "complete": True}}])
"""


def write_record(folder: Path, nano: Path) -> None:
    data = {"train": ["x"], "valid": ["x"], "test": ["x"]}
    recipe = Recipe.model_validate({"name": "run", "model": {"base": str(nano), "instruction": OWN}, "data": data})
    Adaptation.of_run(recipe, RunDir(folder.parent), ModelLimits()).write(folder)


def test_the_instruction_of_an_export(nano: Path, tmp_path: Path) -> None:
    """Files without a record have that of the merged model of their run."""
    run = RunDir(tmp_path)
    run.export.mkdir()
    gguf = run.exported("gguf")
    assert trained_instruction(run.export, None, merged=True) == INSTRUCTION
    write_record(run.export, nano)
    assert trained_instruction(run.export, None, merged=True) == OWN
    assert trained_instruction(gguf, None, merged=False) == OWN
    assert trained_instruction(tmp_path / "elsewhere" / "gguf", run, merged=False) == OWN
    assert trained_instruction(tmp_path / "base", None, merged=True) == INSTRUCTION, "a base model beside a run"
    (run.export / FILE).write_text("{}")
    with pytest.raises(ModelError, match="damaged, or of another version"):
        trained_instruction(gguf, None, merged=False)


def test_both_sides_get_the_instruction_of_the_training(
    model: Callable[[], SpeechModel], nano: Path, clips: list[Utterance], tmp_path: Path
) -> None:
    folder, python = tmp_path / "export", tmp_path / "python"
    shutil.copytree(nano, folder)
    write_record(folder, nano)
    python.write_text(PROMPTS.format(python=sys.executable))
    python.chmod(0o755)
    (difference,) = verify(folder, "transformers", python, clips[1:2], "F32", 60).differences
    assert f"<|audio|>{OWN}" in difference.engine
    options = DecodingOptions("greedy")
    (ours,) = recognize(load_model(str(nano), "float32"), clips[1:2], OWN, options)
    (other,) = recognize(load_model(str(nano), "float32"), clips[1:2], INSTRUCTION, options)
    assert difference.toolkit == ours.text != other.text
    assert engine_clips(model(), clips[1:2], OWN)[0].request == OWN
