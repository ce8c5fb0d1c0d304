"""Parameter counts of `finetune check`, computed without weights."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from trainable_cases import ALL, CASES, FULL, LORA, Load
from transformers import GraniteSpeechConfig

from finetune.core.errors import ModelError
from finetune.model.granite import on_meta
from finetune.model.model_summary import count_parts, find_weights, open_without_weights
from finetune.model.trainable import LoraSpec, PartSummary, open_parts, summarize_parts


@pytest.mark.parametrize("case", CASES)
def test_summary_counts_the_trainable_parts(model: Load, nano: Path, case: str) -> None:
    granite = model()
    open_parts(granite, CASES[case])
    text = "\n".join(open_without_weights(str(nano), None, CASES[case])[1].lines())
    rows = re.findall(r"^(\w+) +([\d,]+) parameters  in (\d+) tensors? of (\d+) modules?$", text, re.M)
    assert [
        PartSummary(part, int(modules), int(tensors), int(count.replace(",", "")))
        for part, count, tensors, modules in rows
    ] == summarize_parts(granite)


def test_real_model_has_280_layers_for_the_default_lora() -> None:
    """Counts of ibm-granite/granite-4.0-1b-speech from its configuration alone."""
    folder = Path(__file__).resolve().parents[1] / "fixtures" / "granite-4.0-1b-speech"
    granite = on_meta(GraniteSpeechConfig.from_pretrained(folder), "meta")
    assert count_parts(granite) == {
        "encoder": 440_168_796,
        "projector": 35_697_664,
        "language model": 1_631_752_192,
        "lm_head": 205_522_944,
    }
    with torch.device("meta"):
        open_parts(granite, replace(LORA, lora=LoraSpec(16, 32.0, 0.0, "lora", ALL), projector=FULL))
    assert summarize_parts(granite)[-1] == PartSummary("lora", 280, 560, 20_316_160)
    assert summarize_parts(granite)[0].parameters == 35_697_664


def test_a_base_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nobody/nothing: no such folder, and no such model in the local cache"):
        open_without_weights("nobody/nothing", None, LORA)
    with pytest.raises(ModelError, match="no config.json in this folder"):
        open_without_weights(str(tmp_path), None, LORA)


def test_wrong_path_below_an_existing_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "granite-speech-nano").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="did you mean data/granite-speech-nano"):
        open_without_weights("data/granite-speech-nono", None, LORA)


def cached_model(cache: Path, nano: Path, files: list[str]) -> None:
    """Files of the embedded model in a cache of the hub, as `org/name`."""
    snapshot = cache / "models--org--name" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0" * 40)
    for name in files:
        if (nano / name).is_file():
            (snapshot / name).symlink_to(nano / name)
        else:
            (snapshot / name).write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))


def test_the_weights_of_a_hub_name_are_looked_up_in_the_cache(nano: Path, tmp_path: Path) -> None:
    one, none, shards = (tmp_path / name for name in ("one", "none", "shards"))
    cached_model(one, nano, ["config.json", "model.safetensors"])
    cached_model(none, nano, ["config.json"])
    cached_model(shards, nano, ["config.json", "model.safetensors.index.json"])
    assert find_weights("org/name", None, one) == "configuration and 1 weight file are in the local cache"
    for cache in (none, shards):  # the shards are missing
        with pytest.raises(ModelError, match=r"org/name: its weights are not in the local cache.*HF_HUB_OFFLINE"):
            find_weights("org/name", None, cache)
