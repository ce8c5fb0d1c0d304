"""No work is lost: a run that was killed, stopped, or ran out of disk or memory goes on as if nothing had been."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import prepared, records, weights

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, Interrupted, ModelError
from finetune.core.run_dir import RunDir
from finetune.data.manifest import read_manifest, write_manifest
from finetune.model.adapter import ADAPTER_WEIGHTS, WHOLE_WEIGHTS
from finetune.model.granite import GraniteSpeech
from finetune.pipeline import run_recipe
from finetune.training import checkpoint
from finetune.training import trainer as training
from finetune.training.selection import Scores
from finetune.training.step import StepResult

ROOT = Path(__file__).resolve().parents[2]
Tiny = Callable[..., Recipe]
Trained = tuple[Recipe, RunDir, GraniteSpeech]


class Killed(BaseException):
    """As if the process ended here."""


def kill_in_step(patch: pytest.MonkeyPatch, number: int) -> None:
    """Ends the process in the middle of that step of this call (from 0)."""
    take_step, calls = training.take_step, iter(range(1_000_000))

    def killing(*arguments: Any) -> StepResult:
        if next(calls) == number:
            raise Killed
        return take_step(*arguments)

    patch.setattr(training, "take_step", killing)


def assert_same_run(run: RunDir, whole: RunDir) -> None:
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(run)[name]), name
    for name in (ADAPTER_WEIGHTS, WHOLE_WEIGHTS):
        assert (whole.best / name).read_bytes() == (run.best / name).read_bytes()
    for kind in ("step", "valid"):
        assert records(run, kind) == records(whole, kind)


def test_a_run_killed_in_any_step_goes_on_to_the_same_weights(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    """With dropout and augmentation; each attempt is killed in its second step, and one while it saves."""
    recipe = tiny(tmp_path, "killed", machine={"checkpoint_every": 1})
    attempts = 0
    while attempts < 10:
        with pytest.MonkeyPatch.context() as patch:
            kill_in_step(patch, 1)
            if attempts == 1:
                patch.setattr(checkpoint, "write_json", lambda *_: (_ for _ in ()).throw(Killed))
            try:
                run = run_recipe(recipe, "train")
                break
            except Killed:
                attempts += 1
    assert attempts >= 4
    assert_same_run(run, trained[1])


def test_a_resumed_run_is_not_held_to_how_far_its_step_goes(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    """Where gradients turn round, AdamW's moments cancel: a step may then be lost in rounding and is no fault."""
    from finetune.training import step

    other = prepared(trained[1], tmp_path)
    recipe = tiny(tmp_path, "x", machine={"checkpoint_every": 1})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_in_step(patch, 2)
        training.train(recipe, other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "with_gradient", lambda *_: {"a part that did not move"})
        training.train(recipe, other)
        assert_same_run(other, trained[1])
        with pytest.raises(ModelError, match="a part that did not move: has a gradient"):
            training.train(recipe, prepared(trained[1], tmp_path / "anew"))


