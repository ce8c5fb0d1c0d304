"""`finetune check` refuses what `train` would refuse, and states steps, batches, hours and a time estimate."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Command

from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.core.files import read_json, write_json
from finetune.core.run_dir import RunDir
from finetune.data.expected import expected_utterances
from finetune.data.manifest import read_manifest
from finetune.model.granite import SpeechModel
from finetune.training.preview import preview_training, processes_line, time_line

Tiny = Callable[..., Recipe]
Trained = tuple[Recipe, RunDir, SpeechModel]


@pytest.fixture
def recipe(tiny: Tiny, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny(tmp_path / "runs", "tiny").model_dump_json(exclude_none=True))  # JSON is YAML
    return path


def test_check_states_the_steps_and_hours_that_train_has(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    processes, steps, audio, time = preview_training(tiny(tmp_path, "new"))
    done = trained[1].done("train") or {}
    seconds = 2 * sum(item.duration for item in read_manifest(trained[1].manifest("train")))
    assert processes == "processes  1 on the CPU"
    assert re.fullmatch(rf"steps      {done['steps']} in 2 epochs, \d+ batches of up to 5 s", steps)
    assert audio.startswith(f"audio      {seconds / 3600:.2f} h in all epochs, longest clip ")
    assert time == "time       unknown until the first steps: no run with this base and these parts has finished here"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.batch_seconds=0.9"], r"train\.batch_seconds: 0\.9 is too small for .*; raise it, or lower data\."),
        (
            ["train.batch_tokens=64", "model.instruction=" + "what is said here " * 20],
            r"train\.batch_tokens: 64 is too",
        ),
        (["model.quantize=4bit"], r"model\.quantize: 4bit needs a CUDA GPU"),
        (["parts.lora.modules=[q_proj, qkv]"], r"parts\.lora\.modules: \['qkv'\] do not exist"),
        (
            ["model.base=nobody/nothing"],
            r"nobody/nothing: config.json: not a folder here, and neither in the local cache nor on the hub",
        ),
    ],
)
def test_check_refuses_what_train_refuses(finetune: Command, recipe: Path, overrides: list[str], message: str) -> None:
    result = finetune("check", recipe, *[part for override in overrides for part in ("--set", override)])
    assert result.code == 1 and re.search(message, result.err), result.err


@pytest.mark.parametrize("override", ["machine.cache_encoder=true", "augment.concat=0.5", "data.min_duration=9"])
def test_contradictions_are_refused_before_anything_is_read(finetune: Command, recipe: Path, override: str) -> None:
    """Augmentation with the cache; clips of up to max_duration in smaller batches; no duration that is allowed."""
    assert finetune("check", recipe, "--set", override, "--set", "train.batch_seconds=3").code == 2


def test_batches_need_to_hold_the_longest_clip_and_not_max_duration(finetune: Command, recipe: Path) -> None:
    result = finetune("check", recipe, "--set", "data.max_duration=30")
    assert result.code == 0 and "batches of up to 5 s" in result.out


def test_durations_come_from_columns_and_headers(tiny: Tiny, tmp_path: Path, corpora: dict[str, str]) -> None:
    rows = [json.loads(line) for line in Path(corpora["train"]).read_text().splitlines()]
    true = [row.pop("duration") for row in rows]
    rows[1]["duration"], rows[2]["audio_filepath"] = 3.5, str(tmp_path / "gone.wav")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = tiny(tmp_path, "x").data.model_copy(update={"train": [str(tmp_path / "train.jsonl")]})
    found = expected_utterances(data, "train")
    assert found is not None and found[0].text == rows[0]["text"]
    assert [item.duration for item in found] == pytest.approx([true[0], 3.5, *true[3:]], abs=0.01)
    assert expected_utterances(data.model_copy(update={"train": ["hf:org/name:train"]}), "train") is None
    with pytest.raises(DataError, match="no such file"):
        expected_utterances(data.model_copy(update={"train": ["gone.jsonl"]}), "train")


@pytest.mark.parametrize(
    ("wanted", "gpus", "line"),
    [
        (0, 0, "1 on the CPU"),
        (3, 0, "3 on the CPU"),
        (0, 2, "2 on 2 GPUs"),
        (4, 2, "2 on 2 GPUs; machine.processes is 4"),
    ],
)
def test_more_processes_than_gpus_are_named(tiny: Tiny, tmp_path: Path, wanted: int, gpus: int, line: str) -> None:
    assert processes_line(tiny(tmp_path, "x", machine={"processes": wanted}), gpus) == line


def test_the_time_is_that_of_a_run_with_the_same_base_and_parts(tiny: Tiny, tmp_path: Path, trained: Trained) -> None:
    """Records of other runs that are damaged are ignored."""
    for name, content in (("a", "{"), ("b", "[]"), ("c", '{"clips_per_second": "fast"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.done.json").write_text(content)
    assert "unknown" in time_line(tiny(tmp_path, "x"), 10)
    (tmp_path / "d").mkdir()
    write_json(tmp_path / "d" / "train.done.json", {"clips_per_second": 5.0})
    write_json(tmp_path / "d" / "resolved.json", read_json(trained[1].resolved))
    expected = f"about 0:00:20 for the steps, without validation (5 clips/s in {tmp_path / 'd'})"
    assert time_line(tiny(tmp_path, "x"), 100) == expected
    assert "unknown" in time_line(tiny(tmp_path, "x", parts={"lora": {"rank": 4}}), 100)
