"""The stages in order: what is done is skipped, what changed runs again, and what the summary says."""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune import pipeline
from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, DataError, Interrupted
from finetune.core.extras import require
from finetune.core.files import read_json, write_json
from finetune.core.recipe import load_recipe
from finetune.core.run_dir import CHILD, RunDir
from finetune.pipeline import STAGES, run_recipe, summarize
from finetune.report.summary import format_summary
from finetune.training.launch import processes_for, train_on_all

SCORE = {"wer": 0.25, "terms": {"seen": {"recall": 0.5}, "unseen": {"recall": None}}}
SCORES = {
    "scores": {split: {which: SCORE for which in ("base", "adapted")} for split in ("test", "canary")},
    "differences": {"test": {"difference": -0.1}, "canary": {"difference": 0.0}},
    "decode": {"tokens_equal": True, "greedy_passes": 10.0, "speculative_passes": 3.0},
}


@dataclass(frozen=True)
class Result:
    """What all four fakes return together."""

    seconds: float = 1.5
    total_parameters: int = 100
    trained_parameters: int = 10
    dir: str = "out/export"
    max_abs_logit_diff: float = 0.0
    transcripts_equal: bool = True
    page: str = "out/report.html"
    dtype: str = "float32"


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages that ran, in order; none of them does any work."""
    stages: list[str] = []

    def verb(stage: str) -> Callable[[Recipe, RunDir], Result]:
        def work(recipe: Recipe, run: RunDir) -> Result:
            stages.append(stage)
            if stage == "evaluate":
                write_json(run.scores, SCORES)
            return Result()

        return work

    monkeypatch.setattr(pipeline, "_verb", verb)
    return stages


def recipe(tmp_path: Path, **sections: dict[str, Any]) -> Recipe:
    data = {"train": ["a.jsonl"], "valid": ["b.jsonl"], "test": ["c.jsonl"]}
    machine = {"processes": 1}
    return Recipe.model_validate(
        {"name": "r", "runs": str(tmp_path), "model": {"base": "-"}, "data": data, "machine": machine, **sections}
    )


def test_all_stages_run_once_and_then_none(tmp_path: Path, ran: list[str]) -> None:
    run_recipe(recipe(tmp_path), "export")
    assert ran == list(STAGES)
    run_recipe(recipe(tmp_path), "export")
    assert ran == list(STAGES)


def test_a_run_holds_a_recipe_that_makes_it_again(tmp_path: Path, ran: list[str]) -> None:
    mine = recipe(tmp_path, train={"epochs": 3})
    run = run_recipe(mine, "prepare")
    assert load_recipe(run.resolved)[0] == mine
    again, _ = load_recipe(run.resolved, ["name=again"])
    run_recipe(again, "prepare")
    assert ran == ["prepare", "prepare"] and (tmp_path / "again").is_dir()


def test_stages_up_to_the_one_asked_for(tmp_path: Path, ran: list[str]) -> None:
    run = run_recipe(recipe(tmp_path), "train")
    assert ran == ["prepare", "train"] and not run.summary.exists()
    run_recipe(recipe(tmp_path), "export")
    assert ran == list(STAGES)


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"decode": {"decoder": "greedy"}}, ["evaluate", "report", "export"]),
        ({"evaluate": {"normalizer": "none"}}, ["evaluate", "report", "export"]),
        ({"export": {"dtype": "bfloat16"}}, ["export"]),
        ({"machine": {"processes": 1, "workers": 3, "checkpoint_every": 7, "gradient_checkpointing": True}}, []),
    ],
)
def test_a_changed_setting_runs_its_stage_again_and_no_earlier_one(
    tmp_path: Path, ran: list[str], change: dict[str, Any], again: list[str]
) -> None:
    run = run_recipe(recipe(tmp_path), "export")
    run.best.mkdir()
    ran.clear()
    run_recipe(recipe(tmp_path, **change), "export")
    assert ran == again


def test_an_edited_corpus_is_prepared_again(tmp_path: Path, ran: list[str]) -> None:
    corpus = tmp_path / "a.jsonl"
    corpus.write_text("one")
    mine = recipe(tmp_path, data={"train": [str(corpus)], "valid": ["b.jsonl"], "test": ["c.jsonl"]})
    run_recipe(mine, "prepare")
    corpus.touch()
    run_recipe(mine, "prepare")
    assert ran == ["prepare"]
    corpus.write_text("two")
    run_recipe(mine, "prepare")
    assert ran == ["prepare", "prepare"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"train": {"epochs": 9}}, "train.epochs"),
        ({"parts": {"lora": {"rank": 8}}}, "parts.lora.rank"),
        ({"augment": {"speed": 0.1}}, "augment.speed"),
        ({"seed": 2}, "seed"),
    ],
)
def test_a_change_of_what_is_trained_wants_another_name(
    tmp_path: Path, ran: list[str], change: dict[str, Any], key: str
) -> None:
    run = run_recipe(recipe(tmp_path), "export")
    run.best.mkdir()
    with pytest.raises(CheckpointError, match=rf"differs in {re.escape(key)}\)"):
        run_recipe(recipe(tmp_path, **change), "export")
    assert ran == list(STAGES)


def test_a_stage_that_failed_is_not_done(tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    verb = pipeline._verb

    def failing(recipe: Recipe, run: RunDir) -> Result:
        raise DataError("broken")

    monkeypatch.setattr(pipeline, "_verb", lambda stage: failing if stage == "train" else verb(stage))
    with pytest.raises(DataError):
        run_recipe(recipe(tmp_path), "export")
    monkeypatch.setattr(pipeline, "_verb", verb)
    run_recipe(recipe(tmp_path), "export")
    assert ran == list(STAGES)  # prepare once, train when it worked


def test_a_report_without_its_extra_is_skipped_and_the_run_goes_on_to_export(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stage_function = pipeline._verb

    def without_report(stage: str) -> Callable[[Recipe, RunDir], Any]:
        return (
            (lambda recipe, run: require("no_such_package", extra="report"))
            if stage == "report"
            else (stage_function(stage))
        )

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_verb", without_report)
        run = run_recipe(recipe(tmp_path), "export")
    assert "pip install 'finetune-granite-speech[report]'; then: finetune report" in caplog.text
    assert ran == ["prepare", "train", "evaluate", "export"] and read_json(run.summary)["report"] is None
    run_recipe(recipe(tmp_path), "export")
    assert ran[-1] == "report" and read_json(run.summary)["report"] == "out/report.html"


# Several processes


@pytest.mark.parametrize(
    ("asked", "gpus", "count"), [(0, 0, 1), (0, 1, 1), (0, 4, 4), (3, 0, 3), (1, 4, 1), (3, 1, 1), (3, 2, 2)]
)
def test_a_process_for_each_gpu_unless_the_recipe_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int, gpus: int, count: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert processes_for(recipe(tmp_path, machine={"processes": asked})) == count


def test_the_marker_of_several_processes_is_as_that_of_one(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launched ones write it; the process that waits for them holds the lock and does the other stages."""
    asked: list[int] = []

    def launched(run: RunDir, processes: int) -> None:
        asked.append(processes)
        mine = load_recipe(run.resolved)[0]
        with monkeypatch.context() as patch:
            for name, value in (("WORLD_SIZE", "2"), (CHILD, "1"), ("RANK", "1")):
                patch.setenv(name, value)
            run_recipe(mine, "train")
            assert run.done("train") is None, "only rank 0 writes"
            patch.setenv("RANK", "0")
            run_recipe(mine, "train")

    monkeypatch.setattr(pipeline, "train_on_all", launched)
    two = run_recipe(recipe(tmp_path / "two", machine={"processes": 2}), "export")
    assert ran == ["prepare", "train", "train", "evaluate", "report", "export"] and asked == [2]
    one = run_recipe(recipe(tmp_path / "one"), "export")
    assert two.done("train") == one.done("train") and read_json(two.summary) == read_json(one.summary)
    ran.clear()
    run_recipe(recipe(tmp_path / "two"), "export")
    assert ran == [], "one process goes on where several have trained"


