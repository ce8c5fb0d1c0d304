"""The prompts of each version of the model, and how the version of a folder is found."""

import pytest

from finetune.core.prompts import INSTRUCTION, PROFILES, profile_of, target_code


def test_a_transcription_uses_the_instruction_of_the_recipe_unless_the_row_states_a_style() -> None:
    profile = PROFILES["4.0"]
    assert profile.transcribe() == "can you transcribe the speech into a written format?"
    assert profile.transcribe(default="write it") == "write it"
    assert profile.transcribe("raw", "write it") == INSTRUCTION
    assert profile.transcribe("punctuated", "write it") == (
        "transcribe the speech with proper punctuation and capitalization."
    )


def test_a_translation_names_the_target_language() -> None:
    assert PROFILES["4.1"].translate("fr") == "translate the speech to French."
    assert PROFILES["4.1"].translate("zh", "punctuated") == (
        "translate the speech to Mandarin with proper punctuation and capitalization."
    )


@pytest.mark.parametrize(
    ("version", "expected"),
    [("3.3", INSTRUCTION), ("4.0", INSTRUCTION), ("4.1", "transcribe the speech to text."),
     ("4.1-plus", "transcribe the speech to text."), ("5.0", "transcribe the speech to text.")],
)  # fmt: skip
def test_keywords_change_the_instruction_of_the_card_only(version: str, expected: str) -> None:
    assert PROFILES[version].with_keywords(INSTRUCTION) == expected
    assert PROFILES[version].with_keywords("translate the speech to French.") == "translate the speech to French."


def test_only_5_0_has_a_hint_about_the_language() -> None:
    hint = "The speech is in Japanese. Transcribe it exactly; do not translate. "
    assert PROFILES["5.0"].transcribe(language="ja") == hint + INSTRUCTION
    assert PROFILES["5.0"].with_keywords(hint + INSTRUCTION) == hint + "transcribe the speech to text."
    assert PROFILES["5.0"].transcribe() == PROFILES["4.0"].transcribe(language="ja") == INSTRUCTION


@pytest.mark.parametrize(
    ("source", "config", "bpe_head", "version"),
    [
        ("ibm-granite/granite-4.0-1b-speech", {}, False, "4.0"),
        ("ibm-granite/granite-speech-4.1-2b", {}, False, "4.1"),
        ("ibm-granite/granite-speech-3.3-8b", {}, False, "3.3"),
        ("/models/granite-speech-5.0-2b/", {}, False, "5.0"),
        ("/models/granite-speech-14.0", {}, False, "4.0"),  # another number
        ("runs/x/export", {"has_lora_adapter": True}, False, "3.3"),
        ("runs/x/export", {"text_config": {"rope_parameters": {"rope_type": "yarn"}}}, True, "5.0"),
        ("runs/x/export", {"text_config": {"rope_scaling": {"type": "yarn"}}}, False, "5.0"),
        ("runs/x/export", {"encoder_config": {"output_dim": 256}, "has_lora_adapter": False}, False, "3.3"),
        ("ibm-granite/granite-speech-4.1-2b-plus", {}, False, "4.1-plus"),
        ("runs/x/export", {"model_type": "granite_speech_plus"}, False, "4.1-plus"),
        (
            "models/granite-speech-4.1-2b",
            {"model_type": "granite_speech_plus", "text_config": {"rope_parameters": {"rope_type": "yarn"}}},
            True,
            "4.1-plus",
        ),
        ("models/granite-speech-4.1-test", {"encoder_config": {"output_dim": 256}}, False, "3.3"),
        ("models/granite-4.0-test", {"text_config": {"rope_scaling": {"type": "yarn"}}}, True, "5.0"),
        ("models/granite-speech-4.0-test", {}, True, "4.0"),
        ("runs/x/export", {"encoder_config": [256]}, False, "4.0"),
        ("runs/x/export", {"text_config": {"rope_scaling": None}}, True, "4.1"),
        ("runs/x/export", {"text_config": "text"}, False, "4.0"),
        ("runs/x/export", {"text_config": {"rope_scaling": "yarn", "rope_parameters": [1]}}, False, "4.0"),
        ("runs/x/export", {}, False, "4.0"),
    ],
)
def test_the_version_comes_from_the_name_else_from_the_files(
    source: str, config: dict[str, object], bpe_head: bool, version: str
) -> None:
    assert profile_of(source, config, bpe_head).version == version


def test_target_languages_have_codes() -> None:
    assert [target_code(name) for name in ("French", "fr-CA", "jpn", "nl", "")] == ["fr", "fr", "ja", "", ""]
