"""The pipeline: completed stages are skipped, changed ones rerun; several processes; the summary of a run."""

import hashlib
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from report_facts import metrics
from safetensors.torch import save_file
from tracker_fakes import Seen

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, DataError, Interrupted, MissingExtraError, RecipeError
from finetune.core.extras import require
from finetune.core.files import read_json, read_jsonl, write_json
from finetune.core.recipe import load_recipe
from finetune.core.run_dir import CHILD, RunDir
from finetune.data.manifest import write_manifest
from finetune.metrics.result_rows import UtteranceResult
from finetune.metrics.results import RunSummary
from finetune.metrics.wer import errors_per_utterance
from finetune.pipeline import STAGE_NAMES, STAGES, run_recipe, summarize
from finetune.report.summary import format_summary
from finetune.training.finished import BASE
from finetune.training.launch import ELASTIC, RANKS, processes_for, train_on_all, world_size

RESULTS = metrics()
for scores in (scores for both in RESULTS["scores"].values() for scores in both.values()):
    scores["wer"] = 0.25
    scores["terms"]["seen"]["recall"], scores["terms"]["unseen"]["recall"] = 0.5, None


@dataclass(frozen=True)
class Result:
    """The result of every fake stage: the fields of all real results that the summary reads."""

    seconds: float = 1.5
    total_parameters: int = 100
    trained_parameters: int = 10
    dir: str = "out/export"
    max_abs_logit_diff: float = 0.0
    transcripts_equal: bool = True
    page: str = "out/report.html"
    dtype: str = "float32"


