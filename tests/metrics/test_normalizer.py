"""Normalizers: golden texts, properties of any text, and equality with the reference packages."""

import importlib.util
import json
import re
import unicodedata
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from finetune.core.config import EvaluateSection
from finetune.core.errors import RecipeError
from finetune.metrics.normalizer import NORMALIZERS, UNSPACED, normalize
from finetune.metrics.wer import errors_per_utterance, score

# Characters that interact: separate and composed accents, signs that fold to several characters, removed characters.
TRICKY = st.text(
    st.sampled_from("aéEİßſ '’´`-–/_.,…!¨゛\u0301\u0308\u3099がカｶﾞー〜～½²™ﬁΣς\u1ffd\u200b\u00ad\ufe0f❤️1٣\n\u3000")
)
NUMBERS = st.text(st.sampled_from("0159٣²½①aé是かמी .,:/^-–−+±<>%°$€£ ·،、'()[]~×…\u200e"))
ANY_TEXT = TRICKY | NUMBERS | st.text()
FIXPOINTS = ["none", "basic@2", "basic@1", "ja-cer@2", "ja-cer@1", "multi@1"]  # the others run once, like the originals
SENTENCES = (Path(__file__).parent / "normalizer_sentences.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    "raw, expected",
    [
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
    ],
)
def test_basic(raw: str, expected: str) -> None:
    assert normalize(raw, "basic@1") == expected


@pytest.mark.parametrize(
    "raw, expected",
    [
        ("今日は、 良い　天気です。", "今日は良い天気です"),
        ("ｶﾞｷﾞ コーヒー・ＡＢＣ １２３", "ガギコーヒーabc123"),
        ("か゛「が」", "がが"),
        ("え〜と、え～と", "えとえと"),
        ("「それ」！", "それ"),
    ],
)
def test_ja_cer(raw: str, expected: str) -> None:
    assert normalize(raw, "ja-cer@1") == expected


@pytest.mark.parametrize(
    "raw, basic, ja_cer",
    [
        ("give 2.5 mg, at 10:15.", "give 2.5 mg at 10:15", "give2.5mgat10:15"),
        ("0.5 or .5 or -.5", "0.5 or .5 or -.5", None),
        ("1,50 and 1.000,50 and 3,000", "1,50 and 1.000,50 and 3,000", None),
        ("２．５ ٢٫٥ 2·5 v2.5", "2.5 ٢.٥ 2.5 v2.5", None),
        ("3. 5, (2.5) 7:", "3 5 2.5 7", None),
        ("24/7, ½, 3½, 10²", "24/7 1/2 3 1/2 10^2", None),
        ("-5 −5 –5 (-5) +5 ±5", "-5 -5 -5 -5 +5 ±5", None),
        ("—5 --5 ...5 #5 ~5", "5 5 5 5 5", None),
        ("5-6, 5–6, 5 -6, -5–−3", "5 6 5 6 5 -6 -5 -3", None),
        ("covid-19, में-5, x=-5", "covid 19 में 5 x -5", None),
        ("5 %, 5% $5 5€ 5 € US$5 25 °C", "5% 5% $5 5€ 5€ us$5 25°c", None),
        ("5%-10% $5-$10 5$ 6$", "5% 10% $5 $10 5$ 6$", None),
        ("p<0.05 p < .05 x>5", "p <0.05 p <.05 x >5", None),
        ("3×4 3+4 5...6 5!6 ①②", "3 4 3 4 5 6 5 6 1 2", None),
        ("<unk> 5 <b>5</b>", "unk 5 b 5 b", "55"),
        ("5'-6' '90s 1'000", "5 6 90s 1'000", None),
        ("5\u200e.\u200e6 \u200e-5", "5.6 -5", None),
        ("don't U.S. state-of-the-art $ % -", "don't us state of the art", None),
        ("気温は-5度、「はい」、5人。", "気温は -5度はい5人", "気温は-5度はい5人"),
        ("5〜6人、2・5、COVID-19", "5 6人2 5covid 19", "5-6人2-5covid-19"),
        ("[noise]今日（笑）<unk>は【拍手】(5)人", "noise今日笑unk は拍手5人", "今日は5人"),
        ("え～と 3½ 1'000", "えと 3 1/2 1'000", "えと3-1/21-000"),
    ],
)
def test_numbers_keep_their_signs(raw: str, basic: str, ja_cer: str | None) -> None:
    assert normalize(raw, "basic@2") == basic
    assert ja_cer is None or normalize(raw, "ja-cer@2") == ja_cer


