"""Keywords in a manifest, for a model that was not trained with them: commands that put them into prompts warn."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.core.config import Recipe
from tests.command import Command
from tests.conftest import embedded

WARNING = "this model was not trained with keyword prompts"


@pytest.mark.parametrize("keywords", [["park"], []])
@pytest.mark.parametrize("command", ["check", "score", "score by ctc", "compare"])
def test_a_command_warns_about_keywords_that_the_model_does_not_know(
    finetune: Command, tiny: Callable[..., Recipe], nano: Path, tmp_path: Path, command: str, keywords: list[str]
) -> None:
    (clip,) = embedded("canary", 1)
    manifest = tmp_path / "spoken.jsonl"
    row = {"id": clip.id, "audio_filepath": clip.audio_filepath, "text": clip.text, "duration": clip.duration}
    manifest.write_text(json.dumps({**row, "keywords": keywords}) + "\n")
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(tiny(tmp_path / "runs", "tiny").model_dump_json(exclude_none=True))
    (tmp_path / "other.csv").write_text(f"id,pred_text\n{clip.id},park\n")
    arguments = {
        "check": [str(recipe), "--set", f"data.test={manifest}"],
        "score": [str(recipe), "--set", f"data.test={manifest}"],
        "score by ctc": [str(recipe), "--set", f"data.test={manifest}", "--set", "decode.keyword_method=ctc"],
        "compare": [str(nano), str(tmp_path / "other.csv"), "--manifest", str(manifest)],
    }
    result = finetune(command.split()[0], *arguments[command])
    assert result.code == 0, result.err
    prompted = bool(keywords) and command in ("check", "score")  # compare uses the options of the model
    assert (result.out + result.err).count(WARNING) == prompted
