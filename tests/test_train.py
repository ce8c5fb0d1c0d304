"""Training end to end on six clips: what changes, what is kept, and that a stopped run loses nothing."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import summed_loss

from finetune import train as training
from finetune.config import AugmentSection, Recipe
from finetune.data.loader import plan_epoch
from finetune.data.manifest import read_manifest, write_manifest
from finetune.decoding.recognize import DecodeOptions, recognize
from finetune.errors import CheckpointError
from finetune.metrics.wer import score
from finetune.model.granite import GraniteSpeech
from finetune.model.lora import ADAPTER_WEIGHTS, WHOLE_WEIGHTS, load_adapter, part_of, trained_parameters
from finetune.model.prompt import encode_text
from finetune.pipeline import run_recipe
from finetune.runs import RunDir
from finetune.training import checkpoint
from finetune.training.loss import token_loss
from finetune.training.tracking import Tracker

ROOT = Path(__file__).resolve().parents[1]
Tiny = Callable[..., Recipe]
Trained = tuple[Recipe, RunDir, GraniteSpeech]


class Stopped(BaseException):
    """As if the process ended here."""


def weights(run: RunDir) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(run.checkpoint / checkpoint.WEIGHTS)
    return found


def records(run: RunDir, kind: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def stop(*_: object, **__: object) -> None:
    raise Stopped


def stop_after_epoch(patch: pytest.MonkeyPatch, epoch: int) -> None:
    """Ends the process right after the checkpoint of that epoch was written."""
    save = checkpoint.save

    def stopping(*arguments: Any) -> None:
        save(*arguments)
        if arguments[-1]["epoch"] == epoch:
            raise Stopped

    patch.setattr(checkpoint, "save", stopping)


def test_only_what_trains_has_changed(trained: Trained, model: Callable[[], GraniteSpeech]) -> None:
    """And no buffer: BatchNorm's statistics are the base model's."""
    _, _, after = trained
    base = {**dict(model().hf.named_parameters()), **dict(model().hf.named_buffers())}
    open_names = set(trained_parameters(after))
    assert {part_of(name) for name in open_names} == {"lora", "projector", "encoder"}
    compared = 0
    for name, value in [*after.hf.named_parameters(), *after.hf.named_buffers()]:
        original = base.get(name.replace(".base_layer", ""))
        if "lora_" in name:
            continue
        assert original is not None, name
        assert torch.equal(value, original) == (name not in open_names), name
        compared += 1
    assert compared == len(base)
    assert any("running_mean" in name for name in base)
    assert all(value.any() for name, value in after.hf.named_parameters() if "lora_B" in name)


def test_the_best_adapter_is_the_one_of_the_best_epoch(trained: Trained, model: Callable[[], GraniteSpeech]) -> None:
    recipe, run, _ = trained
    done = run.done("train")
    assert done is not None
    wers = {row["epoch"]: row["wer"] for row in records(run, "valid")}
    assert set(wers) == {1, 2}
    assert done["best_valid_wer"] == min(wers.values()) == wers[done["best_epoch"]]
    assert {ADAPTER_WEIGHTS, WHOLE_WEIGHTS} <= {path.name for path in run.best.iterdir()}
    adapted = model()
    load_adapter(adapted, run.best)
    heard = recognize(adapted, read_manifest(run.manifest("valid")), DecodeOptions(
        recipe.model.instruction, False, recipe.decode.batch_seconds, recipe.decode.max_new_tokens))
    references = [item.text for item in read_manifest(run.manifest("valid"))]
    again = score(references, [item.text for item in heard], recipe.evaluate.normalizer).wer
    assert again == pytest.approx(done["best_valid_wer"])


def test_the_record_says_what_happened(trained: Trained) -> None:
    recipe, run, after = trained
    done = run.done("train")
    assert done is not None
    steps = records(run, "step")
    assert [row["step"] for row in steps] == list(range(1, done["steps"] + 1))
    assert done["steps"] >= 2 * recipe.train.epochs, "a step holds two batches of at most 4 s"
    assert all(0 < row["loss"] < 20 and row["grad_norm"] > 0 for row in steps)
    assert max(row["rate"] for row in steps) <= recipe.train.learning_rate
    assert done["trained_parameters"] == sum(value.numel() for value in trained_parameters(after).values())
    assert done["total_parameters"] == sum(v.numel() for n, v in after.hf.named_parameters() if "lora_" not in n)
    assert 0 <= done["base_valid_wer"] < 100


def test_a_step_divides_by_all_of_its_target_tokens(trained: Trained, tiny: Tiny, tmp_path: Path,
                                                    model: Callable[[], GraniteSpeech]) -> None:
    """And not batch by batch, which would weigh short transcripts more."""
    _, run, _ = trained
    other = copy_of(run, tmp_path)
    shutil.rmtree(other.checkpoint)
    recipe = tiny(tmp_path, "x", epochs=1, lora_dropout=0.0).model_copy(update={"augment": AugmentSection()})
    training.train(recipe, other)
    utterances = read_manifest(other.manifest("train"))
    plan = plan_epoch([item.duration for item in utterances], recipe.train.batch_seconds, 2, recipe.seed, 0)
    base, total, tokens = model(), 0.0, 0
    assert len(plan[0]) == 2
    for micro in plan[0]:
        items = [utterances[index] for index in micro]
        total += summed_loss(base, items).item()
        tokens += sum(len(encode_text(base.tokenizer, item.text)) + 1 for item in items)
    assert records(other, "step")[0]["loss"] == pytest.approx(total / tokens, rel=1e-5)


def test_the_checkpoint_is_the_model_at_the_end(trained: Trained) -> None:
    _, run, after = trained
    stored = weights(run)
    assert set(stored) == set(trained_parameters(after))
    for name, value in trained_parameters(after).items():
        assert torch.equal(stored[name], value), name


def test_a_stopped_run_goes_on_to_the_same_weights(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    """With dropout and augmentation, and stopped twice: after the first epoch, and within the second."""
    recipe = tiny(tmp_path, "stopped")
    with pytest.MonkeyPatch.context() as patch:
        stop_after_epoch(patch, 1)
        with pytest.raises(Stopped):
            run_recipe(recipe, "train")
    run = RunDir(tmp_path / "stopped")
    assert run.done("train") is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "record", stop)
        with pytest.raises(Stopped):
            run_recipe(recipe, "train")
    run_recipe(recipe, "train")
    _, whole, _ = trained
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(run)[name]), name
    before, after = whole.done("train"), run.done("train")
    assert before is not None and after is not None
    for key in ("best_epoch", "best_valid_wer", "base_valid_wer", "steps"):
        assert before[key] == after[key]
    for name in (ADAPTER_WEIGHTS, WHOLE_WEIGHTS):
        assert (whole.best / name).read_bytes() == (run.best / name).read_bytes()


def test_a_finished_run_is_not_trained_again(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, run, _ = trained
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("trained again"))
    assert run_recipe(recipe, "train").done("train") == run.done("train")


def test_other_settings_do_not_go_on_from_this_run(trained: Trained, tiny: Tiny) -> None:
    recipe, run, _ = trained
    with pytest.raises(CheckpointError, match=r"differs in train\.learning_rate"):
        run_recipe(tiny(run.root.parent, recipe.name, learning_rate=1e-5), "train")


def copy_of(run: RunDir, root: Path) -> RunDir:
    """A run directory with the checkpoint and manifests of another."""
    for part in ("checkpoint", "manifests"):
        shutil.copytree(run.root / part, root / part)
    return RunDir(root)


def test_other_data_do_not_go_on_from_this_checkpoint(trained: Trained, tmp_path: Path) -> None:
    recipe, run, _ = trained
    other = copy_of(run, tmp_path)
    write_manifest(other.manifest("train"), read_manifest(other.manifest("train"))[:-1])
    with pytest.raises(CheckpointError, match="another train manifest"):
        training.train(recipe, other)


def test_another_batch_size_does_not_go_on_from_this_checkpoint(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    """As when another number of processes resumes: the same clips would make up other steps."""
    _, run, _ = trained
    with pytest.raises(CheckpointError, match="2 batches in a step .* there are 3"):
        training.train(tiny(tmp_path, "x", accumulation=3), copy_of(run, tmp_path))


def test_training_stops_at_a_gradient_that_is_no_number(trained: Trained, tiny: Tiny, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the step, so that no checkpoint is spoiled, and with the clips named."""
    _, run, _ = trained
    other = RunDir(tmp_path)
    for split in ("train", "valid"):
        write_manifest(other.manifest(split), read_manifest(run.manifest(split)))
    monkeypatch.setattr(training, "token_loss", lambda *arguments: token_loss(*arguments) * float("nan"))
    with pytest.raises(CheckpointError, match=r"gradient is nan at step 1 .*train-"):
        training.train(tiny(tmp_path, "x"), other)
    assert not other.checkpoint.exists() and not other.best.exists()


