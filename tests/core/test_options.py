"""Languages, keywords and decoding options are checked before anything is loaded."""

import subprocess
import sys
from typing import Any

import pytest

from finetune.core.config import Recipe
from finetune.core.errors import RecipeError
from finetune.core.keyword_list import columns_problem, parse_keywords
from finetune.core.languages import SPEECH_LANGUAGES, TRANSLATION_TARGETS, language_code
from finetune.core.options import FORMATS, INSTRUCTION, DecodingOptions, TranscribeOptions, choices, override


@pytest.mark.parametrize(
    ("name", "code"), [("fr", "fr"), ("FR-ca", "fr"), ("pt_BR", "pt"), ("Japanese", "ja"), (None, ""), ("", "")]
)
def test_languages_are_known_by_code_and_name(name: str | None, code: str) -> None:
    assert language_code(name, SPEECH_LANGUAGES) == code
    assert TranscribeOptions(language=name or "").language == code


@pytest.mark.parametrize(
    ("language", "translate_to", "message"),
    [
        ("jp", "", r"'jp' is not one of en \(English\), .*, ja \(Japanese\)$"),
        ("it", "", "'it' is not one of"),  # a translation target, not a speech language
        ("", "klingon", "'klingon' is not one of"),
        ("en", "english", "translate_to: the speech is English already"),
    ],
)
def test_other_languages_are_refused(language: str, translate_to: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        TranscribeOptions(language=language, translate_to=translate_to)


def test_the_prompt_of_a_translation_is_the_model_cards() -> None:
    assert "it" in TRANSLATION_TARGETS
    assert TranscribeOptions(language="en", translate_to="zh").prompt() == "translate the speech to Mandarin."
    assert TranscribeOptions(language="en").prompt() == INSTRUCTION
    assert TranscribeOptions("write it down").prompt() == "write it down"


def test_keywords_are_trimmed_and_each_is_kept_once() -> None:
    assert parse_keywords([" stent", "", "New  York", "stent ", " ", "Stent"]) == ("stent", "New  York", "Stent")
    assert parse_keywords(["nai\u0308ve", "na\u00efve", "\u200f\u05e9\u05dc", "\u200b"]) == (
        "na\u00efve",
        "\u05e9\u05dc",
    )
    assert parse_keywords("stent, New York,") == ("stent", "New York"), "not the letters of the string"
    assert len(TranscribeOptions(keywords=tuple(f"word{n}" for n in range(1000))).keywords) == 1000


def test_commas_and_semicolons_separate_the_keywords_of_a_text() -> None:
    assert parse_keywords("losartan; metoprolol,New York;") == ("losartan", "metoprolol", "New York")


def test_weights_of_keywords_are_refused() -> None:
    with pytest.raises(RecipeError, match="a dict of weights is not supported; give a list of the keywords"):
        parse_keywords({"stent": 2.0, "New York": 1.0})


def test_a_line_of_a_table_is_not_a_term() -> None:
    assert columns_problem("Losartan;A") == (
        "'Losartan;A' has a semicolon, as a table with columns; write one term per line and no other column"
    )
    assert "has a tab" in columns_problem("Losartan\tA") and len(columns_problem("a;" * 999)) < 200
    assert columns_problem("Losartan, 5 mg \t\n") == ""


@pytest.mark.parametrize("word", ["a,b", "a;b", "a\nb", "a\tb", "a\x00", "a\u2028b", "\ud800"])
def test_a_keyword_with_a_comma_or_control_character_is_refused(word: str) -> None:
    with pytest.raises(RecipeError, match="give each keyword separately, on one line"):
        parse_keywords(["good", word])


@pytest.mark.parametrize(
    "wrong",
    [
        {"vad": "ears"},
        {"decoder": "psychic"},
        {"batch_seconds": 0},
        {"max_new_tokens": -1},
        {"batch_seconds": float("nan")},
        {"min_probability": 1.5},
        {"max_window": 31.0},
        {"batch_seconds": "many"},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match=f"^{next(iter(wrong))}: "):
        override(TranscribeOptions(), **wrong)


def test_override_sets_fields_of_both_levels_and_skips_none() -> None:
    options = override(TranscribeOptions(), vad="silero", decoder="greedy", batch_seconds=None, language="fr")
    assert (options.vad, options.language) == ("silero", "fr")
    assert options.decoding == DecodingOptions("greedy", max_new_tokens=400)
    other = override(options, decoding=DecodingOptions(max_new_tokens=7), decoder="relaxed")
    assert other.decoding == DecodingOptions("relaxed", max_new_tokens=7)
    with pytest.raises(RecipeError, match="unknown option 'beams'"):
        override(options, beams=4)


OTHER: dict[str, object] = {  # by field, a value that is not the default
    "instruction": "write it down",
    "vad": "silero",
    "max_window": 9.0,
    "channel": "1",
    "no_speech": 0.5,
    "language": "fr",
    "translate_to": "de",
    "keywords": ("stent",),
    "decoder": "relaxed",
    "max_entropy": 0.1,
    "min_probability": 0.9,
    "max_new_tokens": 7,
    "batch_seconds": 3.0,
    "keyword_method": "ctc",
    "terms": ("aorta",),
    "num_beams": 3,
    "ctc_weight": 0.5,
    "cuda_graphs": True,
}


def flat(options: TranscribeOptions) -> dict[str, object]:
    return {name: value for name, value in (vars(options) | vars(options.decoding)).items() if name != "decoding"}


def test_override_changes_one_field_and_keeps_the_others() -> None:
    default, changed = TranscribeOptions(), override(TranscribeOptions(), **OTHER)
    assert flat(changed) == OTHER and not set(OTHER.items()) & set(flat(default).items())
    for name, value in OTHER.items():
        assert flat(override(default, **{name: value})) == {**flat(default), name: value}
        assert flat(override(changed, **{name: flat(default)[name]})) == {**OTHER, name: flat(default)[name]}


@pytest.mark.parametrize("decoder", ["speculative", "relaxed"])
def test_japanese_and_translations_are_decoded_greedily(decoder: str) -> None:
    """Everything else about the decoding stays."""
    options = override(TranscribeOptions(), decoder=decoder, max_new_tokens=7, batch_seconds=3.0)
    greedy = DecodingOptions("greedy", max_new_tokens=7, batch_seconds=3.0)
    for values in ({"language": "ja"}, {"translate_to": "fr"}, {"language": "ja", "translate_to": "en"}):
        assert override(options, **values).effective_decoding() == greedy, values
    for language in ("", "en", "fr"):
        assert override(options, language=language).effective_decoding() == options.decoding, language


def test_beam_search_is_for_all_texts() -> None:
    for values in ({"translate_to": "fr"}, {"language": "ja"}, {"language": "fr"}):
        assert override(TranscribeOptions(), decoder="beam", **values).effective_decoding().decoder == "beam"


def test_a_recipe_checks_the_same_ranges() -> None:
    plain = {"name": "x", "model": {"base": "x"}, "data": {side: ["x"] for side in ("train", "valid", "test")}}
    recipe = Recipe.model_validate({**plain, "decode": {"batch_seconds": "9"}})
    assert recipe.decode == DecodingOptions(batch_seconds=9.0)
    for name, value in (
        ("batch_seconds", 0),
        ("min_probability", 2),
        ("max_new_tokens", 0),
        ("decoder", "x"),
        ("y", 1),
    ):
        with pytest.raises(ValueError, match=f"decode.{name}"):
            Recipe.model_validate({**plain, "decode": {name: value}})


def test_choices_are_those_of_the_types() -> None:
    assert choices(DecodingOptions, "decoder") == ("greedy", "speculative", "relaxed", "beam")
    assert choices(TranscribeOptions, "vad") == ("level", "silero") and FORMATS[0] == "text"


def test_options_need_neither_torch_nor_pydantic() -> None:
    check = "import sys, finetune.cli.transcribe; print({'torch', 'transformers', 'pydantic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_new_tokens": 2.5}, "max_new_tokens: must be an integer, got 2.5"),
        ({"max_new_tokens": True}, "max_new_tokens: must be an integer, got True"),
        ({"max_window": "3"}, "max_window: must be a number, got '3'"),
        ({"instruction": 5}, "instruction: must be a string, got 5"),
        ({"language": 5}, "language: must be a string, got 5"),
        ({"keywords": 5}, "keywords: must be strings, got 5"),
        ({"keywords": [None]}, "keywords: must be strings, got None"),
        ({"terms": 5}, "terms: must be strings, got 5"),
        ({"decoding": {"decoder": "greedy"}}, "decoding: must be DecodingOptions, got {'decoder': 'greedy'}"),
    ],
)
def test_a_value_of_a_wrong_type_is_an_error(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        override(TranscribeOptions(), **values)
    assert str(error.value) == message