class FakeStages:
    """Stages that record their names and do no work.

    Attributes:
        names: Stages that ran, in order.
        replaced: By name, functions to run instead.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.replaced: dict[str, Callable[[Recipe, RunDir], Any]] = {}

    def run(self, recipe: Recipe, last: str, **keywords: Any) -> RunDir:
        stages = [
            replace(stage, run=self.replaced.get(stage.name, partial(self._work, stage.name))) for stage in STAGES
        ]
        # A test has one rank at a time.
        return run_recipe(recipe, last, stages, **{"agree": lambda finished: finished, **keywords})

    def _work(self, name: str, recipe: Recipe, run: RunDir) -> Result:
        self.names.append(name)
        if name == "evaluate":
            write_json(run.scores, RESULTS)
        return Result()


@pytest.fixture
def fake() -> FakeStages:
    return FakeStages()


def recipe(tmp_path: Path, **sections: dict[str, Any]) -> Recipe:
    data = {"train": ["a.jsonl"], "valid": ["b.jsonl"], "test": ["c.jsonl"]}
    machine = {"processes": 1}
    return Recipe.model_validate(
        {"name": "r", "runs": str(tmp_path), "model": {"base": "-"}, "data": data, "machine": machine, **sections}
    )


def test_all_stages_run_once(tmp_path: Path, fake: FakeStages) -> None:
    fake.run(recipe(tmp_path), "export")
    assert fake.names == STAGE_NAMES
    fake.run(recipe(tmp_path), "export")
    assert fake.names == STAGE_NAMES


def test_trackers_receive_the_results_of_an_evaluation_once(tmp_path: Path, fake: FakeStages, fakes: Seen) -> None:
    for _ in range(2):
        fake.run(recipe(tmp_path, machine={"trackers": ["trackio"]}), "report")
    assert [call[0]["results/test/adapted/wer"] for call in fakes["trackio"] if isinstance(call, tuple)] == [0.25]


def test_a_tracker_that_fails_does_not_stop_the_run(tmp_path: Path, fake: FakeStages, fakes: Seen) -> None:
    fakes["fail"] += ["trackio.start", "wandb.log"]
    fake.run(recipe(tmp_path, machine={"trackers": ["trackio", "wandb"]}), "export")
    assert fake.names == STAGE_NAMES


def test_resolved_json_is_a_recipe_that_repeats_the_run(tmp_path: Path, fake: FakeStages) -> None:
    original = recipe(tmp_path, train={"epochs": 3})
    run = fake.run(original, "prepare")
    assert load_recipe(run.resolved)[0] == original
    again, _ = load_recipe(run.resolved, ["name=again"])
    fake.run(again, "prepare")
    assert fake.names == ["prepare", "prepare"] and (tmp_path / "again").is_dir()


def test_stages_run_up_to_the_last_one_named(tmp_path: Path, fake: FakeStages) -> None:
    run = fake.run(recipe(tmp_path), "train")
    assert fake.names == ["prepare", "train"] and not run.summary.exists()
    fake.run(recipe(tmp_path), "export")
    assert fake.names == STAGE_NAMES


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"decode": {"decoder": "greedy"}}, ["evaluate", "report", "export"]),
        ({"evaluate": {"normalizer": "none"}}, ["evaluate", "report", "export"]),
        ({"export": {"dtype": "bfloat16"}}, ["export"]),
        ({"machine": {"processes": 1, "workers": 3, "checkpoint_every": 7, "gradient_checkpointing": True}}, []),
    ],
)
def test_a_changed_setting_reruns_the_stages_from_the_one_that_reads_it(
    tmp_path: Path, fake: FakeStages, change: dict[str, Any], again: list[str]
) -> None:
    run = fake.run(recipe(tmp_path), "export")
    run.best.mkdir()
    fake.names.clear()
    fake.run(recipe(tmp_path, **change), "export")
    assert fake.names == again


def test_a_changed_corpus_reruns_prepare(tmp_path: Path, fake: FakeStages) -> None:
    corpus = tmp_path / "a.jsonl"
    corpus.write_text("one")
    original = recipe(tmp_path, data={"train": [str(corpus)], "valid": ["b.jsonl"], "test": ["c.jsonl"]})
    fake.run(original, "prepare")
    corpus.touch()
    fake.run(original, "prepare")
    assert fake.names == ["prepare"]
    corpus.write_text("two")
    fake.run(original, "prepare")
    assert fake.names == ["prepare", "prepare"]


def test_a_changed_list_of_terms_reruns_the_evaluation(tmp_path: Path, fake: FakeStages) -> None:
    terms = tmp_path / "terms.txt"
    data = {"train": ["a.jsonl"], "valid": ["b.jsonl"], "test": ["c.jsonl"], "terms": str(terms)}
    terms.write_text("metoprolol")
    fake.run(recipe(tmp_path, data=data), "export").best.mkdir()
    fake.names.clear()
    terms.touch()
    fake.run(recipe(tmp_path, data=data), "export")
    assert fake.names == []
    terms.write_text("apixaban")
    fake.run(recipe(tmp_path, data=data), "export")
    assert fake.names == ["evaluate", "report", "export"]


def test_a_base_that_changed_after_the_training_is_refused(tmp_path: Path, fake: FakeStages) -> None:
    """Its adapter would fit by the shapes, and evaluate and export would use it."""
    base = tmp_path / "base"
    base.mkdir()
    weights = {name: torch.full((40, 40), 1.5) for name in ("encoder.a", "encoder.b")}
    changed = {**weights, "encoder.b": torch.full((40, 40), 1.25)}
    save_file(weights, base / "model.safetensors")
    run = fake.run(recipe(tmp_path, model={"base": str(base)}), "export")
    save_file(changed, base / "model.safetensors")
    for sections in ({"evaluate": {"replicas": 100}}, {"export": {"dtype": "bfloat16"}}):
        with pytest.raises(CheckpointError, match=r"base: the weights changed since .* was trained on them"):
            fake.run(recipe(tmp_path, model={"base": str(base)}, **sections), "export")
    assert fake.names == STAGE_NAMES, "nothing ran again"
    save_file(weights, base / "model.safetensors")
    fake.run(recipe(tmp_path, model={"base": str(base)}, export={"dtype": "bfloat16"}), "export")
    save_file(changed, base / "model.safetensors")
    record = run.done("train") or {}
    write_json(run.marker("train"), {key: value for key, value in record.items() if key != BASE})
    fake.run(recipe(tmp_path, model={"base": str(base)}), "export")
    assert fake.names == [*STAGE_NAMES, "export", "export"], "a run of an earlier version has no hash"


@pytest.mark.parametrize("source", ["", "/*.wav"])
def test_a_changed_folder_or_pattern_reruns_prepare(tmp_path: Path, fake: FakeStages, source: str) -> None:
    """The run directory can lie in the folder."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.wav").touch()
    data = {"train": [f"{corpus}{source}"], "valid": ["b.jsonl"], "test": ["c.jsonl"]}
    original = recipe(tmp_path, data=data).model_copy(update={"runs": str(corpus / "runs")})
    for _ in range(2):
        fake.run(original, "prepare")
    assert fake.names == ["prepare"]
    (corpus / "b.wav").touch()
    fake.run(original, "prepare")
    assert fake.names == ["prepare", "prepare"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"train": {"epochs": 9}}, "train.epochs"),
        ({"parts": {"lora": {"rank": 8}}}, "parts.lora.rank"),
        ({"augment": {"speed": 0.1}}, "augment.speed"),
        ({"seed": 2}, "seed"),
    ],
)
def test_a_changed_training_setting_is_refused_after_training(
    tmp_path: Path, fake: FakeStages, change: dict[str, Any], key: str
) -> None:
    run = fake.run(recipe(tmp_path), "export")
    run.best.mkdir()
    with pytest.raises(CheckpointError, match=rf"differs in {re.escape(key)}\)"):
        fake.run(recipe(tmp_path, **change), "export")
    assert fake.names == STAGE_NAMES


