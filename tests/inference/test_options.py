"""Languages, keywords and settings are checked before anything is loaded."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from finetune.core.config import DecodeSection, ModelSection, TranscribeSection
from finetune.core.errors import ModelError, RecipeError
from finetune.inference.options import DECODERS, FORMATS, VADS, Settings, Wish
from finetune.inference.settings import settings_from, settings_of


@pytest.mark.parametrize(
    ("said", "code"), [("fr", "fr"), ("FR-ca", "fr"), ("pt_BR", "pt"), ("Japanese", "ja"), (None, ""), ("", "")]
)
def test_languages_are_known_by_code_and_name(said: str | None, code: str) -> None:
    assert Wish.of(said, None, []).heard == code


@pytest.mark.parametrize(
    ("heard", "written", "message"),
    [
        ("jp", None, r"'jp' is not one of en \(English\), .*, ja \(Japanese\)$"),
        ("it", None, "'it' is not one of"),  # it is written, not heard
        (None, "klingon", "'klingon' is not one of"),
        ("en", "english", "speech in English needs no translation"),
    ],
)
def test_other_languages_are_refused(heard: str | None, written: str | None, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Wish.of(heard, written, [])


def test_the_instruction_to_translate_is_the_model_cards() -> None:
    assert Wish.of("en", "zh", []).instruction == "translate the speech to Mandarin."
    assert Wish.of("en", None, []).instruction == ""


def test_keywords_are_trimmed_and_each_stands_once() -> None:
    assert Wish.of(None, None, [" stent", "", "New  York", "stent ", " ", "Stent"]).keywords == (
        "stent",
        "New  York",
        "Stent",
    )
    assert Wish.of(None, None, "stent, New York,").keywords == ("stent", "New York"), "no letters of a string"
    assert len(Wish.of(None, None, [f"word{n}" for n in range(1000)]).keywords) == 1000


@pytest.mark.parametrize("word", ["a,b", "a\nb", "a\tb", "a\x00", "a\u2028b", "\ud800"])
def test_keywords_that_would_be_two_or_none_are_refused(word: str) -> None:
    with pytest.raises(RecipeError, match="give each keyword for itself, on one line"):
        Wish.of(None, None, ["good", word])


def test_every_choice_is_that_of_the_configuration() -> None:
    def choices(section: type, name: str) -> tuple[str, ...]:
        return get_args(section.model_fields[name].annotation)  # type: ignore[attr-defined]

    assert choices(TranscribeSection, "format") == FORMATS
    assert choices(TranscribeSection, "vad") == VADS
    assert choices(DecodeSection, "decoder") == DECODERS
    settings = settings_from(ModelSection(), DecodeSection())
    assert settings == settings_of("nowhere") and settings.max_window <= 30
    assert settings.instruction == ModelSection().instruction


@pytest.mark.parametrize(
    "wrong",
    [
        {"vad": "ears"},
        {"decoder": "psychic"},
        {"format": "doc"},
        {"batch_seconds": 0},
        {"max_new_tokens": -1},
        {"batch_seconds": float("nan")},
    ],
)
def test_settings_that_are_none_are_refused(wrong: dict[str, object]) -> None:
    good = vars(settings_of("nowhere"))
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        Settings(**{**good, **wrong})


def test_an_exports_own_settings_go_first(tmp_path: Path) -> None:
    path = Settings.file(tmp_path)
    path.parent.mkdir()
    path.write_text(json.dumps({**vars(settings_of("nowhere")), "instruction": "écoute"}))
    assert settings_of(str(tmp_path)).instruction == "écoute"
    for broken in ("{", "{}", '{"instruction": "x"}', "[]"):
        path.write_text(broken)
        with pytest.raises(ModelError, match=r"settings\.json: not the settings .*; export again"):
            settings_of(str(tmp_path))


def test_checking_needs_no_torch() -> None:
    check = (
        "import sys, finetune, finetune.cli.transcribe, finetune.export.bundle; "
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout.split() == ["False"] * 2
