"""The prepare stage: replay is audited, its ids differ from train, and leaks into scored splits are errors."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from finetune.core.config import ModelSection, Recipe
from finetune.core.data_config import CorpusEntry, TextSection
from finetune.core.errors import DataError
from finetune.core.files import read_json
from finetune.core.run_dir import RunDir
from finetune.data.corpus_preview import preview_corpora
from finetune.data.manifest import read_manifest
from finetune.data.prepare import prepare
from finetune.data.style import read_style

SPLITS = ("train", "replay", "valid", "test", "canary")
Corpora = Callable[..., Recipe]


@pytest.fixture
def corpora(tmp_path: Path) -> Corpora:
    """Creates a recipe with five splits with two utterances each; a keyword argument adds rows to a split."""

    def make(allow_leaks: bool = False, **extra_rows: list[dict[str, Any]]) -> Recipe:
        for split in SPLITS:
            rows = list[dict[str, Any]]()
            for name in "ab":
                path = tmp_path / split / f"{name}.wav"
                path.parent.mkdir(exist_ok=True)
                samples = np.random.default_rng(len(rows) + 9 * SPLITS.index(split)).uniform(-0.3, 0.3, 8000)
                soundfile.write(path, samples, 16_000)
                rows.append({"id": f"{split}-{name}", "audio_filepath": str(path), "text": f"{split} number {name}"})
            rows += extra_rows.get(split, [])
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        data: dict[str, Any] = {split: [str(tmp_path / f"{split}.jsonl")] for split in SPLITS}
        return Recipe.model_validate(
            {"name": "x", "model": {"base": "-"}, "data": {**data, "allow_leaks": allow_leaks}}
        )

    return make


def test_replay_is_a_split_like_the_others(corpora: Corpora, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    result = prepare(corpora(), run)
    assert result.kept == dict.fromkeys(SPLITS, 2) and set(result.hashes) == set(SPLITS)
    assert [item.id for item in read_manifest(run.manifest("replay"))] == ["replay-a", "replay-b"]
    assert [item.id for item in read_manifest(run.manifest("train"))] == ["train-a", "train-b"]


def test_terms_with_signs_are_noted(corpora: Corpora, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = corpora()
    (tmp_path / "terms.txt").write_text("A+\nnumber\n")
    data = recipe.data.model_copy(update={"terms": str(tmp_path / "terms.txt")})
    recipe = recipe.model_copy(update={"data": data})
    assert any(line.endswith("removes these: A+") for line in preview_corpora(recipe))
    with caplog.at_level(logging.INFO):
        prepare(recipe, RunDir(tmp_path / "run"))
    assert "not in a reference as written: A+" in caplog.text


@pytest.mark.parametrize(("splits", "warned"), [(("test",), "data.test"), (("train", "test"), "")])
def test_keywords_that_no_training_knows_are_a_warning(
    corpora: Corpora, tmp_path: Path, nano: Path, caplog: pytest.LogCaptureFixture, splits: tuple[str, ...], warned: str
) -> None:
    extra = {}
    for number, split in enumerate(splits):
        path = tmp_path / f"keywords-{split}.wav"
        soundfile.write(path, np.random.default_rng(1000 + number).uniform(-0.3, 0.3, 8000), 16_000)
        extra[split] = [{"audio_filepath": str(path), "text": f"{split} with a stent", "keywords": ["stent"]}]
    recipe = corpora(**extra).model_copy(update={"model": ModelSection(base=str(nano))})
    with caplog.at_level(logging.WARNING):
        prepare(recipe, RunDir(tmp_path / "run"))
    assert ("not trained with keyword prompts" in caplog.text) == bool(warned) and warned in caplog.text


def test_rows_of_several_corpora_record_their_corpus(corpora: Corpora, tmp_path: Path) -> None:
    run, recipe = RunDir(tmp_path / "run"), corpora()
    other = str(tmp_path / "replay.jsonl")
    data = recipe.data.model_copy(update={"canary": [*recipe.data.canary, CorpusEntry(path=other)], "replay": []})
    prepare(recipe.model_copy(update={"data": data}), run)
    recorded = [item.extra["corpus"] for item in read_manifest(run.manifest("canary"))]
    assert recorded == [recipe.data.canary[0].path] * 2 + [other] * 2
    assert all("corpus" not in item.extra for item in read_manifest(run.manifest("test")))


def test_a_bad_row_of_replay_is_an_error(corpora: Corpora, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data.replay: 1 of 3 rows are unusable"):
        prepare(corpora(replay=[{"audio_filepath": str(tmp_path / "gone.wav"), "text": "x"}]), RunDir(tmp_path / "run"))


@pytest.mark.parametrize("trained", ["train", "replay"])
@pytest.mark.parametrize("split", ["valid", "test", "canary"])
def test_a_leak_into_a_scored_split_is_an_error(corpora: Corpora, tmp_path: Path, trained: str, split: str) -> None:
    copied = {"id": "copied", "audio_filepath": str(tmp_path / split / "a.wav"), "text": f"{split.upper()}, number a!"}
    run = RunDir(tmp_path / "run")
    message = f"^data.{split}: the audio of 1 of its utterances is also in data.{trained}: the scores"
    with pytest.raises(DataError, match=message):
        prepare(corpora(**{trained: [copied]}), run)
    assert not run.manifests.exists()
    prepare(corpora(allow_leaks=True, **{trained: [copied]}), run)
    kinds = [problem["kind"] for problem in read_json(run.problems)[split]["warnings"]]
    assert len(kinds) == 1 and kinds[0].endswith(f"audio also in {trained}")


def test_a_copy_under_another_name_with_a_word_changed_is_a_leak(corpora: Corpora, tmp_path: Path) -> None:
    recipe = corpora(train=[{"audio_filepath": str(tmp_path / "copy.flac"), "text": "test letter a"}])
    samples, rate = soundfile.read(tmp_path / "test" / "a.wav")
    soundfile.write(tmp_path / "copy.flac", samples, rate)
    with pytest.raises(DataError, match="data.test: the audio of 1 of its utterances is also in data.train"):
        prepare(recipe, RunDir(tmp_path / "run"))
    soundfile.write(tmp_path / "copy.flac", samples[::-1], rate)
    prepare(recipe, RunDir(tmp_path / "run"))


def test_one_error_lists_all_leaks(corpora: Corpora, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    copies = [
        {"audio_filepath": str(tmp_path / split / f"{name}.wav"), "text": "other words"}
        for split, name in (("test", "a"), ("canary", "b"))
    ]
    with pytest.raises(
        DataError, match="data.test: the audio of 1 .* in data.train; data.canary: the audio of 1 .* in data.train: the"
    ):
        prepare(corpora(train=copies), RunDir(tmp_path / "run"))
    assert "test-a" in caplog.text and "canary-b" in caplog.text


def test_a_sentence_in_another_recording_is_a_warning(corpora: Corpora, tmp_path: Path) -> None:
    texts = ("TEST, number a!", "Canary number b")
    rows = [{"audio_filepath": str(tmp_path / "train" / "a.wav"), "text": text} for text in texts]
    run = RunDir(tmp_path / "run")
    prepare(corpora(train=rows), run)
    warnings = {split: read_json(run.problems)[split]["warnings"] for split in ("test", "canary")}
    assert [(problem["kind"], problem["id"]) for split in warnings.values() for problem in split] == [
        ("short sentence also in train", "test-a"),
        ("short sentence also in train", "canary-b"),
    ]


def test_audio_of_valid_in_test_is_a_warning(corpora: Corpora, tmp_path: Path) -> None:
    copied = {"id": "copied", "audio_filepath": str(tmp_path / "valid" / "a.wav"), "text": "other words"}
    run = RunDir(tmp_path / "run")
    prepare(corpora(test=[copied]), run)
    warnings = read_json(run.problems)["test"]["warnings"]
    assert [(problem["id"], problem["kind"].endswith("audio also in valid")) for problem in warnings] == [
        ("copied", True)
    ]


def test_the_rules_apply_to_all_splits(corpora: Corpora, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rows = {
        split: [{"audio_filepath": str(tmp_path / split / "a.wav"), "text": f"In {split} <unk> 5", "keywords": "<b>"}]
        for split in SPLITS
    }
    recipe, run = corpora(**rows), RunDir(tmp_path / "run")
    prepare(recipe, run)
    assert [read_manifest(run.manifest(split))[-1].text for split in SPLITS] == [
        f"In {name} <unk> 5" for name in SPLITS
    ]
    text = TextSection(tags="strip", numbers="words", case="lower")
    data = recipe.data.model_copy(update={"text": text})
    prepare(recipe.model_copy(update={"data": data}), run)
    changed = [read_manifest(run.manifest(split))[-1] for split in SPLITS]
    assert [item.text for item in changed] == [f"in {name} five" for name in SPLITS]
    assert all(item.keywords == ("<b>",) for item in changed)
    style = read_style(run.style)
    assert style is not None and set(style.splits) == set(SPLITS)
    assert [(use.rule, use.rows) for use in style.splits["canary"].rules] == [
        ("tags: strip", 1),
        ("numbers: words", 1),
        ("case: lower", 1),
    ]
    assert "replay: data.text.tags: strip changed 1 transcript\n" in caplog.text
    assert not any("transcript cleaned" in str(split) for split in read_json(run.problems).values())


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("[noise]", "no words in transcript"),
        ("(laughs) %HESITATION", "no words in transcript"),
        ("a <|AUDIO|> b", "special token in transcript"),
        ("a < | end_of_text | > b", "special token in transcript"),
        ("a <|unused_12|>", "special token in transcript"),
    ],
)
def test_rows_without_words_and_control_tokens_are_dropped(
    corpora: Corpora, tmp_path: Path, text: str, kind: str
) -> None:
    run = RunDir(tmp_path / "run")
    recipe = corpora(train=[{"id": "x", "audio_filepath": str(tmp_path / "train" / "a.wav"), "text": text}])
    data = recipe.data.model_copy(update={"text": TextSection(tags="strip"), "max_bad_fraction": 0.5})
    prepare(recipe.model_copy(update={"data": data}), run)
    assert [problem["kind"] for problem in read_json(run.problems)["train"]["dropped"]] == [kind]


def test_files_with_several_channels_are_named(
    corpora: Corpora, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sides = np.random.default_rng(3).uniform(-0.3, 0.3, (32_000, 2))
    soundfile.write(tmp_path / "call.wav", sides, 16_000)
    call = {"audio_filepath": str(tmp_path / "call.wav"), "text": "hello"}
    recipe = corpora(test=[{"id": "call", **call}])
    line = f"1 of 3 audio files have several channels, which are averaged, such as {tmp_path / 'call.wav'} (2)"
    assert [text for text in preview_corpora(recipe) if line in text]
    run = RunDir(tmp_path / "run")
    prepare(recipe, run)
    kinds = {problem["id"]: problem["kind"] for problem in read_json(run.problems)["test"]["warnings"]}
    assert kinds["call"] == "several channels"
    chosen = corpora(test=[{"id": "call", "channel": "right", **call}])
    assert not [text for text in preview_corpora(chosen) if "channels" in text]
    grouped = chosen.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"groups": ["channel"]})})
    with caplog.at_level(logging.WARNING):
        prepare(grouped, RunDir(tmp_path / "grouped"))
    assert not [text for text in [*preview_corpora(grouped), *caplog.messages] if "evaluate.groups" in text]


def test_settings_without_effect_are_named(corpora: Corpora, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "terms.txt").write_text("zyx\nqed\n")
    row = {"audio_filepath": str(tmp_path / "test" / "a.wav"), "text": "own words", "accent": "x", "keywords": "own"}
    recipe = corpora(test=[{"id": "own", **row}])
    data = recipe.data.model_copy(update={"terms": str(tmp_path / "terms.txt")})
    evaluate = recipe.evaluate.model_copy(update={"groups": ["accnt", "accent", "speaker", "duration"]})
    recipe = recipe.model_copy(update={"data": data, "evaluate": evaluate})
    expected = [
        "evaluate.groups: no row of data.test has a column 'accnt'. Its columns: accent; did you mean 'accent'?",
        "evaluate.groups: no row of data.test has a value in column 'speaker'",
        f"data.terms: no term of {tmp_path / 'terms.txt'} occurs in data.test, so their recall cannot be measured",
        "data.test: the keywords of 1 of 3 rows, such as own, are in their transcripts: the prompt contains the "
        "answer. Use the column `terms` for terms that are only scored",
    ]
    assert list(preview_corpora(recipe))[-4:] == expected
    prepare(recipe, RunDir(tmp_path / "run"))
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == expected
    (tmp_path / "terms.txt").write_text("zyx\nown words\n")
    assert "data.terms: 1 of 2 terms do not occur in data.test, such as 'zyx'; their recall is not measured" in [
        *preview_corpora(recipe)
    ]


def test_ids_are_unique_over_train_and_replay(
    corpora: Corpora, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The id seeds the augmentation, and two corpora can have the same ids."""
    caplog.set_level(logging.INFO)
    run = RunDir(tmp_path / "run")
    same = [
        {"id": name, "audio_filepath": str(tmp_path / "replay" / "a.wav"), "text": "some other words"}
        for name in ("train-b", "a", "train-a")
    ]
    prepare(corpora(replay=same), run)
    train, replay = read_manifest(run.manifest("train")), read_manifest(run.manifest("replay"))
    assert [item.id for item in train] == ["train-a", "train-b"]
    assert [item.id for item in replay] == ["replay-a", "replay-b", "a-2", "a", "a-3"]
    warnings = read_json(run.problems)["replay"]["warnings"]
    assert [(problem["id"], problem["detail"]) for problem in warnings if problem["kind"] == "id changed"] == [
        ("a-2", "data.train has the id 'train-b' too"),
        ("a-3", "data.train has the id 'train-a' too"),
    ]
    assert "id changed: 2" in caplog.text
