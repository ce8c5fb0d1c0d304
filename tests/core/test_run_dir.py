"""The run directory: markers, the lock, and its recipe."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.core.errors import CheckpointError, DataError
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


def test_a_stage_is_complete_when_its_marker_is_written(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    assert run.done("train") is None
    run.finish("train", {"steps": 7})
    assert run.done("train") == {"steps": 7}
    assert run.done("export") is None


def test_a_damaged_record_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The stage reruns; without its record, a recipe is compared with the checkpoint when training starts."""
    run = RunDir(tmp_path / "run")
    run.claim(RECIPE)
    run.checkpoint.mkdir()
    for path in (run.marker("train"), run.recipe):
        path.write_text('{"epo')
    assert run.done("train") is None
    run.claim({**RECIPE, "seed": 2})
    assert caplog.text.count("damaged, so it is ignored") == 2 and read_json(run.recipe)["seed"] == 2


def test_the_lock_refuses_a_second_process_until_the_first_ends(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(CheckpointError, match="another process uses this run directory"), run.locked():
            raise AssertionError("not refused")
        other.kill()
    with run.locked():
        pass


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """The errors of writes and of safetensors name no file; a message that names the disk already stays as it is."""
    run = RunDir(tmp_path / "run")
    full = OSError(errno.ENOSPC, "No space left on device")
    message = r"^/.*: the disk is full \(.*No space left.*\); free some disk space"
    with pytest.raises(CheckpointError, match=message), run.locked():
        raise full
    with pytest.raises(DataError, match="^cache: No space left on device$"), run.locked():
        raise DataError("cache: No space left on device") from full
    with pytest.raises(OSError, match="Input/output error"), run.locked():
        raise OSError(errno.EIO, "Input/output error")


def test_the_lock_can_be_waited_for(tmp_path: Path) -> None:
    """A process that a launcher restarts waits for the children of the killed one."""
    run = RunDir(tmp_path / "run")
    program = HOLD.replace("sys.stdin.read()", "__import__('time').sleep(0.5)")
    with subprocess.Popen(
        [sys.executable, "-c", program, str(run.root)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        for patience in (0.0, 0.05):
            with pytest.raises(CheckpointError, match="another process uses"), run.locked(patience=patience):
                raise AssertionError("not refused")
        with run.locked(patience=30.0):
            pass


def test_the_same_recipe_can_use_a_directory_again(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    with run.locked():
        run.claim(RECIPE)
        run.claim(RECIPE)
    assert read_json(run.recipe) == RECIPE


def test_another_recipe_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.claim(RECIPE)
    run.checkpoint.mkdir()
    with pytest.raises(CheckpointError, match=r"differs in train\.learning_rate\); .* choose another name"):
        run.claim({**RECIPE, "train": {"epochs": 3, "learning_rate": 2e-3}})
    with pytest.raises(CheckpointError, match=r"differs in seed, train\.warmup\)"):
        run.claim({**RECIPE, "seed": 2, "train": {**RECIPE["train"], "warmup": 0.2}})  # type: ignore[dict-item]
    assert read_json(run.recipe) == RECIPE


def test_a_setting_that_an_earlier_version_did_not_have_equals_its_default(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.claim(RECIPE)
    newer = {**RECIPE, "augment": {"clipping": 0.0}, "train": {**RECIPE["train"], "optimizer": "adamw"}}  # type: ignore[dict-item]
    for seed in (2, 1):  # before the training; the record has the keys of that version, also after a change
        run.claim({**newer, "seed": seed})
        assert run.claimed() == {**RECIPE, "seed": seed}
    run.best.mkdir()
    run.claim(newer)
    with pytest.raises(CheckpointError, match=r"a run of another recipe \(differs in augment\.clipping, seed\)"):
        run.claim({**newer, "augment": {"clipping": 0.1}, "seed": 2})
    with pytest.raises(CheckpointError, match=r"\(differs in train\.optimizer\)"):
        run.claim({**newer, "train": {**RECIPE["train"], "optimizer": "adamw-8bit"}})  # type: ignore[dict-item]
    fewer = {key: value for key, value in RECIPE.items() if key != "seed"}
    with pytest.raises(CheckpointError, match=r"\(differs in seed\)"):
        run.claim(fewer)  # a key that this version does not have


def test_a_recipe_can_change_before_training(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.claim({**RECIPE, "seed": 2})
    run.claim(RECIPE)
    assert read_json(run.recipe) == RECIPE


def test_a_folder_that_is_not_a_run_directory_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("text")
    with pytest.raises(CheckpointError, match="exists and is not a run directory"):
        RunDir(tmp_path).claim(RECIPE)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("trained", ["checkpoint", "best"])
def test_a_run_of_an_earlier_version_is_refused_with_advice(tmp_path: Path, trained: str) -> None:
    """The old keys of recipe.json: `train.interpolate` was `train.shrink`, `augment.concat` was `augment.join`."""
    run = RunDir(tmp_path / "run")
    before = {**RECIPE, "train": {"shrink": [0.9]}, "augment": {"join": 0.0}}
    run.claim(before)
    (run.root / trained).mkdir()
    with pytest.raises(CheckpointError) as caught:
        run.claim({**RECIPE, "train": {"interpolate": [0.9]}, "augment": {"concat": 0.0}})
    for text in (str(run.root), "augment.join, train.shrink", "augment.concat, train.interpolate", "--set name=..."):
        assert text in str(caught.value)
    assert read_json(run.recipe) == before
    with pytest.raises(CheckpointError, match="earlier version"):
        run.check_version()


@pytest.mark.parametrize("name", ["file/run", "a\0b", "a" * 300])
def test_a_run_directory_that_cannot_be_made_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="the run directory cannot be written"), RunDir(tmp_path / name).locked():
        pass


def test_jobs_of_an_array_share_the_lock(tmp_path: Path) -> None:
    with RunDir(tmp_path).locked(shared=True):
        with RunDir(tmp_path).locked(shared=True):
            pass
        with pytest.raises(CheckpointError, match="another process uses"), RunDir(tmp_path).locked():
            pass
    with (
        RunDir(tmp_path).locked(),
        pytest.raises(CheckpointError, match="another process uses"),
        RunDir(tmp_path).locked(shared=True),
    ):
        pass
