"""Loss and gradient do not depend on the accumulation or on the number of ranks."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from support import INSTRUCTION, batch
from torch import Tensor
from training_runs import prepared, records, weights

from finetune.core.config import AugmentSection, KeywordsSection, Recipe
from finetune.core.run_dir import RunDir
from finetune.data.manifest import read_manifest
from finetune.model.granite import SpeechModel
from finetune.model.trainable import open_parts, set_mode, trained_parameters
from finetune.pipeline import run_recipe
from finetune.training.batches import BatchSource
from finetune.training.copy_loss import CopyLoss
from finetune.training.dataset import SpeechDataset
from finetune.training.loss import IGNORE, token_loss
from finetune.training.parts import trainable_parts
from finetune.training.signals import Stop
from finetune.training.step import OptimizerStep, StepResult
from finetune.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
Tiny = Callable[..., Recipe]
Trained = tuple[Recipe, RunDir, SpeechModel]


def plain(recipe: Recipe) -> Recipe:
    """Without augmentation, because the reference loss does not have it."""
    return recipe.model_copy(update={"augment": AugmentSection()})


class GradientRecorder(torch.optim.SGD):
    """Records the gradients and changes no parameter."""

    def __init__(self, parameters: dict[str, torch.nn.Parameter]) -> None:
        super().__init__(parameters.values(), lr=0.0)
        self.named, self.gradients = parameters, dict[str, torch.Tensor]()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.gradients = {name: value.grad.clone() for name, value in self.named.items() if value.grad is not None}


def one_step(
    model: SpeechModel, recipe: Recipe, run: RunDir, step: list[list[int]], loss: Callable[..., Tensor] = token_loss
) -> tuple[StepResult, dict[str, Tensor]]:
    """The result of one optimizer step over clips of the train manifest, and the gradients that it applied."""
    torch.manual_seed(recipe.seed)  # for the initial values of LoRA
    open_parts(model, trainable_parts(recipe.parts))
    set_mode(model, training=True)
    parameters = trained_parameters(model)
    data = SpeechDataset(model, recipe, read_manifest(run.manifest("train")))
    if recipe.keywords.sampled:
        data.open_epoch(0)
    optimizer = GradientRecorder(parameters)
    optimizer_step = OptimizerStep(recipe, Accelerator(cpu=True), model, model, optimizer, parameters, data, loss)
    if recipe.keywords.copy_weight:
        optimizer_step = replace(optimizer_step, copy_loss=CopyLoss(model))
    batches = BatchSource(data, recipe, run.cache, "", False).batches(step, 0)
    return optimizer_step.run(step, step, batches, 0, Stop(), None), optimizer.gradients


def by_hand(model: SpeechModel, run: RunDir, step: list[list[int]]) -> float:
    """The reference loss: log-softmax of lm_head(h) / logits_scaling at each target, their mean over all tokens."""
    utterances, scaling = read_manifest(run.manifest("train")), model.hf.config.text_config.logits_scaling
    assert scaling == 8
    total, count = 0.0, 0
    for index in [index for micro in step for index in micro]:
        features, frames, ids, labels = batch(model, [utterances[index]])
        hidden, _ = model(features, frames, ids)
        logp = (model.lm_head(hidden).double() / scaling).log_softmax(-1)
        for place in range(1, labels.shape[1]):
            if labels[0, place] != IGNORE:
                total -= float(logp[0, place - 1, labels[0, place]])
                count += 1
    return total / count


@pytest.mark.parametrize(
    "split", [[[0, 1, 2, 3, 4, 5]], [[0, 1, 2], [3, 4, 5]], [[0], [1], [2], [3], [4], [5]], [[5, 0], [1, 4, 3], [2]]]
)
def test_loss_and_gradient_do_not_depend_on_the_micro_batches(
    trained: Trained, tiny: Tiny, tmp_path: Path, model: Callable[[], SpeechModel], split: list[list[int]]
) -> None:
    """They also equal the reference loss, with targets of different lengths."""
    run = trained[1]
    parts = {"lora": {"rank": 4}, "projector": {"mode": "full"}, "encoder": {"mode": "full", "blocks": 1}}
    recipe = plain(tiny(tmp_path, "x", parts=parts))
    result, gradients = one_step(model(), recipe, run, split)
    full, full_gradients = one_step(model(), recipe, run, [[0, 1, 2, 3, 4, 5]])
    assert result.taken and full.taken
    assert result.loss == pytest.approx(full.loss, rel=1e-5)
    assert result.grad_norm == pytest.approx(full.grad_norm, rel=1e-5)
    for name, value in full_gradients.items():
        assert torch.allclose(value, gradients[name], rtol=1e-3, atol=1e-5 * float(value.abs().max()) + 1e-8), name
    assert result.loss == pytest.approx(by_hand(model(), run, split), rel=1e-5)


def test_the_copy_loss_changes_the_gradients_and_not_the_reported_loss(
    trained: Trained, tiny: Tiny, tmp_path: Path, model: Callable[[], SpeechModel]
) -> None:
    """Its gradients do not depend on the micro-batches."""
    plain_recipe = plain(tiny(tmp_path, "x", parts={"lora": {"rank": 4}}, ctc_weight=0))

    def step(weight: float, split: list[list[int]]) -> tuple[StepResult, Tensor]:
        keywords = KeywordsSection(true_terms=1, rare_words=1, largest=6, copy_weight=weight)
        result, gradients = one_step(model(), plain_recipe.model_copy(update={"keywords": keywords}), trained[1], split)
        return result, torch.cat([value.flatten() for value in gradients.values()])

    without, (result, gradients) = step(0, [[0, 1, 2, 3]]), step(0.5, [[0, 1, 2, 3]])
    parts, gradients_of_parts = step(0.5, [[0], [1, 2], [3]])
    assert result.loss == pytest.approx(without[0].loss, rel=1e-6) and result.loss == pytest.approx(
        parts.loss, rel=1e-5
    )
    assert (gradients - without[1]).norm() > 0.1 * without[1].norm()
    assert (gradients - gradients_of_parts).norm() < 1e-3 * gradients.norm()


def test_a_step_with_an_infinite_loss_and_finite_gradients_is_skipped(
    trained: Trained, tiny: Tiny, tmp_path: Path, model: Callable[[], SpeechModel]
) -> None:
    def infinite(*args: Any) -> Tensor:
        return token_loss(*args) + torch.inf

    recipe = plain(tiny(tmp_path, "x", parts={"lora": {"rank": 4}}, ctc_weight=0))
    result, gradients = one_step(model(), recipe, trained[1], [[0, 1]], infinite)
    assert (result.loss, result.taken, gradients) == (float("inf"), False, {})
    assert 0 < result.grad_norm < float("inf")


def test_a_frozen_encoder_is_bit_equal_after_training(
    trained: Trained, tiny: Tiny, tmp_path: Path, model: Callable[[], SpeechModel]
) -> None:
    """Parameters and buffers, while LoRA on the language model and the projector train."""
    recipe = tiny(tmp_path, "x", parts={"lora": {"rank": 4}, "projector": {"mode": "full"}}, ctc_weight=0, epochs=1)
    trainer = Trainer(recipe, prepared(trained[1], tmp_path))
    trainer.fit()
    before, after = model().encoder.state_dict(), trainer.model.encoder.state_dict()
    assert len(before) > 100 and before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_two_processes_train_as_one(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two ranks (gloo) against accumulation 2, with dropout and augmentation, over at least 20 steps."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = run_recipe(tiny(tmp_path, "one", epochs=10, accumulation=2, evaluate_every=10), "train")
    two = run_recipe(
        tiny(tmp_path, "two", epochs=10, accumulation=1, evaluate_every=10, machine={"processes": 2}), "train"
    )
    output = "".join(capfd.readouterr())
    assert output.count("epoch 10/10") == 1, "only one of the ranks shows progress"
    assert "bucket view strides" not in output
    steps = records(one, "step")
    assert len(steps) >= 20
    for before, after in zip(steps, records(two, "step"), strict=True):
        assert before["loss"] == pytest.approx(after["loss"], rel=1e-5)
        assert before["grad_norm"] == pytest.approx(after["grad_norm"], rel=1e-3)
    for name, value in weights(one).items():
        assert torch.allclose(value, weights(two)[name], atol=1e-4), name
    assert [row["wer"] for row in records(one, "valid")] == [row["wer"] for row in records(two, "valid")]


@pytest.mark.slow
def test_a_sharded_optimizer_trains_and_resumes_as_a_whole_one(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks (gloo), bit for bit, with the moments in the checkpoint; one run is stopped by a signal."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    train = {"epochs": 4, "accumulation": 1, "evaluate_every": 4}
    machine: dict[str, object] = {"processes": 2, "checkpoint_every": 1}
    whole = run_recipe(tiny(tmp_path, "whole", machine=machine, **train), "train")
    recipe = tiny(tmp_path, "sharded", machine={**machine, "shard_optimizer": True}, **train)
    run = run_recipe(recipe, "prepare")
    (tmp_path / "sharded.yaml").write_text(recipe.model_dump_json(exclude_none=True))  # JSON is YAML
    command = [sys.executable, "-m", "finetune", "train", str(tmp_path / "sharded.yaml")]
    with subprocess.Popen(command, cwd=ROOT) as process:
        while process.poll() is None and not run.checkpoint.exists():
            time.sleep(0.02)
        process.terminate()
    assert process.returncode == 128 + signal.SIGTERM and len(records(run, "step")) < len(records(whole, "step"))
    run_recipe(recipe, "train")
    assert [row["loss"] for row in records(whole, "step")] == [row["loss"] for row in records(run, "step")]
    for name in ("weights.safetensors", "optimizer.safetensors"):
        before, after = load_file(whole.checkpoint / name), load_file(run.checkpoint / name)
        assert len(before) > 10 and before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before), name


def test_two_machines_train_as_one(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    """Two machines with `accelerate launch`, both simulated here. The precision of the launcher has no effect."""
    recipe = tiny(tmp_path, "far", accumulation=1)
    run = run_recipe(recipe, "prepare")
    (tmp_path / "far.yaml").write_text(recipe.model_dump_json(exclude_none=True))  # JSON is YAML
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_machines",
        "2",
        "--num_processes",
        "2",
        "--mixed_precision",
        "bf16",
        "--main_process_ip",
        "127.0.0.1",
        "--main_process_port",
        str(port),
    ]
    machines = [
        subprocess.Popen(
            [*command, "--machine_rank", rank, "-m", "finetune", "train", str(tmp_path / "far.yaml")],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        )
        for rank in ("0", "1")
    ]
    errors = [machine.communicate()[1][-3000:] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], errors
    steps = records(trained[1], "step")
    assert len(steps) >= 4
    for before, after in zip(steps, records(run, "step"), strict=True):
        assert before["loss"] == pytest.approx(after["loss"], rel=1e-5)
    for name, value in weights(trained[1]).items():
        assert torch.allclose(value, weights(run)[name], atol=1e-4), name
    assert run.done("train") is not None


def test_the_tests_use_the_default_instruction() -> None:
    from finetune.core import config

    assert INSTRUCTION == config.INSTRUCTION
    assert os.environ["HF_HUB_OFFLINE"] == "1"
