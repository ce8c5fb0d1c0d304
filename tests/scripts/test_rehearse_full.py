"""`scripts/rehearse_full`: its base model, the choice of arithmetic, the stages, the measured costs and the goals."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import GraniteSpeechConfig

from bench.full_size import config_of, write_base
from bench.measured_process import Cost, run_measured
from bench.rehearsal import (
    BATCH,
    FIRST_STEP,
    STOPPED,
    Plan,
    Result,
    Stage,
    arithmetic,
    exit_code,
    markdown,
    rehearse,
    stages,
    step_seconds,
    write_clips,
    write_results,
)
from finetune.core.files import read_json, read_jsonl
from finetune.core.recipe import load_recipe
from finetune.model.granite import load_model, on_meta

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "rehearse_full"
SMALL = Cost(0, 1.0, 1.0, 10**9, 10**9)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    made = Plan(tmp_path / "rehearsal", True, "auto", 9, 2, 4)
    write_clips(made)
    return made


def test_the_base_has_the_real_dimensions() -> None:
    model = on_meta(GraniteSpeechConfig.from_dict(config_of(tiny=False)), "full")
    assert sum(value.numel() for value in model.hf.parameters()) == 2_313_141_596


def test_a_tiny_base_loads_in_bfloat16(tmp_path: Path) -> None:
    """All its tensors come from the files, with the names of the hub, and no matrix is constant."""
    count = write_base(tmp_path / "base", tiny=True)
    (weights,) = (tmp_path / "base").glob("*.safetensors")
    with safe_open(weights, "pt") as file:
        names = set(file.keys())
        assert {file.get_slice(name).get_dtype() for name in names} == {"BF16", "I64"}
    assert "language_model.lm_head.weight" in names and "encoder.input_linear.weight" in names
    model = load_model(str(tmp_path / "base"), "float32")
    assert sum(value.numel() for value in model.hf.parameters()) == count < 2_000_000
    assert all(value.std() > 0.01 for value in model.hf.parameters() if value.ndim == 2)
    assert torch.isfinite(model.lm_head.weight).all()


@pytest.mark.parametrize(
    ("cuda", "native", "dtype", "word"),
    [
        (True, False, "auto", "GPU"),
        (True, True, "auto", "GPU"),
        (False, True, "bfloat16", "has instructions"),
        (False, False, "auto", "emulates"),
    ],
)
def test_the_arithmetic_is_what_the_processor_does_well(cuda: bool, native: bool, dtype: str, word: str) -> None:
    chosen, reason = arithmetic(cuda, native)
    assert chosen == dtype and word in reason


def test_the_recipe_is_the_real_one_with_steps_of_four_clips(plan: Plan) -> None:
    commands = {stage.name: stage.command for stage in stages(plan, "script")}
    command = commands["prepare"]
    assert command[3:5] == ["prepare", str(SCRIPT.parents[1] / "recipes" / "granite_1b.yaml")]
    recipe, _ = load_recipe(command[4], command[6::2])
    longest = max(row["duration"] for row in read_jsonl(plan.manifest("train")))
    assert BATCH * longest <= recipe.train.batch_seconds < (BATCH + 1) * longest
    assert recipe.parts.projector.mode == "full" and recipe.machine.gradient_checkpointing
    assert recipe.decode.max_new_tokens == 4 and recipe.export.clips == 2
    assert all(command[4:] == commands[name][4:] for name in ("evaluate", "export"))


def test_training_is_stopped_after_its_first_step_and_resumed(plan: Plan) -> None:
    train = [stage for stage in stages(plan, "script") if "train" in stage.command]
    assert [(stage.code, stage.stop_at) for stage in train] == [(STOPPED, FIRST_STEP), (0, None)]
    assert train[0].command == train[1].command


def test_clips_are_embedded_ones_near_the_stated_duration(plan: Plan) -> None:
    for split, count in (("train", 9), ("valid", 2), ("test", 2)):
        rows = read_jsonl(plan.manifest(split))
        assert len(rows) == count and all(abs(row["duration"] - 2.3) < 0.2 for row in rows)
        assert all(Path(row["audio_filepath"]).is_file() for row in rows)


def test_the_cost_includes_child_processes(tmp_path: Path) -> None:
    child = "import time; x = b'x' * 150_000_000; time.sleep(0.6)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    cost = run_measured([sys.executable, "-c", parent], tmp_path / "log")
    assert cost.code == 0 and cost.seconds > 0.5 and cost.cpu_seconds > 0
    assert 150e6 < cost.largest < cost.resident < 400e6


def test_a_command_is_stopped_at_a_text(tmp_path: Path) -> None:
    program = "import time; print('now', flush=True); time.sleep(60)"
    cost = run_measured([sys.executable, "-c", program], tmp_path / "log", "now")
    assert cost.code == -15 and cost.seconds < 30


def test_the_rehearsal_ends_at_a_failed_stage(plan: Plan) -> None:
    printed = list[str]()
    python = [sys.executable, "-c"]
    planned = [
        Stage("one", [*python, "raise SystemExit(3)"], 3),
        Stage("two", [*python, "raise SystemExit('no memory left')"]),
        Stage("three", [*python, ""]),
    ]
    result = rehearse(plan, planned, {}, printed.append)
    assert list(result.stages) == ["one", "two"] and result.failed == "two"
    assert "no memory left" in printed[-1] and exit_code(result, strict=False) == 1
    assert "Failed: two." in markdown(result)


def test_times_of_steps_after_the_resumed_one(tmp_path: Path) -> None:
    rows = [("step", 5.0), ("step", 60.0), ("step", 62.5), ("valid", 70.0), ("step", 63.0)]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"kind": kind, "time": time}) + "\n" for kind, time in rows))
    assert step_seconds(path) == [2.5, 0.5]
    assert step_seconds(tmp_path / "missing") == []


def test_goals(tmp_path: Path) -> None:
    """12 GB for each stage, 6 GB for transcribe, 25 s for a step; they fail only a strict rehearsal."""
    result = Result({"device": "here"}, {"export": replace(SMALL, resident=int(11e9)), "transcribe": SMALL}, "", [24.0])
    assert result.missed() == [] and exit_code(result, strict=True) == 0
    result.stages |= {"export": replace(SMALL, resident=int(13e9)), "transcribe": replace(SMALL, resident=int(7e9))}
    result.step_seconds = [26.0, 40.0]
    assert [line.partition(":")[0] for line in result.missed()] == ["export", "transcribe", "a step"]
    assert exit_code(result, strict=True) == 1 and exit_code(result, strict=False) == 0
    write_results(tmp_path / "results", result)
    text = (tmp_path / "results" / "rehearsal.md").read_text()
    assert "| export | 1.0 | 1.0 | 13.00 | 1.00 |" in text and "device: here" in text
    content = read_json(tmp_path / "results" / "rehearsal.json")
    assert content["stages"]["export"]["resident"] == 13e9 and len(content["missed"]) == 3


@pytest.mark.slow
def test_the_whole_rehearsal_in_tiny_dimensions(tmp_path: Path) -> None:
    options = ["--tiny", "--keep", "--train", "9", "--tokens", "4", "--strict"]
    places = ["--folder", str(tmp_path / "work"), "--results", str(tmp_path / "results")]
    done = subprocess.run([sys.executable, str(SCRIPT), *options, *places], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    content = read_json(tmp_path / "results" / "rehearsal.json")
    assert len(content["stages"]) == 8 and not content["failed"] and len(content["step_seconds"]) >= 1
    assert "resumed after step 1" in (tmp_path / "work" / "logs" / "3.log").read_text()
    assert all(name in done.stdout for name in content["stages"])