def without(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Nested settings without some dotted keys."""
    content = json.loads(json.dumps(content))
    for key in keys:
        *sections, last = key.split(".")
        level = content
        for section in sections:
            level = level[section]
        del level[last]
    return content


def test_a_run_of_a_version_without_the_newest_settings_stays_complete(tmp_path: Path, fake: FakeStages) -> None:
    """Its records and their hashes are written here as that version wrote them."""
    new = ("train.optimizer", "parts.language_model", "augment.no_speech", "data.too_long")
    settings = recipe(tmp_path, data={"train": [{"path": "a", "weight": 2}], "valid": ["b"], "test": ["c"]})
    run = fake.run(settings, "export")
    run.best.mkdir()
    write_json(run.recipe, without(read_json(run.recipe), *new))
    write_json(run.resolved, without(read_json(run.resolved), *new, "machine.tracker_samples"))
    content, key = without(settings.model_dump(mode="json"), *new), ""
    for stage in STAGES:
        text = json.dumps([key, *(content[name] for name in stage.reads)], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()
        run.finish(stage.name, {**(run.done(stage.name) or {}), "inputs": key})
    for source in (settings, load_recipe(run.resolved)[0]):
        for _ in range(2):
            fake.run(source, "export")
    assert fake.names == STAGE_NAMES, "no stage runs again"
    changed = settings.model_copy(update={"train": settings.train.model_copy(update={"optimizer": "adamw-8bit"})})
    with pytest.raises(CheckpointError, match=r"differs in train\.optimizer\)"):
        fake.run(changed, "export")


def test_a_scored_set_whose_manifest_was_deleted_is_an_error(tmp_path: Path) -> None:
    """Canary was left out without a word, and with it the verdict on general speech."""
    run = RunDir(tmp_path / "r")
    for split in ("valid", "test"):
        write_manifest(run.manifest(split), [])
    settings = recipe(tmp_path, data={"train": ["a"], "valid": ["b"], "test": ["c"], "canary": ["d"]})
    with pytest.raises(DataError, match=r"canary.jsonl: missing; delete .*prepare.done.json and rerun"):
        STAGES[STAGE_NAMES.index("evaluate")].run(settings, run)


def test_a_training_that_runs_again_reruns_what_follows(tmp_path: Path, fake: FakeStages) -> None:
    """Such as after the run's checkpoint was deleted; the new adapter can differ, although its inputs are the same."""
    run = fake.run(recipe(tmp_path), "export")
    run.marker("train").unlink()
    fake.run(recipe(tmp_path), "train")
    fake.run(recipe(tmp_path), "export")
    assert fake.names == [*STAGE_NAMES, "train", "evaluate", "report", "export"]


def test_a_failed_stage_runs_again(tmp_path: Path, fake: FakeStages) -> None:
    def fail(recipe: Recipe, run: RunDir) -> Result:
        raise DataError("broken")

    fake.replaced["train"] = fail
    with pytest.raises(DataError):
        fake.run(recipe(tmp_path), "export")
    del fake.replaced["train"]
    fake.run(recipe(tmp_path), "export")
    assert fake.names == STAGE_NAMES  # prepare ran once


def test_a_report_without_its_extra_is_skipped_and_the_run_continues_to_export(
    tmp_path: Path, fake: FakeStages, caplog: pytest.LogCaptureFixture
) -> None:
    fake.replaced["report"] = lambda recipe, run: require("no_such_package", extra="report")
    run = fake.run(recipe(tmp_path), "export")
    assert "pip install 'finetune-granite-speech[report]'; then: finetune report" in caplog.text
    assert fake.names == ["prepare", "train", "evaluate", "export"] and read_json(run.summary)["report"] is None
    del fake.replaced["report"]
    fake.run(recipe(tmp_path), "export")
    assert fake.names[-1] == "report" and read_json(run.summary)["report"] == "out/report.html"


def test_a_missing_extra_of_another_stage_stops_the_run(tmp_path: Path, fake: FakeStages) -> None:
    fake.replaced["evaluate"] = lambda recipe, run: require("no_such_package", extra="report")
    with pytest.raises(MissingExtraError):
        fake.run(recipe(tmp_path), "export")
    assert fake.names == ["prepare", "train"]


# Several processes


@pytest.mark.parametrize(
    ("setting", "gpus", "count"), [(0, 0, 1), (0, 1, 1), (0, 4, 4), (3, 0, 3), (1, 4, 1), (3, 1, 1), (3, 2, 2)]
)
def test_the_number_of_training_processes(tmp_path: Path, setting: int, gpus: int, count: int) -> None:
    assert processes_for(recipe(tmp_path, machine={"processes": setting}), gpus) == count


def test_several_processes_write_the_same_record_as_one(
    tmp_path: Path, fake: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 writes the record; the parent process has the lock and runs the other stages."""
    launched: list[int] = []

    def launch(run: RunDir, processes: int) -> None:
        launched.append(processes)
        original = load_recipe(run.resolved)[0]
        with monkeypatch.context() as patch:
            patch.setenv(CHILD, "1")
            as_rank(patch, "1")
            fake.run(original, "train")
            assert run.done("train") is None, "only rank 0 writes"
            as_rank(patch, "0")
            fake.run(original, "train")

    two = fake.run(recipe(tmp_path / "two", machine={"processes": 2}), "export", launch=launch)
    assert fake.names == ["prepare", "train", "train", "evaluate", "report", "export"] and launched == [2]
    one = fake.run(recipe(tmp_path / "one"), "export")
    assert two.done("train") == one.done("train") and read_json(two.summary) == read_json(one.summary)
    fake.names.clear()
    fake.run(recipe(tmp_path / "two"), "export")
    assert fake.names == [], "what several processes trained is complete for one"


def program(tmp_path: Path, body: str) -> str:
    """A shell script to run instead of Python; it writes its arguments and environment to `call<RANK>`."""
    script = tmp_path / "python"
    script.write_text(
        f'#!/bin/sh\ncd "{tmp_path}"\necho "$@" > call$RANK\n'
        f'echo "${CHILD} $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR" >> call$RANK\n{body}\n'
    )
    script.chmod(0o755)
    return str(script)


def test_launched_processes_read_the_resolved_recipe(tmp_path: Path, fake: FakeStages) -> None:
    python = program(tmp_path, "exit 0")
    original = recipe(
        tmp_path,
        train={"goal": "accent", "max_canary_loss": None},
        augment={"speed": 0.0},
        model={"base": "-", "instruction": "write: 'what' is \"this\" – no, null\n"},
        machine={"trackers": ["wandb"]},
    )
    train_on_all(fake.run(original, "prepare"), 2, python)
    for rank in ("0", "1"):
        args, environment = (tmp_path / f"call{rank}").read_text().splitlines()
        assert args.startswith("-m finetune train ") and environment == f"1 {rank} 2 127.0.0.1"
        assert load_recipe(args.split()[-1])[0] == original


@pytest.mark.parametrize(
    ("end", "why"), [("exit 3", "exit code 3; see the first"), ("kill -9 $$", "SIGKILL; if no user")]
)
def test_a_failed_process_ends_the_others(tmp_path: Path, end: str, why: str) -> None:
    python = program(tmp_path, f"[ $RANK = 1 ] && {end}\nwhile :; do sleep 0.05; done")
    with pytest.raises(CheckpointError, match=rf"in 2 processes failed \({why}"):
        train_on_all(RunDir(tmp_path / "r"), 2, python)


def test_a_signal_reaches_each_launched_process_once(tmp_path: Path) -> None:
    """A process that stops first does not end the other, which can still be writing its checkpoint."""
    python = program(
        tmp_path,
        "trap 'echo TERM >> call$RANK; sleep $RANK; echo saved >> call$RANK; exit 143' TERM\n: > ready$RANK\n"
        f"while [ $RANK = 1 -a ! -e ready0 ]; do sleep 0.05; done\n[ $RANK = 1 ] && kill -USR1 {os.getpid()}\n"
        "while :; do sleep 0.05; done",
    )
    with pytest.raises(Interrupted) as caught:
        train_on_all(RunDir(tmp_path / "r"), 2, python)
    assert caught.value.signum == signal.SIGUSR1
    for rank in ("0", "1"):
        assert (tmp_path / f"call{rank}").read_text().splitlines()[2:] == ["TERM", "saved"]


def test_a_signal_only_to_the_launched_processes_is_an_interruption(tmp_path: Path) -> None:
    """A scheduler can send the signal to every process."""
    python = program(tmp_path, "sleep 0.$RANK\nexit 143")
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        train_on_all(RunDir(tmp_path / "r"), 2, python)


def test_the_lock_is_held_while_a_launched_process_runs(tmp_path: Path) -> None:
    """After the parent process was killed, another run cannot start while its children run."""
    python = program(tmp_path, "echo $$ > pid$RANK\nwhile :; do sleep 0.05; done")
    run = RunDir(tmp_path / "r")
    parent = os.fork()
    if parent == 0:
        with run.locked():
            train_on_all(run, 1, python)
        os._exit(0)
    while not (tmp_path / "pid0").exists() or not (tmp_path / "pid0").read_text().strip():
        time.sleep(0.05)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    with pytest.raises(CheckpointError, match="another process uses"), run.locked():
        pass
    os.kill(int((tmp_path / "pid0").read_text()), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with run.locked():
                return
        except CheckpointError:  # the `sleep` of the script still has the lock
            time.sleep(0.05)
    pytest.fail("still locked")


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: str = "0") -> None:
    """Sets the variables of one of two processes."""
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2, but RANK is not set"),
        ({"RANK": "1"}, "RANK=1, but WORLD_SIZE is not set"),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "1", "RANK": "0"}, "but MASTER_ADDR is not set"),
        (
            {"RANK": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
            "below WORLD_SIZE",
        ),
        ({"WORLD_SIZE": "0"}, "1 or more"),
        ({"RANK": "abc", "WORLD_SIZE": "1"}, "RANK must be a number, got 'abc'"),
        ({"WORLD_SIZE": "²"}, "WORLD_SIZE must be a number"),
    ],
)
def test_variables_that_another_program_left_are_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(RecipeError, match=f"{message}.*unset RANK, LOCAL_RANK, WORLD_SIZE"):
        world_size(variables)


def test_the_number_of_processes_of_a_launcher() -> None:
    assert world_size({}) == world_size({"MASTER_PORT": "1"}) == world_size({"WORLD_SIZE": "1", "RANK": "0"}) == 1
    complete = {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    assert world_size(complete) == 2


@pytest.mark.parametrize("value", ["", "x", "-1", "1.5"])
def test_a_wrong_number_of_processes_in_the_environment_is_an_error(
    tmp_path: Path, fake: FakeStages, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", value)
    with pytest.raises(RecipeError, match=f"WORLD_SIZE must be a number, got '{value}'"):
        fake.run(recipe(tmp_path), "prepare")
    assert not fake.names


def test_several_processes_train_between_prepare_and_evaluate_of_one(
    tmp_path: Path, fake: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_rank(monkeypatch)
    for last in ("train", "export"):
        with pytest.raises(CheckpointError, match="run `finetune prepare RECIPE` first"):
            fake.run(recipe(tmp_path), last)
    for name in RANKS:
        monkeypatch.delenv(name)
    run = fake.run(recipe(tmp_path), "prepare")

    for rank, done in (("1", False), ("0", True)):
        as_rank(monkeypatch, rank)
        fake.run(recipe(tmp_path), "train")
        assert (run.done("train") is not None) == done
    for name in RANKS:
        monkeypatch.delenv(name)
    fake.run(recipe(tmp_path), "export")
    assert fake.names == ["prepare", "train", "train", "evaluate", "report", "export"]


def test_what_was_evaluated_is_discarded_when_several_processes_train_again(
    tmp_path: Path, fake: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a finished training they train nothing, and its record and results stay."""
    run = fake.run(recipe(tmp_path), "export")
    run.best.mkdir()
    record, fake.names = run.marker("train").stat().st_mtime_ns, []
    for finished in (True, False):
        if not finished:
            run.marker("train").unlink()
        with monkeypatch.context() as patch:
            as_rank(patch)
            fake.run(recipe(tmp_path), "train")
        assert {run.done(stage) is not None for stage in ("evaluate", "report", "export")} == {finished}
        assert (run.marker("train").stat().st_mtime_ns == record) == finished == (not fake.names)
    fake.run(recipe(tmp_path), "export")
    assert fake.names[-3:] == ["evaluate", "report", "export"]


def test_every_rank_skips_a_training_that_is_finished_for_rank_0(
    tmp_path: Path, fake: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that reads no record of it; and none skips it that rank 0 trains again."""
    run = fake.run(recipe(tmp_path), "prepare")
    as_rank(monkeypatch, "1")
    fake.run(recipe(tmp_path), "train", agree=lambda finished: True)
    assert fake.names == ["prepare"] and run.done("train") is None
    fake.run(recipe(tmp_path), "train", agree=lambda finished: False)
    assert fake.names == ["prepare", "train"]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_restarted_process_waits_for_the_lock_and_starts_no_others(
    tmp_path: Path, fake: FakeStages, monkeypatch: pytest.MonkeyPatch, processes: str
) -> None:
    """A launcher that restarts processes has chosen their number, also if it is one."""
    settings = recipe(tmp_path, machine={"processes": 2})
    run = fake.run(settings, "prepare")
    as_rank(monkeypatch)
    monkeypatch.setenv("WORLD_SIZE", processes)
    with run.locked():
        with pytest.raises(CheckpointError, match="another process uses"):
            fake.run(settings, "train")
        monkeypatch.setenv(ELASTIC, "none")
        waiting = threading.Thread(target=fake.run, args=(settings, "train"))
        waiting.start()
        time.sleep(0.3)
        assert waiting.is_alive() and fake.names == ["prepare"]
    waiting.join(20)
    assert fake.names == ["prepare", "train"] and run.done("train") is not None


@pytest.mark.parametrize("processes", [1, 2])
def test_a_training_that_is_refused_does_not_start(tmp_path: Path, fake: FakeStages, processes: int) -> None:
    settings, launched = recipe(tmp_path, machine={"processes": processes}), list[int]()

    def refuse(recipe: Recipe, run: RunDir, count: int) -> None:
        assert run.done("prepare") is not None
        raise DataError(f"too large for {count}")

    def launch(run: RunDir, count: int) -> None:
        launched.append(count)

    with pytest.raises(DataError, match=f"too large for {processes}"):
        fake.run(settings, "export", launch=launch, check=refuse)
    assert fake.names == ["prepare"] and not launched
    run = fake.run(recipe(tmp_path), "train")
    fake.run(recipe(tmp_path), "export", check=refuse)  # nothing is left to train
    assert fake.names == STAGE_NAMES and run.summary.exists()


def test_a_rank_is_checked_unless_its_parent_was(
    tmp_path: Path, fake: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = list[int]()
    fake.run(recipe(tmp_path), "prepare")
    as_rank(monkeypatch)
    for child in (False, True):
        if child:
            monkeypatch.setenv(CHILD, "1")
        fake.run(recipe(tmp_path), "train", check=lambda recipe, run, count: checked.append(count))
    assert checked == [2] and fake.names == ["prepare", "train", "train"]


def test_several_processes_do_not_train_on_changed_corpora(
    tmp_path: Path, fake: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.run(recipe(tmp_path), "prepare")
    as_rank(monkeypatch)
    with pytest.raises(CheckpointError, match="changed since `finetune prepare`"):
        fake.run(recipe(tmp_path, data={"train": ["other"], "valid": ["b.jsonl"], "test": ["c.jsonl"]}), "train")
    assert fake.names == ["prepare"]


# Summary


def test_the_summary_has_the_figures_of_every_stage(tmp_path: Path, fake: FakeStages) -> None:
    run = fake.run(recipe(tmp_path), "export")
    summary = read_json(run.summary)
    assert summary == summarize(run).model_dump(mode="json")
    assert set(summary) == {
        "schema_version",
        "scores",
        "without_terms",
        "tasks",
        "differences",
        "decoders",
        "report",
        "export",
        "seconds",
        "parameters",
    }
    assert summary["scores"]["test"]["adapted"]["wer"] == 0.25
    assert summary["export"] == {
        "dir": "out/export",
        "max_abs_logit_diff": 0.0,
        "transcripts_equal": True,
        "dtype": "float32",
    }
    assert summary["parameters"] == {"total": 100, "trained": 10}
    assert set(summary["seconds"]) == set(STAGE_NAMES)


@pytest.mark.parametrize("content", [{"schema": 2}, {**RESULTS, "extra": 1}])
def test_evaluate_runs_again_if_its_results_are_unreadable(
    tmp_path: Path, fake: FakeStages, content: dict[str, Any]
) -> None:
    """The advice of `read_results` works: `finetune evaluate RECIPE` replaces unreadable results."""
    run = fake.run(recipe(tmp_path), "export")
    write_json(run.scores, content)
    with pytest.raises(CheckpointError, match="Run `finetune evaluate RECIPE` again"):
        summarize(run)
    fake.names.clear()
    fake.run(recipe(tmp_path), "report")
    assert fake.names == ["evaluate", "report"] and summarize(run).scores["test"].adapted.wer == 0.25


def test_an_incomplete_run_has_no_summary(tmp_path: Path, fake: FakeStages) -> None:
    run = fake.run(recipe(tmp_path), "train")
    with pytest.raises(CheckpointError, match="evaluate has not finished"):
        summarize(run)


def write_utterances(run: RunDir, *texts: tuple[str, str, str], target: str | None = None, name: str = "test") -> None:
    """Rows of the evaluation with (reference, base, adapted), and the hypotheses, whose audio the summary names."""
    rows = list[dict[str, Any]]()
    for number, (reference, base, adapted) in enumerate(texts):
        errors = [errors_per_utterance([reference], [text], "basic@2")[0] for text in (base, adapted)]
        row = UtteranceResult(
            set=name,
            id=f"u{number}",
            audio_filepath=f"{number}.wav",
            offset=0.0,
            duration=1.0,
            time=0.0,
            text=reference,
            pred_text=adapted,
            pred_text_base=base,
            speaker="",
            language="",
            words=errors[0][1],
            errors=errors[1][0],
            errors_base=errors[0][0],
            flags=[],
            flags_base=[],
            target_language=target,
        )
        rows.append(vars(row))
    run.utterances.parent.mkdir(parents=True, exist_ok=True)
    with run.utterances.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    run.hypotheses("test", "adapted").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_printed_summary_has_both_models_and_the_most_improved_clips(tmp_path: Path, fake: FakeStages) -> None:
    run = fake.run(recipe(tmp_path), "export")
    write_utterances(run, *((f"take drug {number}", "take the rug", "take drug 3") for number in range(5)))
    lines = format_summary(run, RunSummary.model_validate(read_json(run.summary))).splitlines()
    assert lines[2].split() == ["your", "domain", "(test)", "25.0", "25.0"]
    assert lines[3].split() == ["general", "speech", "(canary)", "25.0", "25.0"]
    assert lines[1].split() == ["WER", "(%)", "base", "adapted"]
    assert lines[4].split() == ["term", "recall", "(%),", "seen", "in", "training", "50", "50"]
    assert not any("unseen" in line for line in lines)
    first = lines.index("reference  take drug 3")
    assert lines[first + 1 : first + 3] == ["  base     take the rug", "  adapted  take drug 3"]
    assert sum(line.startswith("reference") for line in lines) == 3
    assert lines[-3] == "report: out/report.html"
    assert lines[-1] == "next: finetune transcribe 0.wav --model out/export"
    for hypothesis in ("the rug", "take the rug"):  # worse than the base; equal to it
        run.utterances.unlink()
        write_utterances(run, ("take drug 1", "take the rug", hypothesis))
        summary = format_summary(run, RunSummary.model_validate(read_json(run.summary)))
        assert "no test clip has fewer errors with the adapted model" in summary and "reference" not in summary
    content = read_json(run.summary)
    content["export"]["dir"] = "my runs/export"
    assert format_summary(run, RunSummary.model_validate(content)).endswith(" 0.wav --model 'my runs/export'")


@pytest.mark.parametrize("report", ["out/report.html", None])
def test_the_next_step_after_a_loss_is_the_report(tmp_path: Path, fake: FakeStages, report: str | None) -> None:
    run = fake.run(recipe(tmp_path), "export")
    write_utterances(run, ("take drug 1", "take the rug", "take drug 1"))
    content = read_json(run.scores)
    content["differences"]["canary"] |= {"difference": 0.1, "p_holm": 0.001}
    write_json(run.scores, content)
    summary = RunSummary.model_validate(read_json(run.summary) | {"report": report})
    lines = format_summary(run, summary).splitlines()
    first = lines.index("verdict:")
    assert lines[first + 1].startswith("  Domain: ") and lines[first + 2].startswith("  General speech: Worse")
    place = report or f"the report, which `finetune report {run.root}` writes"
    assert lines[-1] == f"next: read the next steps in {place}, because of the verdict on general speech"


def test_the_printed_improvements_have_no_word_errors_of_translations(tmp_path: Path, fake: FakeStages) -> None:
    run = fake.run(recipe(tmp_path), "export")
    write_utterances(run, ("take it", "take them", "take it"))
    other = ("please enter your agent number now", "por favor", "please enter your agent number now")
    write_utterances(run, other, target="en", name="test: translate es-en")
    summary = format_summary(run, RunSummary.model_validate(read_json(run.summary)))
    assert "reference  take it" in summary and "agent" not in summary
    run.utterances.unlink()
    texts = [  # by words, the first gains three, the second one
        ("he goes home at six", "he is xx yy zz at six ww", "he is xx at six ww"),
        ("the internationalization committee", "the zz committee", "the internationalisation committee"),
    ]
    write_utterances(run, *texts, target="en")
    summary = format_summary(run, RunSummary.model_validate(read_json(run.summary)))
    assert summary.endswith("next: finetune transcribe 0.wav --model out/export --translate-to en")
    assert summary.index("reference  the internationalization") < summary.index("reference  he goes home")


def test_the_printed_summary_without_a_wer_does_not_say_wer(tmp_path: Path, fake: FakeStages) -> None:
    run = fake.run(recipe(tmp_path), "export")
    write_utterances(run, ("he goes home", "he is home", "he goes home"), target="en")
    content = read_json(run.summary)
    for scores in content["scores"].values():
        for system in ("base", "adapted"):
            scores[system]["chrf"] = 0.5
    lines = format_summary(run, RunSummary.model_validate(content)).splitlines()
    assert lines[1].split() == ["scores", "base", "adapted"]


def test_the_printed_summary_of_a_japanese_run_counts_characters(tmp_path: Path, fake: FakeStages) -> None:
    run = fake.run(recipe(tmp_path), "export")
    write_utterances(run, ("今日は晴れ", "きのうは雨", "今日は晴れだ"))
    row = read_jsonl(run.utterances)[0] | {"errors_base": 5, "errors": 1}  # of characters
    run.utterances.write_text(json.dumps(row) + "\n")
    content = read_json(run.summary)
    for system in ("base", "adapted"):
        content["scores"]["test"][system]["normalizer"] = "ja-cer@2"
    summary = format_summary(run, RunSummary.model_validate(content))
    assert "reference  今日は晴れ" in summary and "your domain (test), CER" in summary
