"""Clips without speech in an epoch: their number, their empty targets, their losses, training and resume with them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from training_runs import Killed, KillInStep, prepared, records, weights

from finetune.core.config import AugmentSection, Recipe
from finetune.core.errors import CheckpointError
from finetune.core.goals import GOALS
from finetune.core.run_dir import RunDir
from finetune.data.manifest import read_manifest
from finetune.model.granite import SpeechModel
from finetune.training.batches import BatchSource
from finetune.training.collate import batch_from_waves
from finetune.training.corpus import TrainingCorpus
from finetune.training.dataset import SpeechDataset
from finetune.training.loss import IGNORE, ctc_loss
from finetune.training.plan import no_speech_durations, shard_for_rank
from finetune.training.trainer import Trainer, train

Tiny = Callable[..., Recipe]
Trained = tuple[Recipe, RunDir, SpeechModel]

EFFECTS = {
    "speed": 0.1,
    "noise": ["pink", "babble", "music"],
    "noise_probability": 0.8,
    "telephone": 0.3,
    "codecs": ["mu-law", "opus"],
    "codec_probability": 0.5,
    "clipping": 0.3,
    "mel_mask": 8,
    "time_mask": 8,
    "no_speech": 0.4,
}


def with_effects(recipe: Recipe, **settings: object) -> Recipe:
    return recipe.model_copy(update={"augment": AugmentSection.model_validate(settings)})


@pytest.mark.parametrize("fraction", [0.05, 0.3])
def test_the_fraction_is_that_of_all_clips_of_an_epoch(fraction: float) -> None:
    durations, chosen = np.arange(1.0, 41.0), np.arange(40, dtype=np.int32)
    found = [no_speech_durations(durations, chosen, 40, fraction, 1, epoch) for epoch in range(200)]
    count = np.mean([len(seconds) for seconds in found])
    assert count / (count + 40) == pytest.approx(fraction, rel=0.05)
    assert {*np.concatenate(found).tolist()} <= {*durations.tolist()}
    assert found[0].tolist() == no_speech_durations(durations, chosen, 40, fraction, 1, 0).tolist()
    assert found[0].tolist() != found[1].tolist()


def test_without_the_setting_there_are_none() -> None:
    assert not len(no_speech_durations(np.ones(5), np.arange(5, dtype=np.int32), 5, 0.0, 1, 0))


def test_they_are_the_last_clips_of_each_epoch_with_an_empty_target(
    trained: Trained, tiny: Tiny, tmp_path: Path, model: Callable[[], SpeechModel]
) -> None:
    recipe = with_effects(tiny(tmp_path, "x"), no_speech=0.5, concat=0.3)
    data = SpeechDataset(model(), recipe, read_manifest(trained[1].manifest("train")))
    chosen = data.open_epoch(0)
    silent = [index for index in chosen.tolist() if not data.clips.sources(index)]
    assert silent == list(range(len(data.clips) - len(silent), len(data.clips))) and len(silent) >= 3
    spoken = len(chosen) - len(silent)
    assert abs(len(silent) - spoken) <= 1
    end = data.model.tokenizer.eos_token_id
    for index in silent:
        assert data.target(index) == [end] and data.labels([index]) == 0 and data.tokens([index]) == 1
        assert data.clips[index].text == "" and data.readable([index], {"a"}) == [index]
    seconds = data.seconds_of_epoch(0)
    assert len(seconds) == len(chosen) and data.durations[silent].tolist() == data.seconds[silent].tolist()
    batch = batch_from_waves(data, silent[:2], [np.zeros(8000, np.float32)] * 2, 0)
    assert batch.characters == [[], []] and (batch.labels != IGNORE).sum(1).tolist() == [1, 1]
    data.open_all_epochs()
    assert sum(not data.clips.sources(index) for index in range(len(data.clips))) >= 2 * len(silent) - 2


def test_the_ctc_loss_of_an_empty_target_is_that_of_blanks() -> None:
    logits = torch.randn(3, 7, 348, requires_grad=True)
    frames = torch.tensor([7, 5, 6])
    loss = ctc_loss(logits, frames, [[], [], []])
    blanks = logits.detach().log_softmax(-1)[..., 0]
    expected = -sum(float(row[:count].sum()) for row, count in zip(blanks, frames.tolist(), strict=True))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    torch.autograd.backward(loss)
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
    mixed = ctc_loss(logits, frames, [[], [97, 98], []])
    alone = ctc_loss(logits[1:2, :5], frames[1:2], [[97, 98]])
    assert float(mixed.detach()) == pytest.approx(
        expected + float(blanks[1, :5].sum()) + float(alone.detach()), rel=1e-5
    )


def test_a_plan_has_them_in_its_batches(
    trained: Trained, tiny: Tiny, tmp_path: Path, model: Callable[[], SpeechModel]
) -> None:
    clips = {"train": read_manifest(trained[1].manifest("train"))}
    plain = TrainingCorpus(model(), with_effects(tiny(tmp_path, "x")), clips)
    corpus = TrainingCorpus(model(), with_effects(tiny(tmp_path, "x"), no_speech=0.4), clips)
    members = corpus.plan(0, 5.0, 1).batches.members
    assert sorted(members.tolist()) == list(range(len(corpus.dataset.clips))) and len(members) > 6
    assert corpus.outline(5.0, 1).clips[0] == len(members) and plain.outline(5.0, 1).clips[0] == 6
    assert corpus.typical_duration > 0


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_together_get_the_augmented_clips_of_one_rank(
    trained: Trained, tiny: Tiny, tmp_path: Path, model: Callable[[], SpeechModel], ranks: int
) -> None:
    """Bit for bit. Each rank opens its own corpus and effects; the number of workers differs between the ranks."""
    clips = {"train": read_manifest(trained[1].manifest("train"))}

    def features(rank: int, ranks: int) -> dict[tuple[int, ...], Tensor]:
        """By epoch and indices of the clips of a micro-batch."""
        recipe = tiny(tmp_path, "x", batch_seconds=3.0, machine={"workers": rank})
        corpus = TrainingCorpus(model(), with_effects(recipe, **EFFECTS, concat=0.3), clips)
        source, found = BatchSource(corpus.dataset, corpus.recipe, tmp_path, "", False), dict[tuple[int, ...], Tensor]()
        for epoch in range(2):
            steps = corpus.plan(epoch, 3.0, 6)
            local = [micro for step in steps for micro in shard_for_rank(step, rank, ranks) if micro]
            batches = zip(local, source.batches(local, epoch), strict=True)
            found.update({(epoch, *micro): batch.audio for micro, batch in batches})
        return found

    whole, shares = features(0, 1), [features(rank, ranks) for rank in range(ranks)]
    assert all(shares) and sum(map(len, shares)) == len(whole) >= 4
    together = {key: value for share in shares for key, value in share.items()}
    assert together.keys() == whole.keys()
    assert all(torch.equal(value, together[key]) for key, value in whole.items())


def test_a_run_with_all_effects_resumes_to_the_same_weights(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    """Killed in its third step and continued with another number of workers."""
    whole = prepared(trained[1], tmp_path / "whole")
    train(with_effects(tiny(tmp_path, "whole", epochs=1, batch_seconds=3.0), **EFFECTS), whole)
    run = prepared(trained[1], tmp_path / "killed")
    for attempt in range(9):
        machine = {"checkpoint_every": 1, "workers": attempt % 2}
        try:
            recipe = tiny(tmp_path, "killed", machine=machine, epochs=1, batch_seconds=3.0)
            Trainer(with_effects(recipe, **EFFECTS), run, [KillInStep(2)]).fit()
            break
        except Killed:
            continue
    assert attempt > 0 and records(run, "step") == records(whole, "step")
    assert all(torch.equal(value, weights(run)[name]) for name, value in weights(whole).items())


def test_a_changed_noise_folder_is_refused_at_resume(trained: Trained, tiny: Tiny, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.mkdir()
    clip = read_manifest(trained[1].manifest("train"))[0]
    (noise / "a.opus").symlink_to(clip.audio_filepath)
    recipe = with_effects(tiny(tmp_path, "x", machine={"checkpoint_every": 1}), noise=[str(noise)])
    run = prepared(trained[1], tmp_path / "x")
    with pytest.raises(Killed):
        train(recipe, run, [KillInStep(1)])
    (noise / "b.opus").symlink_to(clip.audio_filepath)
    with pytest.raises(CheckpointError, match="recordings of augment: was"):
        Trainer(recipe, run)


def test_every_goal_teaches_silence() -> None:
    assert {preset["augment.no_speech"] for preset in GOALS.values()} == {"0.05"}
