"""The settings of a corpus in a recipe: the columns that they fill, samples, weights, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from finetune.core.config import Recipe
from finetune.core.data_config import CorpusEntry, DataSection
from finetune.core.errors import DataError
from finetune.core.run_dir import RunDir
from finetune.data.corpus_entries import preview_entry, read_entry, split_notes
from finetune.data.corpus_preview import preview_corpora
from finetune.data.manifest import read_manifest
from finetune.data.prepare import prepare
from finetune.data.row_prompt import instruction_of
from finetune.planning.split_facts import open_split, read_facts

RATE = 16_000


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., Path]:
    """Writes a manifest with one clip of noise for each row."""

    def write(name: str, *rows: dict[str, Any]) -> Path:
        rng = np.random.default_rng(len(name))
        lines = []
        for number, row in enumerate(rows):
            audio = tmp_path / f"{name}-{number}.wav"
            soundfile.write(audio, rng.uniform(-0.1, 0.1, RATE).astype(np.float32), RATE)
            lines.append(json.dumps({"audio_filepath": str(audio), "text": f"{name} {number}", **row}))
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(lines))
        return path

    return write


def entry(path: Path, **settings: Any) -> CorpusEntry:
    return CorpusEntry(path=str(path), **settings)


def values(entry: CorpusEntry, tmp_path: Path, name: str) -> list[object]:
    return [row.values.get(name) for row in read_entry(entry, tmp_path)]


def test_settings_fill_what_a_row_does_not_state(corpus: Callable[..., Path], tmp_path: Path) -> None:
    path = corpus("a", {}, {"language": "fr", "domain": "own"}, {"language": ""})
    chosen = entry(path, language="es", tags={"domain": "calls"})
    assert values(chosen, tmp_path, "language") == ["es", "fr", "es"]
    assert values(chosen, tmp_path, "domain") == ["calls", "own", "calls"]
    assert values(entry(path), tmp_path, "language") == [None, "fr", ""]


def test_a_sample_of_rows_is_the_same_each_time_and_in_order(corpus: Callable[..., Path], tmp_path: Path) -> None:
    path = corpus("a", *({} for _ in range(40)))
    some = values(entry(path, max_clips=7), tmp_path, "text")
    assert len(some) == 7 and some == values(entry(path, max_clips=7), tmp_path, "text")
    assert (
        some == sorted(some, key=lambda text: int(str(text).split()[1]))
        and some != values(entry(path), tmp_path, "text")[:7]
    )
    assert len(values(entry(path, max_clips=400), tmp_path, "text")) == 40


def test_a_sample_does_not_depend_on_where_the_corpus_is(corpus: Callable[..., Path], tmp_path: Path) -> None:
    path = corpus("a", *({} for _ in range(40)))
    some = values(entry(path, max_clips=7), tmp_path, "text")
    (tmp_path / "moved").mkdir()
    moved = path.rename(tmp_path / "moved" / "b.jsonl")
    dotted = CorpusEntry(path=f"{tmp_path}/./moved/b.jsonl", max_clips=7)
    assert values(entry(moved, max_clips=7), tmp_path, "text") == values(dotted, tmp_path, "text") == some


def test_the_weight_of_a_row_comes_first(corpus: Callable[..., Path], tmp_path: Path) -> None:
    path = corpus("a", {}, {"sampling_weight": "3"}, {"sampling_weight": ""}, {"sampling_weight": None})
    weights = [row.sampling_weight for row in read_manifest(prepared(tmp_path, entry(path, weight=2)))]
    assert weights == [2, 3, 2, 2]
    weights = [row.sampling_weight for row in read_manifest(prepared(tmp_path, entry(path)))]
    assert weights == [1, 3, 1, 1]  # an empty cell states no weight


@pytest.mark.parametrize("weight", [0, -2, 1e9, float("nan"), "often", True])
def test_the_plan_counts_a_clip_with_an_invalid_weight_once(corpus: Callable[..., Path], weight: object) -> None:
    data = DataSection(train=[entry(corpus("a", {}, {"sampling_weight": weight}))], test=[entry(Path("-"))])
    opened = open_split(data, "train")
    assert opened is not None
    facts = read_facts(data, "train", opened)
    assert [*facts.weights] == [1, 1] and [clip.sampling_weight for clip in facts.clips] == [1, 1]


def test_the_plan_counts_no_person_for_speakers_that_are_not_known(corpus: Callable[..., Path]) -> None:
    path = corpus("a", {"speaker": "N/A"}, {"speaker": "unknown"}, {"speaker": "Ann"}, {})
    data = DataSection(train=[entry(path)], test=[entry(Path("-"))])
    opened = open_split(data, "train")
    assert opened is not None
    facts = read_facts(data, "train", opened)
    assert (dict(facts.speakers), facts.unknown_speakers) == ({"Ann": 1}, 3)


def test_the_text_can_come_from_another_column(corpus: Callable[..., Path], tmp_path: Path) -> None:
    path = corpus("a", {"translation": "good morning"}, {"text": "two"})
    rows = list(read_entry(entry(path, text_column="translation"), tmp_path))
    assert rows[0].values["text"] == "good morning" and rows[0].fault is None
    assert rows[1].fault is not None and "no text in column 'translation'" in rows[1].fault.detail
    with pytest.raises(DataError, match="text_column: no column 'translated'; the columns are audio_filepath, text"):
        read_entry(entry(path, text_column="translated"), tmp_path)
    assert preview_entry(entry(Path("hf:name:train"), language="es")) is None


def test_the_text_of_a_translation_in_a_manifest_of_canary_is_its_answer(
    corpus: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    german = {"text": "this is one", "answer": "das ist eins", "source_lang": "en", "target_lang": "de"}
    path = corpus(
        "canary",
        {**german, "taskname": "ast"},
        {**german, "target_lang": "en", "taskname": "asr"},
        {**german, "answer": "na", "text": "das ist zwei"},
        {"answer": "no translation"},
    )
    with caplog.at_level("INFO"):
        rows = list(read_entry(entry(path), tmp_path))
    assert [row.values["text"] for row in rows] == ["das ist eins", "this is one", "das ist zwei", "canary 3"]
    assert [row.values.get("source_text") for row in rows] == ["this is one", None, None, None]
    assert "the text of a translation is its 'answer'" in caplog.text
    assert values(entry(path, text_column="answer"), tmp_path, "text")[0] == "das ist eins"


def test_the_text_column_may_be_the_only_one_and_have_a_usual_name(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE, np.float32), RATE)
    path = tmp_path / "a.csv"
    for name in ("translation", "sentence"):
        path.write_text(f"audio_filepath,{name}\na.wav,good morning\n")
        chosen = entry(path, text_column=name)
        assert values(chosen, tmp_path, "text") == ["good morning"]
        preview = preview_entry(chosen)
        assert preview is not None and [row.values["text"] for row in preview] == ["good morning"]
    assert preview[0].fault is None


def test_a_list_in_the_text_column_is_named(corpus: Callable[..., Path], tmp_path: Path) -> None:
    (row,) = read_entry(entry(corpus("a", {"words": ["a", "b"]}), text_column="words"), tmp_path)
    assert row.fault is not None and row.fault.detail == "the row has no text in column 'words', but ['a', 'b']"


def test_a_tag_cannot_replace_a_key_of_the_manifest(corpus: Callable[..., Path], tmp_path: Path) -> None:
    path = corpus("a", {})
    assert values(entry(path, tags={"speaker": "anna"}), tmp_path, "speaker") == ["anna"]
    with pytest.raises(DataError, match="tags: 'id' is not a name for a tag"):
        read_entry(entry(path, tags={"id": "x"}), tmp_path)


def prepared(tmp_path: Path, *entries: CorpusEntry, **data: Any) -> Path:
    recipe = Recipe(name="x", model={"base": "-"}, data={"test": list(entries), **data})  # type: ignore[arg-type]
    prepare(recipe, run := RunDir(tmp_path / "run"))
    return run.manifest("test")


def test_prepare_writes_what_the_model_is_asked_for(corpus: Callable[..., Path], tmp_path: Path) -> None:
    plain = corpus("plain", {"task": "ASR", "source_lang": "en", "target_lang": "en"}, {"instruction": "write it"})
    spanish = corpus("es", {"target_lang": "en"}, {"task": "ast"}, {"task": "transcribe"}, {"text_style": "Punctuated"})
    entries = entry(plain), entry(spanish, language="es", target_language="en")
    rows = read_manifest(prepared(tmp_path, *entries))
    assert [(row.task, row.target_language) for row in rows] == [
        ("", ""), ("", ""), ("translate", "en"), ("translate", "en"), ("", ""), ("translate", "en"),
    ]  # fmt: skip
    translate = "translate the speech to English"
    assert [instruction_of(row, "default") for row in rows] == [
        "default",
        "write it",
        f"{translate}.",
        f"{translate}.",
        "default",
        f"{translate} with proper punctuation and capitalization.",
    ]
    assert [row.text_language for row in rows] == ["en", "", "en", "en", "es", "en"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"task": "translate"}, "task translate needs a target_language"),
        ({"task": "summarize"}, "task 'summarize' is not transcribe or translate; rename the column"),
        ({"task": "st", "language": "de", "target_language": "de-AT"}, "task translate: target_language"),
        ({"target_language": "nl"}, "no prompt is known for target_language 'nl'"),
        ({"text_style": "fancy"}, "text_style 'fancy' is not raw or punctuated"),
        ({"sampling_weight": 0}, "sampling_weight must be a number above 0, at most 1000, not 0"),
        ({"sampling_weight": -1}, "sampling_weight must be a number above 0, at most 1000, not -1"),
        ({"sampling_weight": 1e6}, "sampling_weight must be a number above 0, at most 1000, not 1000000.0"),
        ({"instruction": "say <|audio|>"}, "<|audio|> is a command"),
    ],
)
def test_a_row_without_a_valid_task_is_named(
    corpus: Callable[..., Path], tmp_path: Path, row: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = corpus("a", {}, row)
    caplog.set_level("INFO")
    with pytest.raises(DataError, match=r"data\.test: 1 of 2 rows are unusable"):
        prepared(tmp_path, entry(path))
    assert message in caplog.text and f"{path}:2" in caplog.text
    if "command" not in message:
        recipe = Recipe(name="x", model={"base": "-"}, data={"test": [str(path)]})  # type: ignore[arg-type]
        with pytest.raises(DataError) as error:
            list(preview_corpora(recipe))
        assert f"1 of 2 rows cannot be used, such as {path}:2: " in str(error.value) and message in str(error.value)


def test_an_instruction_makes_any_target_language_possible(corpus: Callable[..., Path], tmp_path: Path) -> None:
    path = corpus("a", {"target_language": "nl", "instruction": "write it in Dutch"})
    (row,) = read_manifest(prepared(tmp_path, entry(path)))
    assert instruction_of(row, "default") == "write it in Dutch" and row.is_translation


def test_a_corpus_can_be_used_for_two_tasks(
    corpus: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = corpus("a", {"id": "one", "translation": "eins"}, {"id": "two", "translation": "zwei"})
    again = entry(path.parent / "." / path.name, task="translate", target_language="de", text_column="translation")
    caplog.set_level("INFO")
    rows = read_manifest(prepared(tmp_path, entry(path), again))
    assert [(row.id, row.task, row.text) for row in rows] == [
        ("one", "", "a 0"), ("two", "", "a 1"), ("one#2", "translate", "eins"), ("two#2", "translate", "zwei"),
    ]  # fmt: skip
    assert "duplicate audio" not in caplog.text
    opened = open_split(DataSection(test=[entry(path), again]), "test")
    assert opened is not None and [row.values["id"] for row in opened[1]] == ["one#2", "two#2"]
    prepared(tmp_path, entry(path), entry(path))  # the same task twice
    assert "duplicate audio" in caplog.text


@pytest.mark.parametrize(
    ("stated", "named"),
    [
        (["train", "dev", "Test"], "test, train and valid"),
        (["test", "val", "dev"], "test and valid"),
        (["train", "train", "training"], ""),
        (["train", "a", ""], ""),
    ],
)
def test_a_column_of_splits_that_a_recipe_does_not_use_is_named(
    stated: list[str], named: str, corpus: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = corpus("a", *({"Split": name} for name in stated))
    prepared(tmp_path, entry(path))
    recipe = Recipe(name="x", model={"base": "-"}, data={"test": [str(path)]})  # type: ignore[arg-type]
    checked = "\n".join(preview_corpora(recipe))
    for text in (caplog.text, checked):
        assert (f"column 'Split' states {named}, but recipes do not use it" in text) == bool(named)
        assert ("finetune init" in text) == (bool(named) and "train" in stated)


def test_files_of_a_pattern_that_state_several_splits_are_named(corpus: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("train", "dev"):
        corpus(name, {"subset": name})
    notes = [*split_notes(read_entry(entry(tmp_path / "{train,dev}.jsonl"), tmp_path))]
    assert len(notes) == 1 and "states train and valid" in notes[0]
