"""A run that cannot learn, or save anything, fails and names the reason; values that are not finite are never used."""

import errno
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from training_runs import NoStep, Output, load_with_hook, prepared

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, ModelError
from finetune.core.run_dir import RunDir
from finetune.model.adapter import FULL_WEIGHTS, load_adapter, not_finite, save_adapter
from finetune.model.granite import SpeechModel, load_model
from finetune.training.callbacks import StepRecord, TrainerCallback
from finetune.training.selection import Scores
from finetune.training.trainer import Trainer

Tiny = Callable[..., Recipe]
Trained = tuple[Recipe, RunDir, SpeechModel]


def never_scored(*_: Any) -> Scores:
    raise AssertionError("the base was scored, which takes minutes")


def scored(*_: Any) -> Scores:
    return Scores(0.5, None)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_base_whose_loss_is_not_finite_fails_before_it_is_scored(
    trained: Trained, tiny: Tiny, tmp_path: Path, value: float
) -> None:
    def broken(*arguments: Any) -> SpeechModel:
        model = load_model(*arguments)
        with torch.no_grad():
            model.language_model.layers[1].mlp.down_proj.weight[3, 5] = value
        return model

    run = prepared(trained[1], tmp_path)
    with pytest.raises(
        ModelError, match=r"loss of the base model on the first batch is nan.*layers\.1\.mlp\.down_proj"
    ):
        Trainer(tiny(tmp_path, "x"), run, [NoStep()], load_model=broken, measure=never_scored).fit()
    assert not run.best.exists() and not run.checkpoint.exists()


@pytest.mark.parametrize("bad_epoch", [1, 2])
def test_an_epoch_in_which_every_step_is_skipped_fails(
    trained: Trained, tiny: Tiny, tmp_path: Path, bad_epoch: int
) -> None:
    """Also within train.max_skipped_steps: two steps of an epoch, and a limit of five."""
    steps = 0

    def spoil(number: int, output: Output) -> Output:
        return (output[0] * float("nan"), output[1]) if number >= first else output

    recipe = tiny(tmp_path, "x", parts={"lora": {"rank": 4}}, ctc_weight=0)
    trainer = Trainer(recipe, prepared(trained[1], tmp_path), load_model=load_with_hook(spoil), measure=scored)
    first = 0 if bad_epoch == 1 else sum(len(step) for step in trainer.context.plan(0))
    with pytest.raises(
        CheckpointError, match=rf"epoch {bad_epoch}/2: all \d steps were skipped, so nothing was learned"
    ):
        trainer.fit()
    assert trainer.run.best.exists() == (bad_epoch == 2) and steps == 0


class Records(TrainerCallback):
    """Keeps messages, and the losses of steps."""

    def __init__(self) -> None:
        self.messages, self.losses = list[str](), list[float]()

    def on_message(self, text: str) -> None:
        self.messages.append(text)

    def on_step(self, record: StepRecord) -> None:
        self.losses.append(record.loss)


def test_the_loss_of_an_epoch_is_the_mean_of_the_steps_that_were_taken(
    trained: Trained, tiny: Tiny, tmp_path: Path
) -> None:
    def spoil(number: int, output: Output) -> Output:
        return (output[0] * float("nan"), output[1]) if number == 0 else output

    records, recipe = Records(), tiny(tmp_path, "x", parts={"lora": {"rank": 4}}, ctc_weight=0, epochs=1)
    run = prepared(trained[1], tmp_path)
    Trainer(recipe, run, [records], load_model=load_with_hook(spoil), measure=scored).fit()
    finite = [loss for loss in records.losses if math.isfinite(loss)]
    assert len(finite) == len(records.losses) - 1 > 0
    assert any(f"epoch 1/1  loss {sum(finite) / len(finite):.3f}" in text for text in records.messages)


class Spoil(TrainerCallback):
    """Sets a trained weight to infinity after the first step."""

    trainer: Trainer

    def on_step(self, record: StepRecord) -> None:
        parameter = next(iter(self.trainer.parameters.values()))
        parameter.data.view(-1)[0] = float("inf")


def test_an_adapter_with_values_that_are_not_finite_is_not_saved(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    """The weights become infinite in the only step of an epoch, so no later loss shows it."""
    spoil, run = Spoil(), prepared(trained[1], tmp_path)
    recipe = tiny(tmp_path, "x", parts={"lora": {"rank": 4}}, ctc_weight=0, epochs=1, batch_seconds=99.0)
    spoil.trainer = Trainer(recipe, run, [spoil], measure=scored)
    with pytest.raises(CheckpointError, match=r"epoch 1: .*lora_A.* NaN or infinite after training"):
        spoil.trainer.fit()
    assert not run.best.exists() and not run.checkpoint.exists()


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """While it has an element, no adapter can be saved."""
    full = [True]

    def save(*arguments: Any) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        save_adapter(*arguments)

    monkeypatch.setattr("finetune.training.selection.save_adapter", save)
    return full


def test_a_run_whose_adapters_never_fit_on_the_disk_fails_and_saves_one_when_it_is_resumed(
    trained: Trained, tiny: Tiny, tmp_path: Path, full_disk: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    run, recipe = prepared(trained[1], tmp_path), tiny(tmp_path, "a", epochs=1)
    with pytest.raises(CheckpointError, match="best: no adapter is saved, because the disk is full; free disk space"):
        Trainer(recipe, run, measure=scored).fit()
    assert "and there is no earlier one" in caplog.text and not run.best.exists()
    full_disk.clear()
    result = Trainer(recipe, run, [NoStep()], measure=scored).fit()
    assert (result.best_epoch, result.best_valid_wer) == (1, 0.5) and (run.best / FULL_WEIGHTS).is_file()


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_an_adapter_with_values_that_are_not_finite_is_not_loaded(
    trained: Trained, tmp_path: Path, model: Callable[[], SpeechModel], value: float
) -> None:
    """With right hashes, as of a version that saved such an adapter."""
    adapted = model()
    view = load_adapter(adapted, trained[1].best)
    name = next(iter(load_file(trained[1].best / FULL_WEIGHTS)))
    for parameter_name, parameter in adapted.hf.named_parameters():
        parameter.requires_grad_("lora_" in parameter_name or parameter_name == name)
    dict(adapted.hf.named_parameters())[name].data.view(-1)[0] = value
    save_adapter(adapted, view, tmp_path / "best")
    with pytest.raises(CheckpointError, match=f"{FULL_WEIGHTS}: {name} has values that are NaN or infinite"):
        load_adapter(model(), tmp_path / "best")


def test_the_first_tensor_that_is_not_finite_is_named(tmp_path: Path) -> None:
    good, bad = torch.ones(3), torch.tensor([1.0, float("nan")])
    assert not_finite({}) == not_finite({"a": good, "b": torch.tensor([1, 2])}) == ""
    assert not_finite({"a": good, "b": bad, "c": bad}) == "b"
    save_file({"b": bad.bfloat16()}, tmp_path / "x")
    assert not_finite(load_file(tmp_path / "x")) == "b"
