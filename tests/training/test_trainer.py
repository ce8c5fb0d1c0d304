"""Training on six clips: which tensors change, which adapter is the best, which recipes are refused."""

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import embedded
from safetensors.torch import load_file
from training_runs import Killed, KillInStep, prepared, records, weights

from finetune.core.config import KeywordsSection, Recipe
from finetune.core.errors import CheckpointError, RecipeError
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance, read_manifest
from finetune.inference.recognize import recognize
from finetune.metrics.wer import score
from finetune.model.adapter import load_adapter
from finetune.model.granite import SpeechModel, load_model
from finetune.model.trainable import part_of, trained_parameters
from finetune.training import checkpoint
from finetune.training.batch_size import BatchSizeCache
from finetune.training.callbacks import StepRecord, TrainerCallback, ValidationRecord
from finetune.training.dataset import SpeechDataset
from finetune.training.optimizer import learning_rate_factor
from finetune.training.selection import Scores
from finetune.training.trainer import Trainer, train

ROOT = Path(__file__).resolve().parents[2]
Tiny = Callable[..., Recipe]
Trained = tuple[Recipe, RunDir, SpeechModel]


def test_only_trained_parameters_change(trained: Trained, model: Callable[[], SpeechModel]) -> None:
    """Buffers do not change either: BatchNorm keeps the statistics of the base model."""
    _, _, after = trained
    base = {**dict(model().hf.named_parameters()), **dict(model().hf.named_buffers())}
    open_names = set(trained_parameters(after))
    assert {part_of(name) for name in open_names} == {"lora", "projector", "encoder", "ctc_head"}
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


def test_the_adapter_of_the_best_epoch_is_saved(trained: Trained, model: Callable[[], SpeechModel]) -> None:
    recipe, run, _ = trained
    done = run.done("train")
    assert done is not None
    wers = {row["epoch"]: row["wer"] for row in records(run, "valid")}
    assert set(wers) == {1, 2}
    assert done["best_valid_wer"] == min(wers.values()) == wers[done["best_epoch"]]
    adapted = model()
    load_adapter(adapted, run.best)
    valid = read_manifest(run.manifest("valid"))
    hypotheses = recognize(adapted, valid, recipe.model.instruction, replace(recipe.decode, decoder="greedy"))
    wer = score([item.text for item in valid], [item.text for item in hypotheses], recipe.evaluate.normalizer).wer
    assert wer == pytest.approx(done["best_valid_wer"])


def test_the_records_contain_every_step(trained: Trained) -> None:
    recipe, run, after = trained
    done = run.done("train")
    assert done is not None
    steps = records(run, "step")
    assert [row["step"] for row in steps] == list(range(1, done["steps"] + 1))
    assert done["steps"] >= 2 * recipe.train.epochs, "a step holds two batches of at most 5 s"
    assert all(0 < row["loss"] < 20 and row["grad_norm"] > 0 for row in steps)
    factors = [learning_rate_factor(step, done["steps"], recipe.train.warmup) for step in range(done["steps"])]
    assert [row["rate"] for row in steps] == [factor * recipe.train.learning_rate for factor in factors]
    assert done["trained_parameters"] == sum(value.numel() for value in trained_parameters(after).values())
    assert done["total_parameters"] == sum(v.numel() for n, v in after.hf.named_parameters() if "lora_" not in n)
    assert 0 <= done["padding"] < 0.5 and done["skipped_steps"] == 0


@pytest.mark.parametrize(
    ("warmup", "factors"),
    [
        (0.3, [1 / 3, 2 / 3, 1, 1, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7]),
        (0.0, [1, 1, 8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9]),
        (1.0, [step / 10 for step in range(1, 11)]),
    ],
)
def test_the_learning_rate_warms_up_and_decays_and_is_never_zero(warmup: float, factors: list[float]) -> None:
    assert [learning_rate_factor(step, 10, warmup) for step in range(10)] == pytest.approx(factors)
    assert learning_rate_factor(0, 1, warmup) == 1