def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Runs a shell script in place of Python."""
    script = tmp_path / "python"
    script.write_text(
        f'#!/bin/sh\ncd "{tmp_path}"\necho "$@" > said$RANK\n'
        f'echo "${CHILD} $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR" >> said$RANK\n{body}\n'
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def test_the_launched_processes_get_the_whole_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran: list[str]
) -> None:
    program(tmp_path, monkeypatch, "exit 0")
    mine = recipe(
        tmp_path,
        train={"goal": "accent", "max_canary_loss": None},
        augment={"speed": 0.0},
        model={"base": "-", "instruction": "say: 'what' is \"heard\" – no, null\n"},
        machine={"trackers": ["wandb"]},
    )
    train_on_all(run_recipe(mine, "prepare"), 2)
    for rank in ("0", "1"):
        words, told = (tmp_path / f"said{rank}").read_text().splitlines()
        assert words.startswith("-m finetune train ") and told == f"1 {rank} 2 127.0.0.1"
        assert load_recipe(words.split()[-1])[0] == mine


@pytest.mark.parametrize(("end", "why"), [("exit 3", "exit code 3; the first"), ("kill -9 $$", "SIGKILL; if nobody")])
def test_one_process_that_fails_ends_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, why: str
) -> None:
    program(tmp_path, monkeypatch, f"[ $RANK = 1 ] && {end}\nwhile :; do sleep 0.05; done")
    with pytest.raises(CheckpointError, match=rf"in 2 processes failed \({why}"):
        train_on_all(RunDir(tmp_path / "r"), 2)


def test_a_signal_reaches_each_launched_process_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that ends leaves the other the time for its checkpoint."""
    program(
        tmp_path,
        monkeypatch,
        "trap 'echo TERM >> said$RANK; sleep $RANK; echo saved >> said$RANK; exit 143' TERM\n: > ready$RANK\n"
        f"while [ $RANK = 1 -a ! -e ready0 ]; do sleep 0.05; done\n[ $RANK = 1 ] && kill -USR1 {os.getpid()}\n"
        "while :; do sleep 0.05; done",
    )
    with pytest.raises(Interrupted) as caught:
        train_on_all(RunDir(tmp_path / "r"), 2)
    assert caught.value.signum == signal.SIGUSR1
    for rank in ("0", "1"):
        assert (tmp_path / f"said{rank}").read_text().splitlines()[2:] == ["TERM", "saved"]