def test_the_table_of_merged_numbers_is_true() -> None:
    """docs/scoring.md states for each preset which numbers it makes equal."""
    lines = (Path(__file__).parents[2] / "docs" / "scoring.md").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| these two texts"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:] if line.startswith("| ")]
    presets = [name.strip("`") for name in cells[0][1:]]
    assert presets == list(NORMALIZERS) and len(cells) > 30
    for pair, *merged in cells[1:]:
        first, second = re.fullmatch("`(.+)` and `(.+)`", pair).groups()  # type: ignore[union-attr]
        for preset, cell in zip(presets, merged, strict=True):
            equal = normalize(first, preset) == normalize(second, preset)
            assert equal == (cell == "equal"), f"{pair} under {preset}"


def test_wrong_numbers_are_errors_by_default() -> None:
    default = EvaluateSection().normalizer
    references = ["give 2.5 mg now", "the dose is 0.5", "it costs 1,50 euro", "at 10:15 today", "it fell to -5 degrees"]
    wrong = ["give 25 mg now", "the dose is 05", "it costs 150 euro", "at 1015 today", "it fell to 5 degrees"]
    assert [count for count, _ in errors_per_utterance(references, wrong, default)] == [1, 1, 1, 1, 1]
    assert score(references, references, default).wer == 0.0


def digits_of(text: str, separator: str) -> list[str]:
    """The digits of a text, where NFKC does not join different forms."""
    apart = re.sub("²+|[½①]", rf"{separator}\g<0>{separator}", text.replace("\u200e", ""))
    return re.findall(r"\d+", unicodedata.normalize("NFKC", apart))


@given(text=NUMBERS)
def test_signs_never_join_digits(text: str) -> None:
    assert re.findall(r"\d+", normalize(text, "basic@2")) == digits_of(text, " ")
    no_tags = re.sub(r"[<>()\[\]\s]", "", text)
    assert re.findall(r"\d+", normalize(no_tags, "ja-cer@2")) == digits_of(no_tags, "-")


@given(text=ANY_TEXT)
def test_texts_without_digits_are_those_of_version_1(text: str) -> None:
    assume(not any(map(str.isdecimal, unicodedata.normalize("NFKC", text))))
    assert normalize(text, "basic@2") == normalize(text, "basic@1")


@pytest.mark.parametrize(
    "raw, expected",
    [
        ("Don't panic: l’été, c'est fini!", "don t panic l été c est fini"),
        ("[noise] Größe (lacht) 3,5 %", "grösse 3 5"),
        ("Niño, français, Łódź", "niño français łódź"),
        ("ＦＵＬＬ　ｗｉｄｔｈ［音楽］", "full width"),
        ("हिन्दी, में।", "हिन्दी में"),
        ("a\u00adb\u200bc", "abc"),
    ],
)
def test_multi(raw: str, expected: str) -> None:
    assert normalize(raw, "multi@1") == expected


@pytest.mark.parametrize(
    "raw, whisper, openasr",
    [
        ("Mr. Hall won't pay $3,000.50, um, today!", "mister hall will not pay $3000.50 today", None),
        ("Two thousand and twenty-four colours", "2024 colors", None),
        ("The cat's e-mail: what's new?", "the cat is e mail what is new", "the cat s email what is new"),
        ("Uh huh, B B C at 5 p.m., all right", "huh b b c at 5 p m all right", "bbc at 5 pm alright"),
        ("a I phone, A I D plan", "a i phone a i d plan", "a i phone aid plan"),
        ("OK, Etcetera", "ok etcetera", "okay etc"),
        ("kinda, 'cause I dunno", "kinda cause i dunno", None),
        ("O'Brien is 20mm tall", "0 brien is 20 mm tall", None),  # faults of the originals
    ],
)
def test_english_presets(raw: str, whisper: str, openasr: str | None) -> None:
    assert normalize(raw, "whisper-en@1") == whisper
    assert normalize(raw, "openasr@2026-08") == (openasr or whisper)


