"""The plan of a large corpus is an estimate from columns and a sample; it is close to the exact plan."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import embedded

from finetune.core.config import AugmentSection, Recipe
from finetune.core.data_config import CorpusEntry, DataSection
from finetune.core.errors import RecipeError
from finetune.data.audio import SAMPLE_RATE
from finetune.data.corpus import Corpus
from finetune.data.features import FRAME_SECONDS, num_frames
from finetune.data.manifest import seconds_of
from finetune.data.row import Row
from finetune.model.granite import SpeechModel
from finetune.planning.measure import measure_time
from finetune.planning.split_facts import LIMITS, Limits, SplitFacts, open_split, read_facts
from finetune.planning.steps import plan_steps

Tiny = Callable[..., Recipe]
ROWS = 300


@pytest.fixture
def recipe(tiny: Tiny, tmp_path: Path) -> Recipe:
    """A recipe with 300 rows of training clips; 3 of 4 state their duration."""
    clips = embedded("train", 30)
    rows = [
        {
            "id": f"clip-{number}",
            "audio_filepath": clips[number % 30].audio_filepath,
            "duration": clips[number % 30].duration if number % 4 else None,
            "text": clips[number % 30].text,
            "speaker": clips[number % 30].speaker,
        }
        for number in range(ROWS)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = tiny(tmp_path / "runs", "x", batch_seconds=20.0)
    return recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"train": [CorpusEntry(path=str(tmp_path / "train.jsonl"))]})}
    )


def facts_of(recipe: Recipe, limits: Limits = LIMITS) -> SplitFacts:
    corpora = open_split(recipe.data, "train")
    assert corpora is not None
    return read_facts(recipe.data, "train", corpora, limits=limits)


def test_facts_have_durations_of_columns_and_headers(recipe: Recipe) -> None:
    facts = facts_of(recipe)
    expected = [clip.duration for clip in embedded("train", 30)] * 10
    assert list(facts.durations) == pytest.approx(expected, abs=0.02)
    assert (facts.rows, facts.stated, facts.unknown_speakers) == (ROWS, 225, 0)
    assert sum(facts.speakers.values()) == ROWS and facts.complete and len(facts.clips) == ROWS
    assert sum(facts.characters) == 10 * sum(len(clip.text) for clip in embedded("train", 30))


def test_a_pipe_among_the_audio_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    corpus = Corpus([Row("m:1", {"audio_filepath": str(tmp_path / "a.wav"), "text": "words"})])
    assert math.isnan(read_facts(DataSection(valid=["m"], test=["m"]), "train", [corpus]).durations[0])


def test_a_large_split_keeps_a_sample_and_the_largest_clips(recipe: Recipe) -> None:
    facts = facts_of(recipe, Limits(clips=100, sample=30, largest=5, headers=10))
    assert not facts.complete and len(facts.clips) == 20 and len(facts.longest) == 6
    assert len(facts.durations) == ROWS and facts.longest[0].duration == max(clip.duration for clip in facts.longest)
    assert not any(seconds != seconds for seconds in facts.durations)  # the others have the mean


def test_the_estimate_is_close_to_the_exact_plan(recipe: Recipe, model: Callable[[], SpeechModel]) -> None:
    exact = plan_steps(model(), recipe, {"train": facts_of(recipe)}, 1)
    about = plan_steps(model(), recipe, {"train": facts_of(recipe)}, 1, Limits(exact=100))
    assert exact.plan.exact and not about.plan.exact
    assert about.plan.clips == exact.plan.clips == 2 * ROWS
    assert about.plan.hours == pytest.approx(exact.plan.hours, rel=1e-3)
    for name in ("steps", "batches", "longest_row", "tokens"):
        assert getattr(about.plan, name) == pytest.approx(getattr(exact.plan, name), rel=0.06), name
    assert about.largest.positions == pytest.approx(exact.largest.positions, rel=0.1)
    assert about.largest.frames == pytest.approx(exact.largest.frames, rel=0.1)
    assert about.padded_seconds == pytest.approx(exact.padded_seconds, rel=0.05)
    for large, typical in (exact.measured, about.measured):
        assert max(map(seconds_of, large)) * len(large) <= 20.0
        assert len(typical) >= len(large) > 0


@pytest.mark.parametrize("exact", [10_000, 100])
def test_a_plan_counts_clips_without_speech(recipe: Recipe, model: Callable[[], SpeechModel], exact: int) -> None:
    augment = recipe.augment.model_copy(update={"no_speech": 0.5})
    made = plan_steps(model(), recipe.model_copy(update={"augment": augment}), {"train": facts_of(recipe)}, 1,
                      Limits(exact=exact))  # fmt: skip
    plain = plan_steps(model(), recipe, {"train": facts_of(recipe)}, 1)
    assert made.plan.clips == pytest.approx(4 * ROWS, abs=2) and made.plan.exact == (exact > 100)
    assert made.plan.tokens == pytest.approx(plain.plan.tokens + 2 * ROWS, rel=0.06), "one token for each"
    assert all(batch and all(item.audio_filepath for clip in batch for item in clip) for batch in made.measured)


def test_measured_batches_have_all_files_of_concatenated_clips(
    recipe: Recipe, model: Callable[[], SpeechModel]
) -> None:
    recipe = recipe.model_copy(update={"augment": recipe.augment.model_copy(update={"concat": 0.9})})
    made = plan_steps(model(), recipe, {"train": facts_of(recipe)}, 1)
    assert max(len(clip) for batch in made.measured for clip in batch) > 1
    largest = max(map(seconds_of, made.measured[0])) / (1 - recipe.augment.speed)
    assert made.largest.frames == num_frames(round(largest * SAMPLE_RATE))


def test_concatenated_clips_are_measured_with_all_their_audio(recipe: Recipe, model: Callable[[], SpeechModel]) -> None:
    recipe = recipe.model_copy(update={"augment": AugmentSection(concat=0.9)})
    steps, frames = plan_steps(model(), recipe, {"train": facts_of(recipe)}, 1), list[list[int]]()

    def load(*_: object) -> SpeechModel:
        loaded = model()
        loaded.register_forward_pre_hook(lambda _, args: frames.append(args[1].tolist()))
        return loaded

    measure_time(recipe, steps, [], 0.0, load)
    assert len(frames) == 6  # three steps on each batch
    for batch, seen in zip(steps.measured, (frames[0], frames[3]), strict=True):
        assert seen == pytest.approx([seconds_of(clip) / FRAME_SECONDS for clip in batch], abs=3)


def test_an_estimate_counts_the_weights_of_the_clips(recipe: Recipe, model: Callable[[], SpeechModel]) -> None:
    (entry,) = recipe.data.train
    weighted = recipe.data.model_copy(update={"train": [CorpusEntry(path=entry.path, weight=1.5)]})
    recipe = recipe.model_copy(update={"data": weighted})
    exact = plan_steps(model(), recipe, {"train": facts_of(recipe)}, 1)
    about = plan_steps(model(), recipe, {"train": facts_of(recipe)}, 1, Limits(exact=100))
    assert exact.plan.exact and exact.plan.clips == about.plan.clips == 3 * ROWS
    assert about.plan.hours == pytest.approx(exact.plan.hours, rel=0.05)


def test_an_estimate_plans_a_part_of_the_rows(recipe: Recipe, model: Callable[[], SpeechModel]) -> None:
    exact = plan_steps(model(), recipe, {"train": facts_of(recipe)}, 1)
    about = plan_steps(model(), recipe, {"train": facts_of(recipe)}, 1, Limits(exact=100, planned=75))
    for name in ("clips", "hours", "steps", "batches", "longest_row", "tokens"):
        assert getattr(about.plan, name) == pytest.approx(getattr(exact.plan, name), rel=0.1), name
    assert about.plan.longest_clip == pytest.approx(exact.plan.longest_clip)
    assert about.padded_seconds == pytest.approx(exact.padded_seconds, rel=0.1)


def test_the_longest_clip_of_a_large_corpus_is_checked(recipe: Recipe, model: Callable[[], SpeechModel]) -> None:
    """It is outside the sample, and rows with more text take the places of the largest clips."""
    path = Path(recipe.data.train[0].path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[1:3]:
        row["text"] = "a " * 200
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = facts_of(recipe, Limits(clips=100, sample=3, largest=2))
    longest = max(facts.durations)
    assert max(clip.duration for clip in facts.clips) < longest
    short = recipe.model_copy(update={"train": recipe.train.model_copy(update={"batch_seconds": longest - 0.01})})
    with pytest.raises(RecipeError, match=r"train\.batch_seconds: .* is too small for clip-"):
        plan_steps(model(), short, {"train": facts}, 1)
