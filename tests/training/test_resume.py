"""A run that was killed, stopped, or ran out of disk space or memory resumes to the same result."""

import os
import re
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
from training_runs import Killed, KillInStep, NoStep, Output, load_with_hook, prepared, records, weights

from finetune.core.config import EvaluateSection, Recipe
from finetune.core.errors import CheckpointError, Interrupted, ModelError
from finetune.core.files import read_json, sha256_file, write_json
from finetune.core.options import DecodingOptions
from finetune.core.run_dir import RunDir
from finetune.data.manifest import read_manifest, write_manifest
from finetune.model.adapter import FULL_WEIGHTS, LORA_WEIGHTS
from finetune.model.granite import SpeechModel, load_model
from finetune.pipeline import run_recipe
from finetune.training import checkpoint
from finetune.training.selection import SCORES, Scores
from finetune.training.trainer import Trainer, train

ROOT = Path(__file__).resolve().parents[2]
Tiny = Callable[..., Recipe]
Trained = tuple[Recipe, RunDir, SpeechModel]


def assert_same_run(run: RunDir, unbroken: RunDir) -> None:
    for name, value in weights(unbroken).items():
        assert torch.equal(value, weights(run)[name]), name
    for name in (LORA_WEIGHTS, FULL_WEIGHTS):
        assert (unbroken.best / name).read_bytes() == (run.best / name).read_bytes()
    for kind in ("step", "valid"):
        assert records(run, kind) == records(unbroken, kind)