def test_the_canary_limits_which_adapter_is_the_best(
    trained: Trained, tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The base, then four epochs: the lowest valid WER exceeds the canary limit; the third epoch is the best."""
    scores = iter([Scores(0.9, 0.10), Scores(0.7, 0.20), Scores(0.4, 0.30), Scores(0.6, 0.11), Scores(0.65, 0.09)])
    run, recipe = prepared(trained[1], tmp_path / "a"), tiny(tmp_path, "a", epochs=4, max_canary_loss=0.02)
    result = Trainer(recipe, run, measure=lambda *_: next(scores)).fit()
    assert (result.best_epoch, result.best_valid_wer, result.within_canary_limit) == (3, 0.6, True)
    assert [row["canary_wer"] for row in records(run, "valid")] == [0.20, 0.30, 0.11, 0.09]
    scores = iter([Scores(0.9, 0.10), Scores(0.7, 0.50), Scores(0.8, 0.30)])
    run, recipe = prepared(trained[1], tmp_path / "b"), tiny(tmp_path, "b", max_canary_loss=0.02)
    result = Trainer(recipe, run, measure=lambda *_: next(scores)).fit()
    assert (result.best_epoch, result.within_canary_limit) == (2, False)
    assert "no adapter is within train.max_canary_loss" in caplog.text
    assert "no adapter is better than the base model" not in caplog.text


def test_adapters_that_are_all_worse_than_the_base_model_are_a_warning(
    trained: Trained, tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scores = iter([Scores(0.4, None), Scores(1.0, None), Scores(0.7, None)])
    run, recipe = prepared(trained[1], tmp_path / "a"), tiny(tmp_path, "a")
    Trainer(recipe, run, measure=lambda *_: next(scores)).fit()
    assert "the WER of the best one on valid is 70.0 %, that of the base model 40.0 %; try a lower" in caplog.text


def test_interpolated_weights_are_the_best_if_the_trained_weights_exceed_the_canary_limit(
    trained: Trained, tiny: Tiny, tmp_path: Path, model: Callable[[], SpeechModel]
) -> None:
    scores = iter([Scores(0.9, 0.10), Scores(0.4, 0.20), Scores(0.4, 0.15), Scores(0.5, 0.11), Scores(0.6, 0.11)])
    run = prepared(trained[1], tmp_path)
    recipe = tiny(tmp_path, "a", epochs=1, max_canary_loss=0.02, interpolate=[0.9, 0.5, 0.4])
    result = Trainer(recipe, run, measure=lambda *_: next(scores)).fit()
    assert (result.best_alpha, result.best_valid_wer, result.within_canary_limit) == (0.5, 0.5, True)
    assert [row["alpha"] for row in records(run, "valid")] == [1.0, 0.9, 0.5, 0.4]
    saved, base = model(), model().hf.state_dict()
    load_adapter(saved, run.best)
    reached = load_file(run.checkpoint / checkpoint.WEIGHTS)
    name = next(name for name in reached if "projector" in name and "lora" not in name and name in base)
    assert torch.allclose(saved.hf.state_dict()[name], (base[name] + reached[name]) / 2, atol=1e-6)
    assert not torch.equal(reached[name], base[name])  # the checkpoint has the trained weights


def test_patience_ends_a_run_that_no_longer_improves(
    trained: Trained, tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = prepared(trained[1], tmp_path)
    recipe = tiny(tmp_path, "x", parts={"lora": {"rank": 4}}, epochs=9, patience=1, learning_rate=1e-12, ctc_weight=0)
    with caplog.at_level(logging.INFO):
        result = train(recipe, other)
    assert result.best_epoch == 1
    assert [row["epoch"] for row in records(other, "valid")] == [1, 2]
    assert "stopped early" in caplog.text


def test_a_run_that_reaches_its_last_epoch_is_not_called_stopped_early(
    trained: Trained, tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scores = iter([Scores(0.9, None), Scores(0.5, None), Scores(0.6, None)])
    recipe = tiny(tmp_path, "x", parts={"lora": {"rank": 4}}, epochs=2, patience=1, ctc_weight=0)
    with caplog.at_level(logging.INFO):
        Trainer(recipe, prepared(trained[1], tmp_path), measure=lambda *_: next(scores)).fit()
    assert "epoch 2/2" in caplog.text and "stopped early" not in caplog.text


def test_the_last_weights_are_the_best_if_only_the_ctc_head_trains(
    trained: Trained, tiny: Tiny, tmp_path: Path, model: Callable[[], SpeechModel]
) -> None:
    """Text does not depend on the CTC head, so all scores are equal. Those of interpolated weights are not better."""
    other = prepared(trained[1], tmp_path)
    parts = {"lora": {"rank": 0}, "ctc_head": {"mode": "full"}}
    recipe = tiny(tmp_path, "x", parts=parts, epochs=2, patience=1, ctc_weight=1, interpolate=[0.5])
    assert train(recipe, other).best_epoch == 2
    saved = model()
    load_adapter(saved, other.best)
    reached = weights(other)
    assert {*reached} == {"model.encoder.out.weight", "model.encoder.out.bias"}
    assert all(torch.equal(saved.hf.state_dict()[name], value) for name, value in reached.items())


@pytest.mark.parametrize(
    ("projector", "dtype", "off"), [("frozen", "float32", 1e-4), ("full", "float32", 1e-4), ("full", "bfloat16", 1e-2)]
)
def test_the_cache_changes_no_loss(
    trained: Trained, tiny: Tiny, tmp_path: Path, projector: str, dtype: str, off: float
) -> None:
    from finetune.core.config import AugmentSection

    runs = []
    for cache in (False, True):
        recipe = tiny(
            tmp_path,
            f"cache{cache}",
            parts={"lora": {"rank": 4}, "projector": {"mode": projector}},
            machine={"cache_encoder": cache},
            ctc_weight=0,
            epochs=1,
        )
        model = recipe.model.model_copy(update={"dtype": dtype})
        recipe = recipe.model_copy(update={"augment": AugmentSection(), "model": model})
        runs.append(prepared(trained[1], tmp_path / f"{cache}"))
        train(recipe, runs[-1])
    for before, after in zip(records(runs[0], "step"), records(runs[1], "step"), strict=True):
        assert before["loss"] == pytest.approx(after["loss"], rel=off)


def test_a_bfloat16_base_trains_in_every_part(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    """Under autocast, as on a GPU. Trained parts are float32 and other parts bfloat16, also in decoding."""
    all_parts = {
        "lora": {"rank": 4},
        "projector": {"mode": "full"},
        "encoder": {"mode": "full", "blocks": 1},
        "ctc_head": {"mode": "full"},
        "lm_head": {"mode": "full"},
        "language_model": {"layers": 1},
    }
    recipe = tiny(tmp_path, "x", parts=all_parts, epochs=1)
    low = recipe.model_copy(update={"model": recipe.model.model_copy(update={"dtype": "bfloat16"})})
    run = prepared(trained[1], tmp_path)
    trainer = Trainer(low, run)
    trainer.fit()
    assert {value.dtype for value in trainer.model.hf.parameters()} == {torch.float32, torch.bfloat16}
    assert {value.dtype for value in weights(run).values()} == {torch.float32}
    assert records(run, "step")[0]["loss"] == pytest.approx(records(trained[1], "step")[0]["loss"], rel=0.03)


def test_the_batch_size_that_fits_is_found_once_for_a_machine(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    """The memory is enough for 3 s of padded audio. A resumed run keeps its first batch size."""
    recipe, tried = tiny(tmp_path, "auto", batch="auto", batch_seconds=10, epochs=1), list[float]()

    def check_memory(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        tried.append(inputs[0].shape[0] * inputs[0].shape[1] * 0.02)
        if tried[-1] > 3.0:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    def small(*arguments: Any) -> SpeechModel:
        model = load_model(*arguments)
        model.register_forward_pre_hook(check_memory)
        return model

    cache = BatchSizeCache(tmp_path / "batch.json")
    runs = [prepared(trained[1], tmp_path / name) for name in ("first", "second")]
    for run, load in zip(runs, (small, load_model), strict=True):
        Trainer(recipe, run, load_model=load, batch_sizes=cache).fit()
        assert checkpoint.read_origin(run.checkpoint)["batch_seconds"] == 2.5
    assert 10 >= tried[0] > 5 >= tried[1] > 3 >= max(tried[2:]), "halved twice"
    assert [row["loss"] for row in records(runs[0], "step")] == [row["loss"] for row in records(runs[1], "step")]
    with_keywords = recipe.model_copy(update={"keywords": KeywordsSection(true_terms=1)})
    longer = Trainer(with_keywords, prepared(trained[1], tmp_path / "third"), batch_sizes=cache)
    assert longer.context.batch_seconds == 10, "prompts are longer, so it is another batch that must fit"
    (tmp_path / "batch.json").unlink()
    resumed = Trainer(recipe, runs[0], batch_sizes=cache)  # 10 s would fit now
    assert resumed.context.batch_seconds == 2.5 and resumed.fit().steps == len(records(runs[0], "step"))


@pytest.mark.parametrize("mode", ["FSDP", "DEEPSPEED"])
def test_a_launcher_that_splits_the_model_is_refused(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{mode}", "true")
    with pytest.raises(CheckpointError, match=f"set to {mode}, but each process needs the complete model"):
        train(trained[0], prepared(trained[1], tmp_path))


class Recorder(TrainerCallback):
    """Records all its calls."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_step(self, record: StepRecord) -> None:
        self.events.append(record)

    def on_validation(self, record: ValidationRecord) -> None:
        self.events.append(record)

    def on_message(self, text: str) -> None:
        self.events.append(text)

    def close(self) -> None:
        self.events.append("closed")


def test_a_users_callback_receives_all_records_in_order(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    recorder, run = Recorder(), prepared(trained[1], tmp_path)
    train(tiny(tmp_path, "x", epochs=1), run, [recorder])
    message, *steps, validation, summary, closed = recorder.events
    assert message.startswith("base model: valid WER ") and summary.startswith("epoch 1/1  loss ")
    assert [
        {"kind": "step", "step": row.step, "loss": row.loss, "grad_norm": row.grad_norm, "rate": row.learning_rate}
        for row in steps
    ] == records(run, "step")
    assert [{"kind": "valid", **asdict(validation)}] == records(run, "valid")
    assert closed == "closed" and all(row.epoch == 1 and row.audio_seconds > 0 for row in steps)


def test_a_callback_is_closed_after_an_error(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    recorder = Recorder()
    with pytest.raises(Killed):
        train(tiny(tmp_path, "x"), prepared(trained[1], tmp_path), [KillInStep(0), recorder])
    assert [type(event) for event in recorder.events] == [str, str] and recorder.events[-1] == "closed"


def test_a_batch_must_hold_the_longest_clip(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    seconds = (
        r"train\.batch_seconds: 1 is too small for train-.*, which has .* s; raise it, or lower data\.max_duration"
    )
    with pytest.raises(RecipeError, match=seconds):
        train(tiny(tmp_path, "x", batch_seconds=1.0), prepared(trained[1], tmp_path / "seconds"))
    recipe = tiny(tmp_path, "x", batch_tokens=64)
    model = recipe.model.model_copy(update={"instruction": "what is said here? " * 20})
    with pytest.raises(RecipeError, match=r"train\.batch_tokens: 64 is too small for train-.*positions; raise it"):
        train(recipe.model_copy(update={"model": model}), prepared(trained[1], tmp_path))


@pytest.mark.parametrize(("fraction", "groups"), [(0.2, range(27, 38)), (0.8, range(3, 14))])
def test_the_recipe_sets_the_fraction_of_concatenated_clips(
    tiny: Tiny, tmp_path: Path, model: Callable[[], SpeechModel], fraction: float, groups: range
) -> None:
    plain, train = tiny(tmp_path, "x"), embedded("train", 40)
    recipe = plain.model_copy(
        update={
            "augment": plain.augment.model_copy(update={"concat": fraction}),
            "data": plain.data.model_copy(update={"max_duration": 1000.0}),
        }
    )
    data = SpeechDataset(model(), recipe, train)
    indices = data.open_epoch(0).tolist()
    assert len(indices) in groups, "40 clips, of which this fraction follows another one"
    names = sorted(clip.id for index in indices for clip in data.clips.sources(index))
    assert names == sorted(clip.id for clip in train)


def test_clips_and_characters_without_a_ctc_target_are_logged(
    tiny: Tiny,
    tmp_path: Path,
    model: Callable[[], SpeechModel],
    clips: list[Utterance],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The target of the language model contains them."""
    plain, fast = clips[0], replace(clips[1], text=clips[1].text * 9)
    odd = replace(plain, id="odd", text=f"{plain.text} 漢字")
    data = SpeechDataset(model(), tiny(tmp_path, "x"), [plain, odd, fast])
    assert "2 characters are outside the CTC alphabet" in caplog.text
    assert (
        f"1 clip has more text than CTC can align to the audio; the CTC loss ignores it (such as {fast.id})"
        in caplog.text
    )
    assert data.labels([1]) == data.labels([0]) + 1 and data.tokens([1]) > data.tokens([0]) + 1
    caplog.clear()
    SpeechDataset(model(), tiny(tmp_path, "y", ctc_weight=0, parts={"lora": {"rank": 4}}), [odd, fast])
    assert not caplog.records
