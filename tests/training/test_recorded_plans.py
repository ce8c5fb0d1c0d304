"""Plans, prompts, targets and labels are those of commit e498194: each clip in the same micro-batch of each epoch.

A change here changes the results of every training.
"""

import hashlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune.core.config import Recipe
from finetune.data.manifest import Utterance
from finetune.model.ctc import to_labels
from finetune.model.granite import SpeechModel, load_model
from finetune.training.corpus import TrainingCorpus

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["stent", "Ward", "amoxicillin", "naïve", "λόγος", "カタカナ", "漢字", "A+", "it's", "2.5", "mmm", "<|audio|>"]
WORDS += ["İstanbul"]
Clips = tuple[list[Utterance], list[Utterance]]


def embedded() -> Clips:
    splits = []
    for split in ("train", "replay"):
        lines = (ROOT / f"data/vocabulary/{split}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = map(json.loads, lines)
        splits.append([Utterance(row["id"], row["audio_filepath"], row["duration"], row["text"]) for row in rows])
    return splits[0], splits[1]


def synthetic(count: int, seed: int) -> list[Utterance]:
    rng, items = random.Random(seed), []
    for number in range(count):
        text = " ".join(rng.choices(WORDS, k=rng.randint(1, 14)))
        keywords = tuple(rng.choices(("stent", "ward", "Ward 2"), k=rng.choice((0, 0, 0, 1, 2))))
        duration = round(min(20.0, rng.lognormvariate(1, 0.7)), 3) + 0.3
        language = rng.choice(("", "en", "fr"))
        name = f"s{seed}-{number}"
        items.append(Utterance(name, f"{number % 7}.wav", duration, text, language=language, keywords=keywords))
    return items


def recipe_of(base: Path, seed: int, augment: Any, data: Any, train: Any, machine: Any) -> Recipe:
    corpora = {split: ["x.jsonl"] for split in ("train", "replay", "valid", "test")}
    return Recipe.model_validate(
        {
            "name": "x",
            "seed": seed,
            "model": {"base": str(base)},
            "parts": {"ctc_head": {"mode": "full"}} if train.get("ctc_weight", 0.1) else {},
            "data": {**corpora, **data},
            "train": {"epochs": 3, "ctc_weight": 0.1, **train},
            "augment": augment,
            "machine": machine,
        }
    )


# seed, batches in a step, clips, sections; then steps, padding, typical duration, largest positions, digest
CASES: dict[str, tuple[Any, ...]] = {
    "embedded clips": (
        (1, 2, embedded),
        ({"speed": 0.1, "concat": 0.3}, {"replay_weight": 1.5, "max_duration": 12.0}, {"batch_seconds": 30.0}, {}),
        ([77, 76, 77], 0.021673958628478762, 4.3, 234, "76bab475be039880b373f22e"),
    ),
    "without augmentation": (
        (7, 4, lambda: (embedded()[0], [])),
        ({}, {}, {"batch_seconds": 60.0}, {}),
        ([13, 13, 13], 0.03483371204001395, 2.84, 116, "03783624fd1eeb0d7fd121fa"),
    ),
    "keywords, languages, unknown characters": (
        (3, 3, lambda: (synthetic(700, 1), synthetic(300, 2))),
        (
            {"speed": 0.2, "concat": 0.6},
            {"replay_weight": 2.3, "max_duration": 30.0},
            {"batch_seconds": 90.0, "batch_tokens": 1500},
            {},
        ),
        ([40, 40, 41], 0.023231104709318662, 12.41, 892, "38c64e99e7a7e03e24d13565"),
    ),
    "cached encoder": (
        (5, 1, lambda: (synthetic(400, 3), synthetic(150, 4))),
        ({}, {"replay_weight": 2.5}, {"batch_seconds": 45.0, "ctc_weight": 0}, {"cache_encoder": True}),
        ([70, 71, 71], 0.0361047646663496, 4.39, 246, "c98392c662af66acaeafe245"),
    ),
    "one step": (
        (11, 8, lambda: (synthetic(40, 5), synthetic(9, 6))),
        ({"concat": 0.8}, {"replay_weight": 0.3, "max_duration": 1000.0}, {"batch_seconds": 2000.0}, {}),
        ([1, 1, 1], 0.42742459175588166, 31.64, 943, "e3da51bdfe26d9ed63ce8b66"),
    ),
    "the same groups many times": (
        (2, 2, lambda: (synthetic(3, 8), synthetic(4, 9))),
        ({"concat": 0.5}, {"replay_weight": 60.0, "max_duration": 40.0}, {"batch_seconds": 100.0}, {}),
        ([8, 8, 8], 0.07033045182983233, 13.32, 725, "faade5459b842dd847833605"),
    ),
}


@pytest.fixture(scope="module")
def model(nano: Path) -> SpeechModel:
    return load_model(str(nano), "float32")


@pytest.mark.parametrize("case", CASES)
def test_plans_and_texts_are_those_that_were_recorded(model: SpeechModel, nano: Path, case: str) -> None:
    (seed, group, make), sections, (steps, padding, typical, positions, digest) = CASES[case]
    recipe = recipe_of(nano, seed, *sections)
    train, replay = make()
    corpus = TrainingCorpus(model, recipe, {"train": train} | ({"replay": replay} if replay else {}))
    outline = corpus.outline(recipe.train.batch_seconds, group)
    assert (outline.steps, corpus.typical_duration) == (steps, typical)
    assert outline.padding == pytest.approx(padding, rel=1e-12)
    assert outline.positions == positions
    rows, clips = [], corpus.dataset.clips
    for epoch in range(recipe.train.epochs):
        plan = corpus.plan(epoch, recipe.train.batch_seconds, group)
        rows += [[[content(corpus, index) for index in micro] for micro in step] for step in plan]
        used = [index for step in plan for micro in step for index in micro]
        assert (outline.clips[epoch], outline.batches[epoch]) == (len(used), sum(map(len, plan)))
        clips = corpus.dataset.clips
        assert outline.seconds[epoch] == pytest.approx(sum(clips[index].duration for index in used))
        assert corpus.dataset.tokens(used) == sum(len(corpus.dataset.target(index)) for index in used)
        assert corpus.dataset.labels(used) == sum(len(to_labels(clips[index].text)[0]) for index in used)
    if sys.version_info < (3, 12):  # newer versions round the sums of durations in other ways
        assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:24] == digest


def test_the_warnings_about_ctc_are_those_that_were_recorded(
    model: SpeechModel, nano: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Clips are counted at the fastest speed of the augmentation."""
    (seed, _, make), sections, _ = CASES["keywords, languages, unknown characters"]
    train, replay = make()
    TrainingCorpus(model, recipe_of(nano, seed, *sections), {"train": train, "replay": replay})
    unknown, short = (record.getMessage() for record in caplog.records)
    assert unknown.startswith("4642 characters are outside the CTC alphabet")
    assert short.startswith("77 clips have more text") and short.endswith("(such as s1-19)")


def content(corpus: TrainingCorpus, index: int) -> list[object]:
    """Everything that training knows of a clip; seconds are rounded, because Python 3.12 sums in another way."""
    data = corpus.dataset
    clip, prompt = data.clips[index], data.prompt(index)
    return [
        clip.id,
        [item.id for item in data.clips.sources(index)],
        round(clip.duration, 6),
        round(float(data.durations[index]), 6),
        int(data.positions[index]),
        data.target(index),
        to_labels(clip.text)[0],
        list(prompt.prefix),
        list(prompt.suffix),
    ]
