"""The sizes of all epochs: computed once for a run, and never taken from another run."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, RecipeError
from finetune.data.manifest import Utterance, read_manifest, write_manifest
from finetune.data.utterance_table import open_manifest
from finetune.model.granite import SpeechModel, load_model
from finetune.training.corpus import TrainingCorpus

SECONDS, GROUP = 10.0, 2


@pytest.fixture(scope="module")
def model(nano: Path) -> SpeechModel:
    return load_model(str(nano), "float32")


@pytest.fixture
def manifests(tmp_path: Path) -> dict[str, Path]:
    for split, count in (("train", 60), ("replay", 20)):
        items = [Utterance(f"{split}{n}", "a.wav", 1 + n % 7 / 8, f"word {n}") for n in range(count)]
        write_manifest(tmp_path / f"{split}.jsonl", items)
    return {split: tmp_path / f"{split}.jsonl" for split in ("train", "replay")}


class Corpus(TrainingCorpus):
    """Counts the plans that it makes."""

    made = 0

    def _make_outline(self, *arguments: Any) -> Any:
        self.made += 1
        return super()._make_outline(*arguments)


def recipe_of(nano: Path, seed: int = 1, **sections: Any) -> Recipe:
    corpora = {split: ["x.jsonl"] for split in ("train", "replay", "valid", "test")}
    defaults = {"train": {"epochs": 3}, "augment": {"concat": 0.3}}
    content = {"name": "x", "seed": seed, "model": {"base": str(nano)}, "data": corpora, **defaults, **sections}
    return Recipe.model_validate(content)


def corpus_of(model: SpeechModel, recipe: Recipe, manifests: dict[str, Path]) -> Corpus:
    return Corpus(model, recipe, {split: open_manifest(path) for split, path in manifests.items()}, manifests)


def test_the_outline_is_made_once_and_has_the_steps_of_the_plans(
    model: SpeechModel, nano: Path, manifests: dict[str, Path]
) -> None:
    first, second = (corpus_of(model, recipe_of(nano), manifests) for _ in range(2))
    outline = first.outline(SECONDS, GROUP)
    assert first.outline(SECONDS, GROUP) is outline and first.dataset.open == 0, "the first epoch can begin"
    assert second.outline(SECONDS, GROUP) == outline and (first.made, second.made) == (1, 0)
    plans = [second.plan(epoch, SECONDS, GROUP) for epoch in range(3)]
    assert outline.steps == list(map(len, plans)) and outline.batches == [len(plan.batches) for plan in plans]
    assert [list(first.plan(epoch, SECONDS, GROUP)) for epoch in range(3)] == list(map(list, plans))


@pytest.mark.parametrize(("replay_weight", "true_terms"), [(1.0, 0.0), (2.5, 0.0), (2.5, 0.8)])
def test_the_cache_of_the_encoder_changes_no_plan(
    model: SpeechModel, nano: Path, tmp_path: Path, replay_weight: float, true_terms: float
) -> None:
    """`machine` can change while a run trains, in the middle of an epoch; keywords differ each time a clip occurs."""
    items = [Utterance(f"{n}", "a.wav", 1 + n % 7 / 8, f"word {n}", sampling_weight=0.5 + n % 4) for n in range(60)]
    write_manifest(tmp_path / "train.jsonl", items)
    write_manifest(tmp_path / "replay.jsonl", [Utterance(f"r{n}", "a.wav", 1.5, "word") for n in range(9)])
    manifests = {split: tmp_path / f"{split}.jsonl" for split in ("train", "replay")}
    data = {**recipe_of(nano).data.model_dump(exclude_none=True), "replay_weight": replay_weight}
    rows = []
    for cache in (False, True):
        sections = {"augment": {}, "data": data, "keywords": {"true_terms": true_terms}}
        corpus = corpus_of(model, recipe_of(nano, machine={"cache_encoder": cache}, **sections), manifests)
        plan, clips = corpus.plan(1, SECONDS, GROUP), corpus.dataset.clips
        assert all(clips.row(index) < 69 for step in plan for micro in step for index in micro)
        rows.append([[[clips.sources(index)[0].id for index in micro] for micro in step] for step in plan])
        rows[-1].append([[corpus.dataset.prompt(index) for index in micro] for step in plan for micro in step])
    assert rows[0] == rows[1]


def test_another_run_has_another_outline(model: SpeechModel, nano: Path, manifests: dict[str, Path]) -> None:
    data = recipe_of(nano).data.model_dump(exclude_none=True)
    recipes = [
        recipe_of(nano),
        recipe_of(nano, seed=2),
        recipe_of(nano, augment={"concat": 0.2}),
        recipe_of(nano, train={"epochs": 2}),
        recipe_of(nano, data={**data, "replay_weight": 0.5}),
        recipe_of(nano, data={**data, "max_duration": 5.0}),
        recipe_of(nano, augment={}),
        recipe_of(nano, augment={}, machine={"cache_encoder": True}),
        recipe_of(nano, model={"base": str(nano), "instruction": "write the words"}),
    ]
    keys = [corpus_of(model, recipe, manifests).key(SECONDS, GROUP) for recipe in recipes]
    keys += [corpus_of(model, recipe_of(nano), manifests).key(*sizes) for sizes in ((9.0, GROUP), (SECONDS, 3))]
    for split in manifests:
        write_manifest(manifests[split], read_manifest(manifests[split])[1:])
        keys.append(corpus_of(model, recipe_of(nano), manifests).key(SECONDS, GROUP))
    assert len({*keys}) == len(keys) == 13
    first, other = (corpus_of(model, recipe_of(nano, seed=seed), manifests) for seed in (1, 2))
    assert first.outline(SECONDS, GROUP) and other.outline(SECONDS, GROUP) and other.made == 1


def test_a_damaged_outline_is_made_again_and_a_wrong_one_is_an_error(
    model: SpeechModel, nano: Path, manifests: dict[str, Path]
) -> None:
    path = manifests["train"].with_name("epochs.json")
    steps = corpus_of(model, recipe_of(nano), manifests).outline(SECONDS, GROUP).steps
    content = json.loads(path.read_text())
    for text in ("", "[]", "{}", json.dumps({"key": content["key"], "outline": {"steps": 3}})):
        path.write_text(text)
        assert corpus_of(model, recipe_of(nano), manifests).outline(SECONDS, GROUP).steps == steps
    content["outline"]["steps"][1] += 1
    path.write_text(json.dumps(content))
    corpus = corpus_of(model, recipe_of(nano), manifests)
    corpus.outline(SECONDS, GROUP)
    corpus.plan(0, SECONDS, GROUP)
    with pytest.raises(CheckpointError, match=rf"epochs.json: epoch 2 has {steps[1]} steps, not {steps[1] + 1}; del"):
        corpus.plan(1, SECONDS, GROUP)


def test_a_plan_opens_its_clips_again(model: SpeechModel, nano: Path, manifests: dict[str, Path]) -> None:
    """`train.batch: auto` opens the clips of all epochs in between."""
    corpus = corpus_of(model, recipe_of(nano), manifests)
    plan = list(corpus.plan(1, SECONDS, GROUP))
    ids = [item.id for item in corpus.dataset.clips]
    corpus.dataset.open_all_epochs()
    assert len(corpus.dataset.clips) > len(ids) and corpus.dataset.open is None
    assert list(corpus.plan(1, SECONDS, GROUP)) == plan
    assert [item.id for item in corpus.dataset.clips] == ids and corpus.dataset.open == 1


def test_without_manifests_nothing_is_written(model: SpeechModel, nano: Path, manifests: dict[str, Path]) -> None:
    clips = {split: read_manifest(path) for split, path in manifests.items()}
    for files in (None, manifests):
        corpus = Corpus(model, recipe_of(nano), clips, files)
        corpus.outline(SECONDS, GROUP)
        corpus.outline(SECONDS, GROUP)
        assert corpus.made == 1
    assert sorted(path.name for path in manifests["train"].parent.iterdir()) == ["replay.jsonl", "train.jsonl"]


def test_a_concatenated_clip_must_fit_into_a_batch(model: SpeechModel, nano: Path, manifests: dict[str, Path]) -> None:
    """Every single clip fits; the error is known before the first step."""
    recipe = recipe_of(nano, train={"epochs": 3, "batch_tokens": 80}, augment={"concat": 0.9})
    corpus = corpus_of(model, recipe, manifests)
    assert corpus.dataset.positions.max() <= 80
    with pytest.raises(RecipeError, match=r"train\.batch_tokens: 80 is too small for (train|replay)\d+\+.*positions"):
        corpus.outline(SECONDS, GROUP)