def test_none_folds_only_composition_and_whitespace() -> None:
    assert normalize(" Cafe\u0301,\u3000 ＯＫ?\n", "none") == "Café, ＯＫ?"


def test_unknown_preset_is_refused() -> None:
    with pytest.raises(RecipeError, match="'basic'.*none, basic@2, basic@1, ja-cer@2"):
        normalize("a", "basic")


@pytest.mark.parametrize("preset", FIXPOINTS)
@given(text=ANY_TEXT)
def test_idempotent(preset: str, text: str) -> None:
    once = normalize(text, preset)
    assert normalize(once, preset) == once


@pytest.mark.parametrize("preset", NORMALIZERS)
@settings(deadline=None)  # the first text loads a package
@given(text=ANY_TEXT)
def test_composed_and_decomposed_are_equal(preset: str, text: str) -> None:
    assert normalize(unicodedata.normalize("NFD", text), preset) == normalize(text, preset)


@pytest.mark.parametrize("preset", NORMALIZERS)
@settings(deadline=None)  # the first text loads a package
@given(text=ANY_TEXT)
def test_whitespace_is_folded(preset: str, text: str) -> None:
    words = normalize(text, preset).split()
    assert normalize(text, preset) == " ".join(words)
    assert preset not in UNSPACED or len(words) <= 1


@pytest.mark.parametrize("preset", ["basic@1", "ja-cer@1", "multi@1"])  # version 2 keeps those of numbers
@given(text=ANY_TEXT)
def test_no_punctuation_or_symbol_is_left(preset: str, text: str) -> None:
    left = normalize(text, preset).replace("'", "") if preset == "basic@1" else normalize(text, preset)
    assert not any(unicodedata.category(char)[0] in "PS" for char in left)


def whisper_of_transformers() -> ModuleType:
    """Loads one file: importing the package takes seconds."""
    package = importlib.util.find_spec("transformers")
    assert package and package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "models" / "whisper" / "english_normalizer.py"
    spec = importlib.util.spec_from_file_location("english_normalizer", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def differing(preset: str, reference: object) -> set[str]:
    return {line for line in SENTENCES if " ".join(reference(line).split()) != normalize(line, preset)}  # type: ignore[operator]


def test_equal_to_the_reference_packages() -> None:
    assert len(SENTENCES) >= 300
    spellings = json.loads(files("whisper_normalizer").joinpath("normalizers/english.json").read_text())
    assert differing("whisper-en@1", whisper_of_transformers().EnglishTextNormalizer(spellings)) == set()

    from whisper_normalizer.basic import BasicTextNormalizer

    # The reference only lowers case; case folding also turns the German letter into "ss".
    assert differing("multi@1", BasicTextNormalizer(preserve_marks=True)) == {"Straße, smørrebrød, Łódź and cœur."}


def test_second_pass_equals_that_of_whisper() -> None:
    """Only signs, points and runs of numerals change in a second pass, as in the original."""
    spellings = json.loads(files("whisper_normalizer").joinpath("normalizers/english.json").read_text())
    original = whisper_of_transformers().EnglishTextNormalizer(spellings)
    for preset in ("whisper-en@1", "openasr@2026-08"):
        once = [normalize(line, preset) for line in SENTENCES]
        moved = [text for text in once if normalize(text, preset) != text]
        assert 0 < len(moved) < 0.07 * len(SENTENCES)
        assert all(any(char.isdigit() or char in ".-" for char in text) for text in moved)
        if preset == "whisper-en@1":
            assert [normalize(text, preset) for text in once] == [" ".join(original(text).split()) for text in once]


def test_openasr_equals_whisper_where_its_own_rules_do_not_apply() -> None:
    plain = 0
    for line in SENTENCES:
        words = normalize(line, "whisper-en@1").split()
        own = {"ah", "aha", "eh", "em", "hum", "huh", "ok", "etcetera", "et", "right", "ever", "fi"} & set(words)
        if "'s" not in line and not own and not any(len(word) == 1 for word in words):
            assert normalize(line, "openasr@2026-08") == " ".join(words)
            plain += 1
    assert plain > 100


def test_the_recipe_accepts_every_preset() -> None:
    assert get_args(EvaluateSection.model_fields["normalizer"].annotation) == tuple(NORMALIZERS)
