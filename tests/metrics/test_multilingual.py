"""The multilingual normalizer of the Open ASR Leaderboard, and compounds as kaldialign merges them."""

import kaldialign
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.core.errors import RecipeError
from finetune.metrics.alignment import align
from finetune.metrics.mapsswe import mapsswe
from finetune.metrics.multilingual import equal_regions, match_compounds
from finetune.metrics.normalizer import normalize
from finetune.metrics.wer import errors_per_utterance, score

PRESET = "openasr-multi@2026-08"
PARTS = st.lists(st.sampled_from(["white", "paper", "whitepaper", "a", "haus", "tür", "haustür"]), max_size=8)


@pytest.mark.parametrize(
    "language, raw, expected",
    [
        ("de", "Die Größe [lacht] ist 24 (etwa)!", "die größe ist vierundzwanzig"),
        ("de", "10 000 Straßen, 3,5 km", "zehntausend straßen drei fünf km"),
        ("fr", "L’été a 24 jours", "l été a vingt-quatre jours"),
        ("fr", "1 000 000", "mille zéro"),  # one gap closes, as in the original
        ("es", "21 niños", "veintiuno niños"),
        ("it", "più 8", "più otto"),
        ("pt", "24 vezes", "vinte e quatro vezes"),
        ("de", "9" * 5000, "9" * 5000),  # no number for num2words
        ("", "24 Häuser", "24 häuser"),
    ],
)
def test_rules(language: str, raw: str, expected: str) -> None:
    assert normalize(raw, f"{PRESET}:{language}" if language else PRESET) == expected


@pytest.mark.parametrize("preset", [f"{PRESET}:xx", "basic@2:de"])
def test_unknown_languages_are_errors(preset: str) -> None:
    with pytest.raises(RecipeError, match=preset):
        normalize("a", preset)


@pytest.mark.parametrize(
    "ref, hyp, matched",
    [
        ("white paper here", "whitepaper here", "white paper here"),
        ("whitepaper here", "white paper here", "whitepaper here"),
        ("ab cd x", "abc d x", "ab cd x"),  # a region that is equal without spaces
        ("haus tür auf", "haustür zu", "haus tür zu"),
        ("haustür auf", "haus tür zu", "haustür zu"),
        ("a b", "c d", "c d"),
        ("", "a b", "a b"),
        ("a b", "", ""),
    ],
)
def test_compounds(ref: str, hyp: str, matched: str) -> None:
    assert match_compounds(ref, hyp) == matched


@given(PARTS, PARTS)
def test_errors_are_those_of_kaldialign(ref: list[str], hyp: list[str]) -> None:
    texts = " ".join(ref), " ".join(hyp)
    ((errors, words),) = errors_per_utterance([texts[0]], [texts[1]], PRESET)
    other = kaldialign.edit_distance(ref, equal_regions(*texts).split(), merge_compounds=True)
    assert words == len(ref) == other["ref_len"]
    assert other["total"] - 1 <= errors <= other["total"]
    assert "".join(match_compounds(*texts).split()) == "".join(hyp)


def test_the_references_of_two_systems_stay_equal() -> None:
    refs = ["der haus tür schlüssel", "eine haustür"]
    rows = [align(refs, hyps, f"{PRESET}:de") for hyps in (["der haustür schlüssel", "eine haus tür"], ["der", "eine"])]
    assert mapsswe(*rows).segments == 2
    assert score(refs, ["der haustür schlüssel", "eine haus tür"], f"{PRESET}:de").wer == 0.0
    assert score(refs, ["der haustür schlüssel", "eine haus tür"], "multi@1").wer > 0.5


def test_long_texts_are_matched_between_equal_words() -> None:
    words = [f"w{number}" for number in range(2100)]
    hyp = " ".join([*words[:1000], "w1000w1001", "x", *words[1003:]])
    assert match_compounds(" ".join(words), hyp) == " ".join([*words[:1002], "x", *words[1003:]])
