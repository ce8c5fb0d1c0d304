"""A clip whose audio vanishes or is damaged after `prepare` is skipped and counted, with the same result each time."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import Killed, KillInStep, records, weights

from finetune.core.config import AugmentSection, Recipe
from finetune.core.errors import DataError
from finetune.core.run_dir import RunDir
from finetune.data.audio_files import record_audio_files
from finetune.data.kept_rows import ItemRows
from finetune.data.manifest import Utterance, read_manifest, write_manifest
from finetune.model.granite import SpeechModel
from finetune.pipeline import run_recipe
from finetune.training import checkpoint
from finetune.training.callbacks import StepRecord, TrainerCallback
from finetune.training.selection import Scores
from finetune.training.state import TrainResult
from finetune.training.trainer import Trainer
from finetune.training.unreadable import UnreadableClips
from finetune.training.validator import UNSCORED

Tiny = Callable[..., Recipe]
Trained = tuple[Recipe, RunDir, SpeechModel]
PARTS: dict[str, object] = {"lora": {"rank": 4, "dropout": 0.2}, "encoder": {"mode": "lora", "blocks": 1}}


def with_own_audio(run: RunDir, root: Path, recorded: bool = True) -> RunDir:
    """A run with the clips of another one, in files of its own. Without a record, the start of `train` checks none."""
    own, splits = RunDir(root), dict[str, list[Utterance]]()
    (root / "audio").mkdir(parents=True)
    for path in run.manifests.glob("*.jsonl"):
        items = read_manifest(path)
        files = [shutil.copy(item.audio_filepath, root / "audio") for item in items]
        splits[path.stem] = [replace(item, audio_filepath=file) for item, file in zip(items, files, strict=True)]
        write_manifest(own.manifest(path.stem), splits[path.stem])
    if recorded:
        record_audio_files(own, {split: ItemRows(items).blocks() for split, items in splits.items()})
    return own


def tolerant(recipe: Recipe, fraction: float = 0.5, **sections: Any) -> Recipe:
    data = recipe.data.model_copy(update={"max_bad_fraction": fraction})
    return recipe.model_copy(update={"data": data, **sections})


def scored(*_: Any) -> Scores:
    return Scores(0.5, None)


def clip(run: RunDir, split: str, index: int) -> Path:
    return Path(read_manifest(run.manifest(split))[index].audio_filepath)


class Vanish(TrainerCallback):
    """Removes a file after a step."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def on_step(self, record: StepRecord) -> None:
        if record.step == self.step:
            self.path.unlink()