def test_a_signal_to_the_launched_processes_alone_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scheduler tells every process."""
    program(tmp_path, monkeypatch, "sleep 0.$RANK\nexit 143")
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        train_on_all(RunDir(tmp_path / "r"), 2)


def test_the_lock_is_held_as_long_as_a_launched_process_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that launched them was killed: no other may begin beside them."""
    program(tmp_path, monkeypatch, "echo $$ > pid$RANK\nwhile :; do sleep 0.05; done")
    run = RunDir(tmp_path / "r")
    parent = os.fork()
    if parent == 0:
        with run.locked():
            train_on_all(run, 1)
        os._exit(0)
    while not (tmp_path / "pid0").exists() or not (tmp_path / "pid0").read_text().strip():
        time.sleep(0.05)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    with pytest.raises(CheckpointError, match="another process works"), run.locked():
        pass
    os.kill(int((tmp_path / "pid0").read_text()), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with run.locked():
                return
        except CheckpointError:  # the `sleep` of the script still holds it
            time.sleep(0.05)
    pytest.fail("still locked")


def test_several_processes_train_what_one_prepared_and_one_goes_on(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for last in ("train", "export"):
        with pytest.raises(CheckpointError, match="run `finetune prepare RECIPE` first"):
            run_recipe(recipe(tmp_path), last)
    monkeypatch.delenv("WORLD_SIZE")
    run = run_recipe(recipe(tmp_path), "prepare")

    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, done in (("1", False), ("0", True)):
        monkeypatch.setenv("RANK", rank)
        run_recipe(recipe(tmp_path), "train")
        assert (run.done("train") is not None) == done
    monkeypatch.delenv("WORLD_SIZE")
    run_recipe(recipe(tmp_path), "export")
    assert ran == ["prepare", "train", "train", "evaluate", "report", "export"]


def test_a_machine_of_several_does_not_train_on_changed_corpora(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_recipe(recipe(tmp_path), "prepare")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CheckpointError, match="changed since `finetune prepare`"):
        run_recipe(recipe(tmp_path, data={"train": ["other"], "valid": ["b.jsonl"], "test": ["c.jsonl"]}), "train")
    assert ran == ["prepare"]


# What a run says


def test_the_summary_holds_the_figures_of_a_run(tmp_path: Path, ran: list[str]) -> None:
    run = run_recipe(recipe(tmp_path), "export")
    summary = read_json(run.summary)
    assert summary == summarize(run)
    assert set(summary) == {"test", "canary", "differences", "decode", "report", "export", "seconds", "parameters"}
    assert summary["test"]["adapted"]["wer"] == 0.25
    assert summary["export"] == {
        "dir": "out/export",
        "max_abs_logit_diff": 0.0,
        "transcripts_equal": True,
        "dtype": "float32",
    }
    assert summary["parameters"] == {"total": 100, "trained": 10}
    assert set(summary["seconds"]) == set(STAGES)


def test_there_is_no_summary_of_half_a_run(tmp_path: Path, ran: list[str]) -> None:
    run = run_recipe(recipe(tmp_path), "train")
    with pytest.raises(CheckpointError, match="evaluate has not finished"):
        summarize(run)


def test_the_table_shows_both_models_and_the_clips_that_gained_most(tmp_path: Path, ran: list[str]) -> None:
    run = run_recipe(recipe(tmp_path), "export")
    said = [f"take drug {number}" for number in range(5)]
    for which, heard in (("base", "take the rug"), ("adapted", "take drug 3")):
        rows = [{"audio_filepath": f"{i}.wav", "text": text, "pred_text": heard} for i, text in enumerate(said)]
        run.hypotheses("test", which).write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = format_summary(run, read_json(run.summary)).splitlines()
    assert lines[2].split() == ["your", "domain", "(test)", "25.0", "25.0"]
    assert lines[3].split() == ["general", "speech", "(canary)", "25.0", "25.0"]
    assert lines[4].split() == ["terms", "heard,", "seen", "in", "training", "50", "%", "50", "%"]
    assert not any("unseen" in line for line in lines)
    first = lines.index("said     take drug 3")
    assert lines[first + 1 : first + 3] == ["  base     take the rug", "  adapted  take drug 3"]
    assert lines[-3] == "report: out/report.html"
    assert lines[-1] == "next: finetune transcribe 0.wav --model out/export"
