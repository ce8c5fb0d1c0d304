"""`prepare` in parts: killed, stopped by an error, as jobs of an array, in processes; the files are always the same."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from command import Command

from finetune.core.array_job import Shard
from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.core.run_dir import RunDir
from finetune.data.audio import AudioInfo, inspect_audio
from finetune.data.prepare import prepare, prepare_shard

Files = dict[str, bytes]
CLIPS = {"train": 90, "replay": 20, "valid": 5, "test": 5}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Splits with duplicate ids, rows without an id, copies, several channels and bad rows."""
    folder, rng = tmp_path_factory.mktemp("corpora"), np.random.default_rng(7)
    data: dict[str, Any] = {"allow_leaks": True, "max_bad_fraction": 0.3, "text": {"tags": "strip"}}
    for split, count in CLIPS.items():
        rows = list[dict[str, object]]()
        for number in range(count):
            path = folder / f"{split}-{number % 40}.wav"
            if number < 40:
                soundfile.write(path, rng.uniform(-0.3, 0.3, (5000 + number, 1 + number % 5 // 4)), 16_000)
            row: dict[str, object] = {"audio_filepath": str(path), "text": f"<unk> {split} {number % 60}"}
            rows.append(row | ({"id": f"id {number // 2}"} if number % 3 else {}))
        rows[3]["audio_filepath"] = "gone.wav"
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        data[split] = [str(folder / f"{split}.jsonl")]
    return data


@pytest.fixture(scope="module")
def whole(data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of `prepare` in one go."""
    run = RunDir(tmp_path_factory.mktemp("runs") / "whole")
    prepare(make_recipe(data, run.root.parent), run)
    found = files(run)
    assert {"train.jsonl", "replay.jsonl", "problems.json", "style.json"} <= found.keys()
    kinds = {
        problem["kind"]
        for split in json.loads(found["problems.json"]).values()
        for key in split
        for problem in split[key]
    }
    assert {"duplicate id", "missing audio", "duplicate audio", "several channels", "id changed"} <= kinds
    return found


def make_recipe(data: dict[str, Any], runs: Path, workers: int = 2) -> Recipe:
    machine = {"prepare_workers": workers}
    return Recipe.model_validate(
        {"name": "x", "runs": str(runs), "model": {"base": "-"}, "data": data, "machine": machine}
    )


def files(run: RunDir) -> Files:
    assert not run.prepare_work.exists()
    names = ("*.jsonl", "problems.json", "style.json", "*.npz", "*.arrow")
    return {path.name: path.read_bytes() for name in names for path in run.manifests.glob(name)}


class Stops:
    """`inspect_audio` that fails at the nth file, as a full disk or Ctrl-C would, and records the files."""

    def __init__(self, at: int) -> None:
        self.at, self.names = at, list[str]()

    def __call__(self, path: str, *args: float | None) -> AudioInfo:
        if len(self.names) == self.at:
            raise KeyboardInterrupt
        self.names.append(path)
        return inspect_audio(path, *args)  # type: ignore[arg-type]


def test_an_interrupted_prepare_continues(data: dict[str, Any], whole: Files, tmp_path: Path) -> None:
    run, recipe = RunDir(tmp_path / "run"), make_recipe(data, tmp_path, workers=1)
    decoded = list[str]()
    for at in (0, 7, 30, 50):
        stops = Stops(at)
        with pytest.raises(KeyboardInterrupt):
            prepare(recipe, run, inspect=stops)
        assert not run.manifests.exists()
        decoded += stops.names
    rest = Stops(10_000)
    prepare(recipe, run, inspect=rest)
    assert files(run) == whole
    once = Stops(10_000)
    prepare(recipe, RunDir(tmp_path / "other"), inspect=once)
    assert len(rest.names) < len(once.names) - 70
    assert len(decoded + rest.names) - len(once.names) <= 4 * (1 + 1) * 2, "a block for each interruption and worker"


def test_other_settings_or_corpora_use_no_old_block(data: dict[str, Any], tmp_path: Path) -> None:
    table = tmp_path / "train.jsonl"
    table.write_bytes(Path(data["train"][0]).read_bytes())
    data = {**data, "train": [str(table)]}
    run, bad = RunDir(tmp_path / "run"), {**data, "max_bad_fraction": 0.0}
    with pytest.raises(DataError, match="data.train: .* rows are unusable"):
        prepare(make_recipe(bad, tmp_path), run)
    again = Stops(10_000)
    with pytest.raises(DataError, match="data.train: .* rows are unusable"):
        prepare(make_recipe(bad, tmp_path), run, inspect=again)
    assert again.names == [], "an error is no reason to do the work twice"
    for change in ({}, {"text": {}}, {"min_duration": 0.21}):  # each differs from the one before
        if not change:
            table.write_text(table.read_text().replace("train 7", "train seven"))
        stops = Stops(10_000)
        with pytest.raises(DataError):
            prepare(make_recipe({**bad, **change}, tmp_path), run, inspect=stops)
        assert len(stops.names) >= 80, change
        assert len([path for path in (run.prepare_work / "train").iterdir() if path.is_dir()]) == 1


def test_jobs_of_an_array_give_the_files_of_one_process(data: dict[str, Any], whole: Files, tmp_path: Path) -> None:
    run, recipe = RunDir(tmp_path / "run"), make_recipe(data, tmp_path)
    names = list[str]()
    with pytest.raises(DataError, match="blocks of rows are missing .*, or an array of jobs with --shard"):
        prepare(recipe, run, merge=True)
    for number in (3, 1, 1):
        stops = Stops(10_000)
        prepare_shard(recipe, run, Shard(number, 3), stops)
        names += stops.names
    with pytest.raises(DataError, match=r"blocks of rows are missing \(\d+ of data.train, .*again for 2/3$"):
        prepare(recipe, run, merge=True)
    assert not run.manifests.exists()
    stops = Stops(10_000)
    prepare_shard(recipe, run, Shard(2, 3), stops)
    once = Stops(10_000)
    prepare(recipe, RunDir(tmp_path / "other"), inspect=once)
    assert sorted(names + stops.names) == sorted(once.names), "each row in one job; a second call does nothing"
    prepare(recipe, run, merge=True, inspect=Stops(0))
    assert files(run) == whole


def test_the_command(
    data: dict[str, Any], whole: Files, tmp_path: Path, finetune: Command, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "x.yaml"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "own file").touch()
    path.write_text(json.dumps({"runs": str(tmp_path), "model": {"base": "-"}, "data": data}))
    assert finetune("prepare", path, "--shard", "0/2").code == 2
    assert finetune("prepare", path, "--shard", "1/2", "--merge").code == 2
    assert "not a run directory" in finetune("prepare", path, "--shard", "1/2", "--set", "name=foreign").err
    assert finetune("prepare", path, "--shard", "1/2").code == 0
    failed = finetune("prepare", path, "--merge")
    assert failed.code == 1 and "`finetune prepare RECIPE --shard` again for 2/2" in failed.err
    assert finetune("prepare", path, "--shard", "2/2").code == 0
    assert finetune("prepare", path, "--merge").code == 0
    assert files(RunDir(tmp_path / "x")) == whole
    caplog.clear()
    assert finetune("prepare", path, "--shard", "2/2").code == 0
    assert caplog.messages == ["prepare: skipped, already done"] and not RunDir(tmp_path / "x").prepare_work.exists()


def test_what_a_killed_process_left_beside_the_manifests_is_removed(
    data: dict[str, Any], whole: Files, tmp_path: Path
) -> None:
    run = RunDir(tmp_path / "x")
    run.manifests.mkdir(parents=True)
    (run.manifests / ".train.arrow.123.tmp").write_bytes(b"half a table")
    prepare(make_recipe(data, tmp_path), run)
    assert files(run) == whole and not list(run.manifests.glob(".*"))