def test_a_run_killed_in_any_step_resumes_to_the_same_weights(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    """With dropout and augmentation. Each attempt is killed in its second step, and one while it saves."""
    recipe, run = tiny(tmp_path, "killed", machine={"checkpoint_every": 1}), prepared(trained[1], tmp_path / "killed")

    def killed(path: Path, content: Any) -> None:
        raise Killed

    attempts = 0
    while attempts < 10:
        files = replace(checkpoint.DISK, write_json=killed) if attempts == 1 else checkpoint.DISK
        try:
            Trainer(recipe, run, [KillInStep(1)], files=files).fit()
            break
        except Killed:
            attempts += 1
    assert attempts >= 4
    assert_same_run(run, trained[1])


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.PROGRESS])
def test_a_run_with_a_damaged_checkpoint_resumes_from_the_one_before(
    trained: Trained, tiny: Tiny, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    recipe, run = tiny(tmp_path, "x", machine={"checkpoint_every": 1}), prepared(trained[1], tmp_path / "x")
    with pytest.raises(Killed):
        train(recipe, run, [KillInStep(3)])
    (run.checkpoint / name).write_bytes((run.checkpoint / name).read_bytes()[:-7])
    trainer = Trainer(recipe, run)
    assert trainer.state.step == 2 and "resuming from the previous checkpoint" in caplog.text
    trainer.fit()
    assert_same_run(run, trained[1])


def hold_still(trainer: Trainer) -> str:
    """Makes the optimizer skip one parameter; returns the parameter's name."""
    name = next(name for name in trainer.parameters if "projector" in name and name.endswith("weight"))
    parameter, optimizer, values = trainer.parameters[name], trainer.optimizer.optimizer, list[torch.Tensor]()

    def keep(*_: Any) -> None:
        values.append(parameter.detach().clone())

    def put_back(*_: Any) -> None:
        with torch.no_grad():
            parameter.copy_(values.pop())

    optimizer.register_step_pre_hook(keep)
    optimizer.register_step_post_hook(put_back)
    return name


def test_only_a_new_run_checks_that_its_first_step_changes_every_parameter(
    trained: Trained, tiny: Tiny, tmp_path: Path
) -> None:
    """In a resumed run, AdamW's moments can cancel a gradient, and rounding can remove a step; this is not an error."""
    run = prepared(trained[1], tmp_path)
    recipe = tiny(tmp_path, "x", machine={"checkpoint_every": 1})
    with pytest.raises(Killed):
        train(recipe, run, [KillInStep(2)])
    trainer = Trainer(recipe, run)
    name = hold_still(trainer)
    before = trainer.parameters[name].detach().clone()
    trainer.fit()
    assert torch.equal(weights(run)[name], before) and not torch.equal(before, weights(trained[1])[name])
    assert len(records(run, "step")) == len(records(trained[1], "step"))
    trainer = Trainer(recipe, prepared(trained[1], tmp_path / "new"))
    with pytest.raises(ModelError, match=f"{re.escape(hold_still(trainer))}: has a gradient"):
        trainer.fit()


def test_a_signal_ends_the_step_and_the_next_call_resumes(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    recipe, run = tiny(tmp_path, "signal"), prepared(trained[1], tmp_path / "signal")

    def signalled(number: int, output: Output) -> Output:
        if number == 0:
            os.kill(os.getpid(), signal.SIGTERM)  # arrives during the first step
        return output

    with pytest.raises(Interrupted, match="SIGTERM after step 1"):
        Trainer(recipe, run, load_model=load_with_hook(signalled)).fit()
    train(recipe, run)
    assert_same_run(run, trained[1])


def test_a_finished_run_is_not_trained_again(trained: Trained) -> None:
    """The stage does not start: its marker, which each run of the stage writes, is the same file."""
    recipe, run, _ = trained
    before = run.marker("train").stat()
    assert run_recipe(recipe, "train").done("train") == run.done("train")
    after = run.marker("train").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_run_killed_after_its_last_step_does_not_train_again(trained: Trained, tmp_path: Path) -> None:
    recipe, run, _ = trained
    other = prepared(run, tmp_path)
    for part in ("checkpoint", "best"):
        shutil.copytree(run.root / part, tmp_path / part)
    done = run.done("train")
    assert done is not None
    assert train(recipe, other, [NoStep()]).best_epoch == done["best_epoch"]


def test_a_resumed_run_finds_or_replaces_its_best_adapter(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A kill between the two renames of a save leaves it under another name; a deleted one is replaced."""
    run = RunDir(shutil.copytree(trained[1].root, tmp_path / "copy"))
    saved = (run.best / LORA_WEIGHTS).read_bytes()
    run.best.rename(run.root / "best.old")
    result = train(trained[0], run)
    assert (run.best / LORA_WEIGHTS).read_bytes() == saved and "is missing" not in caplog.text
    assert not (run.root / "best.old").exists()
    shutil.rmtree(run.best)
    replaced = train(trained[0], run)
    assert run.best.is_dir() and "is missing, so the next weights that are scored are saved there" in caplog.text
    assert (replaced.best_epoch, replaced.steps) == (trained[0].train.epochs, result.steps)


def test_a_finished_run_without_its_best_adapter_says_what_to_do(trained: Trained, tmp_path: Path) -> None:
    """Its stages are not complete, and to train again or to take other weights is the user's choice."""
    root = Path(shutil.copytree(trained[1].root, tmp_path / trained[0].name))
    recipe, run = trained[0].model_copy(update={"runs": str(tmp_path)}), RunDir(root)
    run.best.rename(tmp_path / "kept")
    for last in ("train", "evaluate"):
        with pytest.raises(CheckpointError, match=r"best: is missing, .*restore it, or delete .*train\.done\.json"):
            run_recipe(recipe, last)
    run.marker("train").unlink()
    run_recipe(recipe, "train")
    assert run.best.is_dir() and (run.done("train") or {})["best_epoch"] == recipe.train.epochs


@pytest.mark.parametrize(("repeated", "says_best"), [(0.4, True), (0.6, False)])
def test_the_scores_of_a_resumed_run_are_those_of_its_best_adapter(
    trained: Trained, tiny: Tiny, tmp_path: Path, repeated: float, says_best: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The kill comes after the best adapter of epoch 2 and before its checkpoint; the epoch is trained again."""
    recipe, run, saves = tiny(tmp_path, "x"), prepared(trained[1], tmp_path), list[Path]()

    def killed_in_second_save(path: Path, content: Any) -> None:
        saves.extend([path] * (path.name == checkpoint.PROGRESS))
        if len(saves) == 2:
            raise Killed
        write_json(path, content)

    scores = iter([Scores(0.9, None), Scores(0.5, None), Scores(0.4, None)])
    files = replace(checkpoint.DISK, write_json=killed_in_second_save)
    with pytest.raises(Killed):
        Trainer(recipe, run, files=files, measure=lambda *_: next(scores)).fit()
    saved = (run.best / LORA_WEIGHTS).read_bytes()
    with caplog.at_level("INFO"):
        result = Trainer(recipe, run, measure=lambda *_: Scores(repeated, None)).fit()
    assert (result.best_epoch, result.best_valid_wer) == (2, 0.4)
    assert (run.best / LORA_WEIGHTS).read_bytes() == saved
    assert (f"valid WER {100 * repeated:.1f} %  (best)" in caplog.text) == says_best


def test_an_adapter_that_is_no_better_than_empty_texts_says_so(
    trained: Trained, tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        Trainer(tiny(tmp_path, "x"), prepared(trained[1], tmp_path), measure=lambda *_: Scores(1.0, None)).fit()
    assert "valid WER 100.0 %  (best so far, but no better than empty texts)" in caplog.text


@pytest.mark.parametrize("content", [None, "{", "[]", '{"best": {"wer": 1}, "best_epoch": 1, "best_alpha": 1}'])
def test_a_best_adapter_without_its_scores_has_those_of_the_checkpoint(
    trained: Trained, tmp_path: Path, content: str | None
) -> None:
    """An earlier version did not save them."""
    run = RunDir(shutil.copytree(trained[1].root, tmp_path / "copy"))
    (run.best / SCORES).unlink()
    if content is not None:
        (run.best / SCORES).write_text(content)
    result, done = train(trained[0], run, [NoStep()]), trained[1].done("train") or {}
    assert (result.best_epoch, result.best_valid_wer) == (done["best_epoch"], done["best_valid_wer"])


def test_changed_values_are_named_and_the_checkpoint_is_kept(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    recipe, run, _ = trained
    with pytest.raises(CheckpointError, match=r"differs in train\.learning_rate"):
        run_recipe(tiny(run.root.parent, recipe.name, learning_rate=1e-5), "train")
    other = prepared(run, tmp_path)
    shutil.copytree(run.checkpoint, other.checkpoint)
    with pytest.raises(CheckpointError, match="batches_in_a_step: was 2, now 3"):
        train(recipe.model_copy(update={"train": recipe.train.model_copy(update={"accumulation": 3})}), other)
    scored = recipe.model_copy(
        update={"evaluate": EvaluateSection(normalizer="none"), "decode": DecodingOptions(terms=("a",))}
    )
    with pytest.raises(
        CheckpointError, match=r'decode\.terms: was \[\], now \["a"\]; evaluate\.normalizer: was "basic@2", '
    ):
        train(scored, other)
    write_manifest(other.manifest("train"), read_manifest(other.manifest("train"))[:-1])
    with pytest.raises(CheckpointError, match=r"data\.train: was \"\w{16}…, now \"\w{16}…"):
        train(recipe, other)
    for name, value in weights(run).items():
        assert torch.equal(value, weights(other)[name]), name


def test_a_checkpoint_of_a_version_without_the_newest_settings_is_resumed(trained: Trained, tmp_path: Path) -> None:
    recipe, run, _ = trained
    other = prepared(run, tmp_path)
    for part in ("checkpoint", "best"):
        shutil.copytree(run.root / part, tmp_path / part)
    origin, files = checkpoint.read_origin(other.checkpoint), read_json(other.checkpoint / checkpoint.FILES)
    del origin["train"]["optimizer"], origin["parts"]["language_model"], origin["augment"]["no_speech"]
    del origin["decode"], origin["evaluate"]  # were not stored, so nothing is known of them
    recipe = recipe.model_copy(update={"evaluate": EvaluateSection(normalizer="none")})
    write_json(other.checkpoint / checkpoint.ORIGIN, origin)
    hashes = {**files, checkpoint.ORIGIN: sha256_file(other.checkpoint / checkpoint.ORIGIN)}
    write_json(other.checkpoint / checkpoint.FILES, hashes)
    assert train(recipe, other, [NoStep()]).steps == len(records(run, "step"))


def test_another_base_does_not_resume(trained: Trained, tmp_path: Path) -> None:
    recipe, run, _ = trained
    other = prepared(run, tmp_path)
    shutil.copytree(run.checkpoint, other.checkpoint)

    def changed(*arguments: Any) -> SpeechModel:
        model = load_model(*arguments)
        with torch.no_grad():
            model.lm_head.weight[0, 0] += 1e-3
        return model

    with pytest.raises(CheckpointError, match="base: "):
        Trainer(recipe, other, load_model=changed)


@pytest.mark.parametrize("limit", [0, 1])
def test_steps_with_a_nan_loss_are_skipped_up_to_a_limit(
    trained: Trained, tiny: Tiny, tmp_path: Path, limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The second step's loss is NaN: the step is skipped and its clips are named, or the run ends."""
    other = prepared(trained[1], tmp_path)
    recipe = tiny(tmp_path, "x", max_skipped_steps=limit, machine={"checkpoint_every": 1})

    def spoil(number: int, output: Output) -> Output:
        return (output[0] * float("nan"), output[1]) if number == 2 else output

    trainer = Trainer(recipe, other, load_model=load_with_hook(spoil))
    if limit:
        result = trainer.fit()
        assert result.skipped_steps == 1 and "step 2: loss nan" in caplog.text and "train-" in caplog.text
        assert all(torch.isfinite(value).all() for value in weights(other).values())
        return
    with pytest.raises(CheckpointError, match=r"step 2: loss nan.*train-.*max_skipped_steps"):
        trainer.fit()
    assert train(recipe, other).steps == len(records(other, "step"))  # resumes after step 1


def test_a_run_out_of_memory_resumes_with_gradient_checkpointing(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    """The `machine` section can change between two calls, and the recomputed layers give the same losses."""
    other = prepared(trained[1], tmp_path)

    def full(number: int, output: Output) -> Output:
        if number == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return output

    trainer = Trainer(tiny(tmp_path, "x", machine={"checkpoint_every": 1}), other, load_model=load_with_hook(full))
    with pytest.raises(ModelError, match="Tried to allocate 2.00 GiB.*machine.gradient_checkpointing: true"):
        trainer.fit()
    assert len(records(other, "step")) == 1
    train(tiny(tmp_path, "x", machine={"gradient_checkpointing": True, "encoder_checkpointing": True}), other)
    for before, after in zip(records(trained[1], "step"), records(other, "step"), strict=True):
        assert before["loss"] == pytest.approx(after["loss"], rel=1e-5)


def test_training_continues_on_a_full_disk(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    other = prepared(trained[1], tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    result = Trainer(tiny(tmp_path, "x"), other, files=replace(checkpoint.DISK, save_file=full)).fit()
    assert result.steps == len(records(trained[1], "step")) and not other.checkpoint.exists()


def test_a_signal_after_a_failed_save_names_no_step(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    """The disk is full at the checkpoint of the last epoch, and the signal comes while an alpha is scored."""
    recipe, run = tiny(tmp_path, "x", epochs=2, interpolate=[0.9]), prepared(trained[1], tmp_path)
    scores = iter([Scores(0.9, None), Scores(0.5, None), Scores(0.4, None), Scores(0.6, None)])
    saves: list[Path] = []

    def measured(*_: Any) -> Scores:
        score = next(scores)
        if score.valid == 0.6:
            os.kill(os.getpid(), signal.SIGTERM)
        return score

    def full_at_the_end(tensors: dict[str, torch.Tensor], path: Path) -> None:
        saves.append(path)
        if len(saves) > 2:  # after weights and moments of the first epoch
            raise OSError(28, "No space left on device")
        checkpoint.DISK.save_file(tensors, path)

    files = replace(checkpoint.DISK, save_file=full_at_the_end)
    with pytest.raises(Interrupted, match=r"^stopped by SIGTERM; rerun to resume$"):
        Trainer(recipe, run, files=files, measure=measured).fit()
    assert len(saves) == 3


def test_a_run_resumes_after_a_signal_while_interpolated_weights_are_scored(
    trained: Trained, tiny: Tiny, tmp_path: Path
) -> None:
    """The signal comes at the second of three alphas; the next call scores all alphas and trains no step."""
    scores = [Scores(0.9, None), Scores(0.5, None), Scores(0.4, None), Scores(0.6, None), Scores(0.7, None)]
    first_call = iter(scores[:4])

    def measured(*_: Any) -> Scores:
        measurement = next(first_call)
        if measurement is scores[3]:
            os.kill(os.getpid(), signal.SIGTERM)
        return measurement

    recipe, run = tiny(tmp_path, "a", epochs=1, interpolate=[0.9, 0.5, 0.4]), prepared(trained[1], tmp_path)
    with pytest.raises(Interrupted, match="SIGTERM after step"):
        Trainer(recipe, run, measure=measured).fit()
    second_call = iter([scores[2], scores[3], scores[4]])
    result = Trainer(recipe, run, [NoStep()], measure=lambda *_: next(second_call)).fit()
    assert (result.best_alpha, result.best_valid_wer, result.base_valid_wer) == (0.9, 0.4, 0.9)


def test_several_processes_can_only_train(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setitem(os.environ, name, value)
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


def test_sigkill_at_random_moments_does_not_change_the_result() -> None:
    """Three kills; `scripts/kill_resume.py` does twenty by default."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "kill_resume.py"), "--kills", "3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "every loss, score and weight equals the unbroken run" in done.stdout