def test_a_signal_ends_the_step_and_the_next_call_goes_on(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(tmp_path, "asked")
    with pytest.MonkeyPatch.context() as patch:
        take_step = training.take_step

        def signalled(*arguments: Any) -> StepResult:
            os.kill(os.getpid(), signal.SIGTERM)  # arrives during the step
            return take_step(*arguments[:5], 15, *arguments[6:])

        patch.setattr(training, "take_step", signalled)
        with pytest.raises(Interrupted, match="SIGTERM after step 1"):
            run_recipe(recipe, "train")
    assert_same_run(run_recipe(recipe, "train"), trained[1])


def test_a_finished_run_is_not_trained_again(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, run, _ = trained
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("trained again"))
    assert run_recipe(recipe, "train").done("train") == run.done("train")


def test_a_run_killed_after_its_last_step_only_reports(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run, _ = trained
    other = prepared(run, tmp_path)
    for part in ("checkpoint", "best"):
        shutil.copytree(run.root / part, tmp_path / part)
    monkeypatch.setattr(training, "take_step", lambda *_: pytest.fail("trained again"))
    done = run.done("train")
    assert done is not None
    assert training.train(recipe, other).best_epoch == done["best_epoch"]


def test_what_changed_is_named_and_nothing_is_lost(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    recipe, run, _ = trained
    with pytest.raises(CheckpointError, match=r"differs in train\.learning_rate"):
        run_recipe(tiny(run.root.parent, recipe.name, learning_rate=1e-5), "train")
    other = prepared(run, tmp_path)
    shutil.copytree(run.checkpoint, other.checkpoint)
    with pytest.raises(CheckpointError, match="batches_in_a_step: 2 then, 3 now"):
        training.train(recipe.model_copy(update={"train": recipe.train.model_copy(update={"accumulation": 3})}), other)
    write_manifest(other.manifest("train"), read_manifest(other.manifest("train"))[:-1])
    with pytest.raises(CheckpointError, match=r"data\.train: \"\w{16}… then, \"\w{16}… now"):
        training.train(recipe, other)
    for name, value in weights(run).items():
        assert torch.equal(value, weights(other)[name]), name


def test_another_base_does_not_go_on(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, run, _ = trained
    other = prepared(run, tmp_path)
    shutil.copytree(run.checkpoint, other.checkpoint)
    load = training.load_model

    def changed(*arguments: Any) -> GraniteSpeech:
        model = load(*arguments)
        with torch.no_grad():
            model.lm_head.weight[0, 0] += 1e-3
        return model

    monkeypatch.setattr(training, "load_model", changed)
    with pytest.raises(CheckpointError, match="base: "):
        training.train(recipe, other)


@pytest.mark.parametrize("budget", [0, 1])
def test_steps_that_are_no_number_are_skipped_within_a_budget(
    trained: Trained, tiny: Tiny, tmp_path: Path, budget: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The second step's loss is NaN once: skipped with its clips named, or the end, with the checkpoint before it."""
    other = prepared(trained[1], tmp_path)
    recipe = tiny(tmp_path, "x", max_skipped_steps=budget, machine={"checkpoint_every": 1})
    with pytest.MonkeyPatch.context() as patch:
        from finetune.training import step

        calls, plain = iter(range(1000)), step.token_loss
        patch.setattr(step, "token_loss", lambda *given: plain(*given) * (float("nan") if next(calls) == 2 else 1.0))
        if budget:
            result = training.train(recipe, other)
            assert result.skipped_steps == 1 and "step 2: loss nan" in caplog.text and "train-" in caplog.text
            assert all(torch.isfinite(value).all() for value in weights(other).values())
            return
        with pytest.raises(CheckpointError, match=r"step 2: loss nan.*train-.*max_skipped_steps"):
            training.train(recipe, other)
    assert training.train(recipe, other).steps == len(records(other, "step"))  # goes on from step 1


def test_a_run_out_of_memory_goes_on_with_checkpointing(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    """As the message says: `machine` is not part of what a run is, and the recomputed layers give the same losses."""
    from finetune.training import step

    other = prepared(trained[1], tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        calls, plain = iter(range(1000)), step.token_loss

        def full(*given: Any) -> torch.Tensor:
            if next(calls) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return plain(*given)

        patch.setattr(step, "token_loss", full)
        with pytest.raises(ModelError, match="Tried to allocate 2.00 GiB.*machine.gradient_checkpointing: true"):
            training.train(tiny(tmp_path, "x", machine={"checkpoint_every": 1}), other)
    training.train(tiny(tmp_path, "x", machine={"gradient_checkpointing": True}), other)
    for before, after in zip(records(trained[1], "step"), records(other, "step"), strict=True):
        assert before["loss"] == pytest.approx(after["loss"], rel=1e-5)


def test_a_full_disk_keeps_the_last_checkpoint_and_goes_on(
    trained: Trained, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = prepared(trained[1], tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    result = training.train(tiny(tmp_path, "x"), other)
    assert result.steps == len(records(trained[1], "step")) and not other.checkpoint.exists()


def test_a_signal_while_shares_are_scored_ends_the_run_and_loses_nothing(
    trained: Trained, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes with the second of three shares; the next call scores all of them and trains no step again."""
    scores = [Scores(0.9, None), Scores(0.5, None), Scores(0.4, None), Scores(0.6, None), Scores(0.7, None)]
    heard = iter(scores[:4])

    def measured(*_: Any) -> Scores:
        found = next(heard)
        if found is scores[3]:
            os.kill(os.getpid(), signal.SIGTERM)
        return found

    monkeypatch.setattr(training, "measure", measured)
    recipe, run = tiny(tmp_path, "a", epochs=1, interpolate=[0.9, 0.5, 0.4]), prepared(trained[1], tmp_path)
    with pytest.raises(Interrupted, match="SIGTERM after step"):
        training.train(recipe, run)
    heard = iter([scores[2], replace(scores[3]), scores[4]])
    monkeypatch.setattr(training, "take_step", lambda *_: pytest.fail("trained again"))
    result = training.train(recipe, run)
    assert (result.best_alpha, result.best_valid_wer, result.base_valid_wer) == (0.9, 0.4, 0.9)


def test_several_processes_may_only_train(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    for last in ("prepare", "train", "export"):
        with pytest.raises(CheckpointError, match="accelerate launch"):
            run_recipe(tiny(tmp_path, "many"), last)


def test_a_second_process_in_the_same_directory_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(tmp_path, "locked")
    (tmp_path / "locked.yaml").write_text(recipe.model_dump_json(exclude_none=True))  # JSON is YAML
    with RunDir(tmp_path / "locked").locked():
        done = subprocess.run(
            [sys.executable, "-m", "finetune", "train", str(tmp_path / "locked.yaml")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1 and "another process uses this run directory" in done.stderr


def test_sigkill_at_random_moments_changes_nothing() -> None:
    """Three kills; `scripts/kill_resume.py` alone does twenty."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "kill_resume.py"), "--kills", "3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "every loss, score and weight equals the unbroken run" in done.stdout
