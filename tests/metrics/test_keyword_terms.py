"""Words that can be keywords, and lists of them."""

from pathlib import Path

import pytest

from finetune.core.config import KeywordsSection, ModelSection, Recipe
from finetune.core.data_config import DataSection
from finetune.core.errors import DataError
from finetune.metrics.keyword_terms import keyword_problem, read_keywords, sampling_inputs, words_of
from finetune.pipeline import settings_of_training, stage_inputs


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("New York", ""),
        ("C++", ""),
        ("<b> or a|b", ""),
        ("Paris, Texas", "a comma"),
        ("1,000", "a comma"),
        ("a\tb", "the control character '\\t'"),
        ("a\u2028b", "the control character"),
        ("say <|audio|>", "contains <|audio|>, which is a command"),
        ("< | end_of_text | >", "which is a command"),
        ("x[INST]", "contains [INST]"),
    ],
)
def test_why_a_word_cannot_be_a_keyword(word: str, problem: str) -> None:
    found = keyword_problem(word, ["[INST]"])
    assert (problem in found) if problem else found == ""


def test_words_of_a_text() -> None:
    assert words_of("\u201cTake\u201d C++, don't (now)! -- 1,000 \u00fcber...") == [
        "Take",
        "C",
        "don't",
        "now",
        "1,000",
        "\u00fcber",
    ]
    assert words_of("\u092f\u0939 \u0939\u093f\u0928\u094d\u0926\u0940 \u0939\u0948\u0964") == [
        "\u092f\u0939",
        "\u0939\u093f\u0928\u094d\u0926\u0940",
        "\u0939\u0948",
    ]
    assert words_of("\u6771\u4eac\u3067\u30b3\u30fc\u30d2\u30fc\u3092 ok") == [
        "\u6771\u4eac",
        "\u30b3\u30fc\u30d2\u30fc",
        "ok",
    ]
    assert words_of("x" * 41) == words_of("") == []


def test_a_list_names_all_its_bad_lines(tmp_path: Path) -> None:
    path = tmp_path / "terms.txt"
    path.write_text("\ufeffstent\r\n\r\n  two  words \n", encoding="utf-8")
    assert read_keywords(path) == ["stent", "two words"]
    path.write_text("ok\n\n" + "a, b\n" * 7, encoding="utf-8")
    with pytest.raises(DataError) as raised:
        read_keywords(path)
    lines = str(raised.value).splitlines()
    assert [line.partition(": ")[0] for line in lines[:5]] == [f"{path}:{number}" for number in range(3, 8)]
    assert lines[5:] == ["... and 2 more lines"]


def test_what_lists_depend_on(tmp_path: Path) -> None:
    path = tmp_path / "terms.txt"
    path.write_text("stent")
    data = DataSection(train=["a"], valid=["a"], test=["a"], terms=str(path))
    recipe = Recipe(name="k", model=ModelSection(base="b"), data=data)
    assert sampling_inputs(recipe) == {}
    on = recipe.model_copy(update={"keywords": KeywordsSection(true_terms=0.5)})
    assert "keywords" not in settings_of_training(recipe) and "keywords" in settings_of_training(on)
    before, hashes = sampling_inputs(on), stage_inputs(on, {})
    assert (
        stage_inputs(recipe, {})["prepare"] == hashes["prepare"]
        and stage_inputs(recipe, {})["train"] != hashes["train"]
    )
    path.write_text("stents")
    assert sampling_inputs(on) != before and stage_inputs(on, {})["train"] != hashes["train"]
    assert sampling_inputs(on.model_copy(update={"keywords": KeywordsSection(distractors=1)})) != sampling_inputs(on)