def assert_equal_weights(one: RunDir, other: RunDir) -> None:
    for name, value in weights(one).items():
        assert torch.equal(value, weights(other)[name]), name


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_clip_that_is_found_at_the_start_or_while_loading_gives_the_same_run(
    trained: Trained, tiny: Tiny, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    runs, results = [], list[TrainResult]()
    for recorded in (True, False):
        run = with_own_audio(trained[1], tmp_path / f"{recorded}", recorded)
        path = clip(run, "train", 2)
        name = read_manifest(run.manifest("train"))[2].id
        content = path.read_bytes()
        path.unlink() if damage == "gone" else path.write_bytes(content[:40])
        recipe = tolerant(tiny(tmp_path, "x", parts=PARTS, epochs=1, ctc_weight=0.1))
        results.append(Trainer(recipe, run, measure=scored).fit())
        runs.append(run)
    assert_equal_weights(*runs)
    assert [result.skipped_clips for result in results] == [{"train": 1}] * 2
    assert results[0].skipped_steps == 0 and results[0].steps == len(records(runs[0], "step"))
    assert records(runs[0], "step") == records(runs[1], "step")
    for run in runs:
        (row,) = records(run, "skipped_clip")
        assert row["split"] == "train" and row["id"] == name and str(clip(run, "train", 2)) in row["reason"]
    assert caplog.text.count(f"data.train: {name} is skipped from now on: ") == 2


def test_the_loss_of_a_step_counts_only_the_target_tokens_of_its_readable_clips(
    trained: Trained, tiny: Tiny, tmp_path: Path
) -> None:
    """Six clips in one step: with one gone, it equals a run whose manifest does not have that clip."""
    losses = []
    for case in ("gone", "never there"):
        run = with_own_audio(trained[1], tmp_path / case, recorded=False)
        items = read_manifest(run.manifest("train"))
        Path(items[0].audio_filepath).unlink()
        if case == "never there":
            write_manifest(run.manifest("train"), items[1:])
        recipe = tolerant(tiny(tmp_path, "x", parts={"lora": {"rank": 4}}, epochs=1, batch_seconds=99.0, ctc_weight=0))
        Trainer(recipe.model_copy(update={"augment": AugmentSection()}), run, measure=scored).fit()
        (row,) = records(run, "step")
        losses.append((row["loss"], row["grad_norm"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_killed_run_skips_the_same_clips_after_the_file_came_back(
    trained: Trained, tiny: Tiny, tmp_path: Path
) -> None:
    recipe = tolerant(tiny(tmp_path, "x", parts=PARTS, machine={"checkpoint_every": 1}))
    runs = []
    for killed in (False, True):
        run = with_own_audio(trained[1], tmp_path / f"{killed}")
        path = clip(run, "train", 1)
        kept = shutil.copy(path, tmp_path / "kept")
        callbacks: list[TrainerCallback] = [Vanish(path, 2)]  # the last step of the first epoch
        if not killed:
            result = Trainer(recipe, run, callbacks, measure=scored).fit()
        else:
            with pytest.raises(Killed):
                Trainer(recipe, run, [*callbacks, KillInStep(3)], measure=scored).fit()
            shutil.copy(kept, path)
            assert Trainer(recipe, run, measure=scored).fit().skipped_clips == result.skipped_clips == {"train": 1}
        runs.append(run)
    assert_equal_weights(*runs)
    assert records(runs[0], "step") == records(runs[1], "step")
    rows = [[(row["step"], row["id"]) for row in records(run, "skipped_clip")] for run in runs]
    assert rows[0] == rows[1] and len(rows[0]) == 1


@pytest.mark.parametrize("case", ["workers", "cache", "concat", "a complete step"])
def test_clips_are_skipped_with(trained: Trained, tiny: Tiny, tmp_path: Path, case: str) -> None:
    run = with_own_audio(trained[1], tmp_path / "own", recorded=case != "cache")
    longest = max(item.duration for item in read_manifest(run.manifest("train")))
    path = clip(run, "train", 3)
    path.unlink()
    machine = {"workers": int(case == "workers"), "cache_encoder": case == "cache"}
    alone = case == "a complete step"  # a batch and a step for each clip
    settings = {"epochs": 1, "ctc_weight": 0, "batch_seconds": longest if alone else 5.0, "accumulation": 2 - alone}
    recipe = tolerant(
        tiny(tmp_path, "x", parts={"lora": {"rank": 4}}, machine=machine, **settings),
        augment=AugmentSection(concat=0.6 * (case == "concat")),
    )
    result = Trainer(recipe, run, measure=scored).fit()
    assert result.skipped_clips == {"train": 1} and result.skipped_steps == 0
    steps = records(run, "step")
    assert len(steps) == result.steps and all(torch.isfinite(value).all() for value in weights(run).values())
    assert sum(row["grad_norm"] == 0 for row in steps) == alone


@pytest.mark.parametrize("recorded", [True, False])
def test_more_clips_than_max_bad_fraction_end_the_run(
    trained: Trained, tiny: Tiny, tmp_path: Path, recorded: bool
) -> None:
    run = with_own_audio(trained[1], tmp_path / "own", recorded)
    for index in (0, 1):
        clip(run, "train", index).unlink()
    recipe = tolerant(tiny(tmp_path, "x", parts={"lora": {"rank": 4}}, ctc_weight=0, epochs=1), 0.3)
    with pytest.raises(
        DataError, match=r"data\.train: the audio of 2 of 6 clips .* allows: train-.*no such file.*rerun"
    ):
        Trainer(recipe, run, measure=scored).fit()


def test_the_limit_is_that_of_each_split() -> None:
    splits = {
        split: [Utterance(f"{split}{i}", "", 1.0, "") for i in range(4)] for split in ("train", "replay", "valid")
    }
    clips = UnreadableClips(splits, 0.5, {"replay": {"replay0": "gone"}})
    clips.add({"replay0": "gone again", "replay1": "gone", "train2": "gone", "valid1": "another split"})
    assert clips.counts() == {"replay": 2, "train": 1} and clips.trained == {"replay0", "replay1", "train2"}
    assert clips.unreported == [("train", "train2"), ("replay", "replay1")]
    clips.add({"valid1": "cut"}, "valid")
    assert [item.id for item in clips.readable("valid", splits["valid"])] == ["valid0", "valid2", "valid3"]
    with pytest.raises(DataError, match=r"data\.replay: the audio of 3 of 4 clips"):
        clips.add({"replay3": "gone"})
    all_gone = UnreadableClips({"valid": splits["valid"][:1]}, 1.0, {})
    with pytest.raises(DataError, match="1 of 1"):
        all_gone.add({"valid0": "gone"}, "valid")


def test_a_valid_clip_that_vanishes_leaves_the_scores_of_base_and_adapters_on_the_same_clips(
    trained: Trained, tiny: Tiny, tmp_path: Path
) -> None:
    run = with_own_audio(trained[1], tmp_path / "own")
    recipe = tolerant(tiny(tmp_path, "x", parts={"lora": {"rank": 4}}, ctc_weight=0), 0.4)
    trainer = Trainer(recipe, run, [Vanish(clip(run, "valid", 1), 1)])
    result = trainer.fit()
    assert result.skipped_clips == {"valid": 1}
    gone = read_manifest(run.manifest("valid"))[1].id
    for scores in (trainer.state.base_scores, trainer.state.best_scores):
        assert len(scores.errors["valid"]) == 2 and gone not in scores.errors["valid"]
        errors, words = map(sum, zip(*scores.errors["valid"].values(), strict=True))
        assert scores.valid == errors / words
    assert result.base_valid_wer == trainer.state.base_scores.valid
    assert len(trainer.state.base_scores.errors["canary"]) == 2


def test_a_valid_clip_that_came_back_after_a_kill_stays_skipped(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    """The best adapter was scored without it, and the kill came before the checkpoint that names it."""
    run, saves = with_own_audio(trained[1], tmp_path / "own"), 0
    path = clip(run, "valid", 1)
    gone, kept = read_manifest(run.manifest("valid"))[1].id, shutil.copy(path, tmp_path / "kept")
    recipe = tolerant(tiny(tmp_path, "x", parts={"lora": {"rank": 4}}, ctc_weight=0), 0.4)
    scores = iter([0.9, 0.8, 0.4])  # of the base, and of both epochs

    def measured(_: object, splits: dict[str, list[Utterance]], *__: object) -> Scores:
        items = [item for item in splits["valid"] if Path(item.audio_filepath).exists()]
        reasons = {"valid": {gone: "missing"}} if len(items) < len(splits["valid"]) else {}
        return Scores(next(scores), None, {"valid": {item.id: [1, 2] for item in items}}, reasons)

    def killed_in_second_save(target: Path, content: Any) -> None:
        nonlocal saves
        saves += target.name == checkpoint.PROGRESS
        if saves == 2:
            raise Killed
        checkpoint.DISK.write_json(target, content)

    files = replace(checkpoint.DISK, write_json=killed_in_second_save)
    last = len(records(trained[1], "step"))
    with pytest.raises(Killed):
        Trainer(recipe, run, [Vanish(path, last)], measure=measured, files=files).fit()
    shutil.copy(kept, path)
    scores = iter([0.4])
    trainer = Trainer(recipe, run, measure=measured)
    assert trainer.fit().skipped_clips == {"valid": 1}
    (row,) = records(run, "skipped_clip")
    assert (row["split"], row["id"], row["reason"]) == ("valid", gone, UNSCORED)
    for found in (trainer.state.base_scores, trainer.state.best_scores):
        assert len(found.errors["valid"]) == 2 and gone not in found.errors["valid"]


def test_scores_without_a_clip() -> None:
    scores = Scores(0.5, 0.25, {"valid": {"a": [3, 4], "b": [1, 4]}, "canary": {"c": [1, 4]}})
    assert scores.without("valid", ["a", "x"]) == Scores(0.25, 0.25, {"valid": {"b": [1, 4]}, "canary": {"c": [1, 4]}})
    assert scores.without("canary", []).canary == 0.25
    assert Scores(0.5, None).without("valid", ["a"]) == Scores(0.5, None), "of a checkpoint without counts"


@pytest.mark.slow
def test_two_processes_skip_as_one(tiny: Tiny, tmp_path: Path, trained: Trained) -> None:
    """The clip is damaged after the start, and each rank finds it or hears of it in the same step."""
    runs = []
    for processes in (1, 2):
        own = with_own_audio(trained[1], tmp_path / f"audio{processes}")
        plain = tiny(tmp_path, f"{processes}", accumulation=2 // processes, machine={"processes": processes})
        data = {split: [str(own.manifest(split))] for split in ("train", "valid", "test", "canary")}
        recipe = plain.model_copy(update={"data": plain.data.model_copy(update={**data, "max_bad_fraction": 0.5})})
        run = run_recipe(recipe, "prepare")
        run.audio_files.unlink()  # otherwise the first rank finds it before the first step
        clip(own, "train", 4).unlink()
        runs.append(run_recipe(recipe, "train"))
    for one, two in zip(records(runs[0], "step"), records(runs[1], "step"), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
    for name, value in weights(runs[0]).items():
        assert torch.allclose(value, weights(runs[1])[name], atol=1e-4), name
    done = [run.done("train") or {} for run in runs]
    assert [record["skipped_clips"] for record in done] == [{"train": 1}] * 2
