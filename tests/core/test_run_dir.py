"""The run directory: markers, the lock, and whose directory it is."""

import subprocess
import sys
from pathlib import Path

import pytest

from finetune.core.errors import CheckpointError
from finetune.core.files import read_json
from finetune.core.run_dir import RunDir

HOLD = """
import sys
from finetune.core.run_dir import RunDir
with RunDir(sys.argv[1]).locked():
    print("held", flush=True)
    sys.stdin.read()
"""
RECIPE = {"data": {"train": ["a.jsonl"]}, "train": {"epochs": 3, "learning_rate": 1e-3}, "seed": 1}


def test_a_stage_is_done_only_after_its_marker(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    assert run.done("train") is None
    run.finish("train", {"steps": 7})
    assert run.done("train") == {"steps": 7}
    assert run.done("export") is None


def test_a_damaged_record_is_taken_for_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A stage runs again; a recipe that cannot be compared is the checkpoint's to judge."""
    run = RunDir(tmp_path / "run")
    run.claim(RECIPE)
    run.checkpoint.mkdir()
    for path in (run.marker("train"), run.recipe):
        path.write_text('{"epo')
    assert run.done("train") is None
    run.claim({**RECIPE, "seed": 2})
    assert caplog.text.count("damaged, and taken for missing") == 2 and read_json(run.recipe)["seed"] == 2


def test_the_lock_refuses_a_second_process_and_outlives_no_first_one(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(CheckpointError, match="another process works in this run directory"), run.locked():
            raise AssertionError("got in")
        other.kill()
    with run.locked():
        pass


def test_the_same_recipe_may_come_back(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    with run.locked():
        run.claim(RECIPE)
        run.claim(RECIPE)
    assert read_json(run.recipe) == RECIPE


def test_another_recipe_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.claim(RECIPE)
    run.checkpoint.mkdir()
    with pytest.raises(CheckpointError, match=r"differs in train\.learning_rate\); choose another name"):
        run.claim({**RECIPE, "train": {"epochs": 3, "learning_rate": 2e-3}})
    with pytest.raises(CheckpointError, match=r"differs in seed, train\.warmup\)"):
        run.claim({**RECIPE, "seed": 2, "train": {**RECIPE["train"], "warmup": 0.1}})  # type: ignore[dict-item]
    assert read_json(run.recipe) == RECIPE


def test_a_recipe_may_change_until_something_is_trained(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.claim({**RECIPE, "seed": 2})
    run.claim(RECIPE)
    assert read_json(run.recipe) == RECIPE


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="exists and is not a run directory"):
        RunDir(tmp_path).claim(RECIPE)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
