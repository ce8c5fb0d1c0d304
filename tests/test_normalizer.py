"""Normalizers: golden texts, and what must hold for any text."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import RecipeError
from finetune.metrics.normalizer import NORMALIZERS, UNSPACED, normalize

# Characters that interact: bare and composed accents, signs that fold to several characters, things that vanish.
TRICKY = st.text(st.sampled_from("aéEİßſ '’´`-–/_.,…!¨゛\u0301\u0308\u3099がカｶﾞー〜～½²™ﬁΣς"
                                 "\u1ffd\u200b\u00ad\ufe0f❤️1٣\n\u3000"))
ANY_TEXT = TRICKY | st.text()


@pytest.mark.parametrize("raw, expected", [
    ("  Hello,\tWORLD!\n", "hello world"),
    ("Don’t panic: it's 'fine'", "don't panic it's fine"),
    ("don´t don`t donʼt don＇t", "don't don't don't don't"),
    ("the dogs' bowl, rock 'n' roll", "the dogs bowl rock n roll"),
    ("state-of-the-art — e–mail and/or snake_case", "state of the art e mail and or snake case"),
    ("$3,000.50 at 10:30 in the U.S.", "300050 at 1030 in the us"),
    ("½ Granite™ ﬁle ＡＢＣ", "1 2 granite file abc"),
    ("Straße ΣΊΣΥΦΟΣ", "strasse σίσυφοσ"),
    ("soft\u00adhyphen zero\u200bwidth \ufeffbom", "softhyphen zerowidth bom"),
    ("I ❤️ it 👍🏽 ¨ '", "i it"),
    ("हिन्दी में", "हिन्दी में"),
    ("?!", ""),
    ("", ""),
])
def test_basic(raw: str, expected: str) -> None:
    assert normalize(raw, "basic@1") == expected


@pytest.mark.parametrize("raw, expected", [
    ("今日は、 良い　天気です。", "今日は良い天気です"),
    ("ｶﾞｷﾞ コーヒー・ＡＢＣ １２３", "ガギコーヒーabc123"),
    ("か゛「が」", "がが"),
    ("え〜と、え～と", "えとえと"),
    ("「それ」！", "それ"),
])
def test_ja_cer(raw: str, expected: str) -> None:
    assert normalize(raw, "ja-cer@1") == expected


def test_none_folds_only_composition_and_whitespace() -> None:
    assert normalize(" Cafe\u0301,\u3000 ＯＫ?\n", "none") == "Café, ＯＫ?"


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="'basic'.*none, basic@1, ja-cer@1"):
        normalize("a", "basic")


@pytest.mark.parametrize("preset", NORMALIZERS)
@given(text=ANY_TEXT)
def test_idempotent(preset: str, text: str) -> None:
    once = normalize(text, preset)
    assert normalize(once, preset) == once


@pytest.mark.parametrize("preset", NORMALIZERS)
@given(text=ANY_TEXT)
def test_composed_and_decomposed_are_equal(preset: str, text: str) -> None:
    assert normalize(unicodedata.normalize("NFD", text), preset) == normalize(text, preset)


@pytest.mark.parametrize("preset", NORMALIZERS)
@given(text=ANY_TEXT)
def test_whitespace_is_folded(preset: str, text: str) -> None:
    words = normalize(text, preset).split()
    assert normalize(text, preset) == " ".join(words)
    assert preset not in UNSPACED or len(words) <= 1


@pytest.mark.parametrize("preset", ["basic@1", "ja-cer@1"])
@given(text=ANY_TEXT)
def test_no_punctuation_or_symbol_is_left(preset: str, text: str) -> None:
    left = normalize(text, preset).replace("'", "") if preset == "basic@1" else normalize(text, preset)
    assert not any(unicodedata.category(char)[0] in "PS" for char in left)