def test_patience_ends_a_run_that_no_longer_gains(trained: Trained, tiny: Tiny, tmp_path: Path,
                                                  caplog: pytest.LogCaptureFixture) -> None:
    _, run, _ = trained
    other = RunDir(tmp_path)
    for split in ("train", "valid"):
        write_manifest(other.manifest(split), read_manifest(run.manifest(split)))
    recipe = tiny(tmp_path, "x", epochs=9, patience=1, learning_rate=1e-12,
                  projector=False, encoder_blocks=0, ctc_weight=0)
    with caplog.at_level(logging.INFO):
        result = training.train(recipe, other)
    assert result.best_epoch == 1
    assert [row["epoch"] for row in records(other, "valid")] == [1, 2]
    assert "stopped early" in caplog.text


def test_several_processes_may_only_train(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    for last in ("prepare", "train", "export"):
        with pytest.raises(CheckpointError, match="accelerate launch"):
            run_recipe(tiny(tmp_path, "many"), last)


def test_two_processes_do_what_one_with_twice_the_batches_does(tiny: Tiny, tmp_path: Path) -> None:
    """Two ranks on the CPU (gloo) against accumulation 2, both without dropout, which each rank draws for itself."""
    one = run_recipe(tiny(tmp_path, "one", epochs=1, lora_dropout=0.0, accumulation=2), "train")
    recipe = tiny(tmp_path, "two", epochs=1, lora_dropout=0.0, accumulation=1)
    two = run_recipe(recipe, "prepare")
    (tmp_path / "two.yaml").write_text(recipe.model_dump_json(exclude_none=True))  # JSON is YAML
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         "-m", "finetune", "train", str(tmp_path / "two.yaml")],
        cwd=ROOT, env={**os.environ, "ACCELERATE_USE_CPU": "true"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert two.done("train") is not None
    for name, value in weights(one).items():
        assert torch.allclose(value, weights(two)[name], atol=1e-6), name
    for before, after in zip(records(one, "step"), records(two, "step"), strict=True):
        for key in ("step", "loss", "grad_norm", "rate"):
            assert before[key] == pytest.approx(after[key], rel=1e-4)
    run_recipe(recipe, "train")  # one process goes on where several have trained: nothing is left to do
    assert len(records(two, "step")) == len(records(one, "step"))
