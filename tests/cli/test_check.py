"""`finetune check` states steps, batches, hours and time as `train` has them, as text and as JSON."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Command
from pydantic import TypeAdapter

from finetune.core.config import Recipe
from finetune.core.files import read_json, write_json
from finetune.core.run_dir import RunDir
from finetune.data.manifest import read_manifest
from finetune.model.granite import SpeechModel
from finetune.planning.machine import processes_text
from finetune.planning.result import CheckResult
from finetune.planning.speed import time_from_runs

Tiny = Callable[..., Recipe]
Trained = tuple[Recipe, RunDir, SpeechModel]


@pytest.fixture
def recipe(tiny: Tiny, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny(tmp_path / "runs", "tiny").model_dump_json(exclude_none=True))  # JSON is YAML
    return path


def test_check_states_the_steps_and_hours_that_train_has(finetune: Command, recipe: Path, trained: Trained) -> None:
    result = finetune("check", recipe)
    done = trained[1].done("train") or {}
    seconds = 2 * sum(item.duration for item in read_manifest(trained[1].manifest("train")))
    assert result.code == 0 and re.search(r"^processes   1 on the CPU$", result.out, re.M)
    steps = rf"^steps       {done['steps']} in 2 epochs \(\d+ an epoch\), \d+ batches of up to 5 s$"
    assert re.search(steps, result.out, re.M)
    assert seconds < 60 and f"audio       {round(seconds)} seconds in all epochs, longest clip " in result.out
    assert f"padding     {100 * done['padding']:.1f} % of the padded audio" in result.out
    assert "time        unknown until the first steps: no run with this base and these parts" in result.out


def test_json_has_what_the_text_says(finetune: Command, recipe: Path) -> None:
    text, printed = finetune("check", recipe), finetune("check", recipe, "--json")
    content = json.loads(printed.out)
    assert TypeAdapter(CheckResult).validate_json(printed.out).model is not None
    assert text.code == printed.code == 0 and content["schema_version"] == 1
    assert f"steps       {content['steps']['steps']} in " in text.out
    assert all(f"hint: {hint}" in text.out for hint in content["hints"]) and content["hints"]
    assert {row["key"]: row["origin"] for row in content["settings"]}["seed"].endswith(":1")
    assert content["model"]["parts"]["lm_head"] == 196_608 and content["splits"]["train"]["rows"] == 6
    assert [plan["device"] for plan in content["memory"]] == ["cpu", "cuda"] and content["disk"]["least"] > 15e6


def test_json_has_the_problems_too(finetune: Command, recipe: Path) -> None:
    result = finetune("check", recipe, "--json", "--set", "train.batch_seconds=0.9")
    (problem,) = json.loads(result.out)["problems"]
    assert result.code == 1 and problem in result.err and problem.startswith("train.batch_seconds: 0.9 is too small")


@pytest.mark.parametrize("override", ["machine.cache_encoder=true", "augment.concat=0.5", "data.min_duration=9"])
def test_contradictions_are_refused_before_anything_is_read(finetune: Command, recipe: Path, override: str) -> None:
    """Augmentation with the cache; clips of up to max_duration in smaller batches; no duration that is allowed."""
    assert finetune("check", recipe, "--set", override, "--set", "train.batch_seconds=3").code == 2


def test_batches_need_to_hold_the_longest_clip_and_not_max_duration(finetune: Command, recipe: Path) -> None:
    result = finetune("check", recipe, "--set", "data.max_duration=30")
    assert result.code == 0 and "batches of up to 5 s" in result.out


def test_without_a_training_there_is_no_plan(finetune: Command, recipe: Path) -> None:
    result = finetune("check", recipe, "--set", "data.train=", "--set", "data.valid=")
    assert result.code == 0 and "data.train is empty: this recipe is for `finetune score`" in result.out
    assert "training:" not in result.out and "hint:" not in result.out


def test_a_corpus_that_only_prepare_opens_leaves_the_steps_unknown(finetune: Command, recipe: Path) -> None:
    result = finetune("check", recipe, "--set", "data.train=hf:org/name:train")
    assert result.code == 0 and "steps       unknown: `finetune prepare` has not read data.train yet" in result.out


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_corpus_that_cannot_be_read_leaves_the_steps_unknown(finetune: Command, recipe: Path, split: str) -> None:
    result = finetune("check", recipe, "--set", f"data.{split}=gone.jsonl")
    assert result.code == 1 and f"steps       unknown: data.{split} cannot be read" in result.out
    assert result.err.count("gone.jsonl: no such file") == 1


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
    assert processes_text(tiny(tmp_path, "x", machine={"processes": wanted}), gpus) == line


def test_the_time_is_that_of_a_run_with_the_same_base_and_parts(tiny: Tiny, tmp_path: Path, trained: Trained) -> None:
    """Records of other runs that are damaged are ignored."""
    for name, content in (("a", "{"), ("b", "[]"), ("c", '{"clips_per_second": "fast"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.done.json").write_text(content)
    assert time_from_runs(tiny(tmp_path, "x"), 10).steps is None
    (tmp_path / "d").mkdir()
    write_json(tmp_path / "d" / "train.done.json", {"clips_per_second": 5.0})
    write_json(tmp_path / "d" / "resolved.json", read_json(trained[1].resolved))
    known = time_from_runs(tiny(tmp_path, "x"), 100)
    assert (known.steps, known.source) == (20, f"5 clips/s in {tmp_path / 'd'}")
    assert time_from_runs(tiny(tmp_path, "x", parts={"lora": {"rank": 4}}), 100).steps is None


def test_measure_runs_steps_and_saves_nothing(finetune: Command, recipe: Path, tmp_path: Path) -> None:
    result = finetune("check", recipe, "--measure")
    assert result.code == 0, result.err
    assert re.search(
        r"^time        about 0:00:\d\d for the steps, and 0:0\d:\d\d for validation \(measured on cpu: ",
        result.out,
        re.M,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.yaml"]
