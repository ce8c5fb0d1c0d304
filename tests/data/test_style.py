"""The style report and the rules of `data.text`: nothing is changed unasked, and every change is counted."""

from dataclasses import replace
from pathlib import Path

import pytest

from finetune.core.data_config import TextSection
from finetune.core.languages import row_language, suggested_language
from finetune.data.manifest import Utterance
from finetune.data.style import format_style, read_style, split_style, write_style
from finetune.data.text_rules import TextRules, strip_punctuation
from finetune.metrics.scripts import has_other_script


def item(text: str, language: str = "", name: str = "u", target_language: str = "") -> Utterance:
    keywords = ("Keep <b> 5",)
    return Utterance(name, "/a.wav", 1.0, text, language=language, keywords=keywords, target_language=target_language)


def features(*items: Utterance) -> dict[str, int]:
    return {entry.feature: entry.rows for entry in split_style(items, TextRules(TextSection())).features}


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("plain words it's", "en", set()),
        ("Paris", "en", {"capitals"}),
        ("yes, no", "", {"punctuation"}),
        ("room 5", "", {"digits"}),
        ("half ½", "", {"digits"}),
        ("%HESITATION the [Noise]", "", {"tags"}),
        ("tom &amp; jerry", "", {"tags"}),
        (r"one line\nanother", "en", {"escapes"}),
        (r"a \t tab and caf\u00e9", "fr", {"escapes", "digits"}),
        ("a new\nline", "en", set()),
        (r"one \ other", "en", set()),
        ("don’t", "en", {"characters outside the CTC alphabet"}),
        ("naïve café", "fr", set()),
        ("hello there", "ja", {"another script"}),
        ("こんにちは", "en", {"another script", "characters outside the CTC alphabet"}),
        ("ラーメン", "ja", set()),
        ("NHK ラーメン", "ja", {"capitals"}),
        ("привет", "ru", {"language not in the base", "characters outside the CTC alphabet"}),
        ("привет", "de", {"another script", "characters outside the CTC alphabet"}),
        ("ラーメン", "ja_JP", set()),
        ("hello", "jp", {"unknown language"}),
        ("hello", "EN_us", set()),
        ("hello", "English", set()),
        ("hej", "sv", {"language not in the base"}),
        ("二", "zh", {"language not in the base", "characters outside the CTC alphabet"}),
    ],
)
def test_features(text: str, language: str, expected: set[str]) -> None:
    assert set(features(item(text, language))) == expected


def test_a_translation_has_the_script_of_its_target() -> None:
    assert features(item("hello", "ja", target_language="en")) == {}
    assert set(features(item("hello", "en", target_language="ja"))) == {"another script"}
    assert set(features(item("hello", "en", target_language="jp"))) == {"unknown language"}


def test_a_prompt_can_ask_for_capitals_and_punctuation() -> None:
    written = item("On Monday, at 8.", "en")
    assert set(features(written)) == {"capitals", "punctuation", "digits"}
    assert features(replace(written, text_style="punctuated")) == {}


def test_the_ctc_head_does_not_write_translations() -> None:
    assert set(features(item("er sagt „ja“", "en"))) == {"punctuation", "characters outside the CTC alphabet"}
    assert set(features(replace(item("er sagt „ja“", "en", target_language="de"), task="translate"))) == {"punctuation"}


def test_the_report_has_shares_values_and_three_examples(tmp_path: Path) -> None:
    rows = [item(text, name=f"u{n}") for n, text in enumerate(["<unk> a <unk>", "b <unk>", "[x] c", "d [x]", "Fine"])]
    style = split_style(rows, TextRules(TextSection()))
    lines = format_style("train", style, "en")
    assert lines[0].startswith("train: capitals in 1 of 5 transcripts (20 %); data.text.case: lower")
    assert lines[1:4] == [
        "  u4: Fine in 'Fine'",
        "train: tags in 4 of 5 transcripts (80 %); data.text.tags: strip removes annotations that are certain; name "
        "others in data.text.extra_tags",
        "  <unk> 2, [x] 2",
    ]
    assert lines[4:] == ["  u0: <unk> in '<unk> a <unk>'", "  u1: <unk> in 'b <unk>'", "  u2: [x] in '[x] c'"]
    write_style(tmp_path / "style.json", {"train": style})
    stored = read_style(tmp_path / "style.json")
    assert stored is not None and stored.splits == {"train": style}
    assert read_style(tmp_path / "none.json") is None


def test_nothing_changes_unasked() -> None:
    rules = TextRules(TextSection())
    row = item("Hello, <unk> 5 &amp; UP!")
    assert rules(row) is row and rules.uses == []


def test_the_rules_and_their_counts() -> None:
    rules = TextRules(TextSection(tags="strip", numbers="words", punctuation="strip", case="lower"))
    rows = [rules(item("Hello, <unk> 2.5 MG -- now!", "en")), rules(item("plain", "en")), rules(item("[noise] 5"))]
    assert [row.text for row in rows] == ["hello two point five mg now", "plain", "five"]
    assert all(row.keywords == ("Keep <b> 5",) for row in rows)
    assert [(use.rule, use.rows) for use in rules.uses] == [
        ("tags: strip", 2),
        ("numbers: words", 2),
        ("punctuation: strip", 1),
        ("case: lower", 1),
    ]
    first = rules.uses[0].examples[0]
    assert (first.before, first.after) == ("Hello, <unk> 2.5 MG -- now!", "Hello, 2.5 MG -- now!")
    lines = "\n".join(format_style("train", split_style(rows, rules), "en"))
    assert "train: data.text.tags: strip changed 2 transcripts\n  u: 'Hello, <unk> 2.5 MG" in lines
    assert "no language in 1 transcript with numbers; the numbers were read in data.text.language (en)" in lines
    assert "train: data.text.punctuation: strip changed 1 transcript\n" in lines


@pytest.mark.parametrize(
    ("text", "language", "after", "reason"),
    [
        ("hab 5", "de", "hab fünf", ""),
        ("hab 5", "", "hab fünf", ""),
        ("有 5", "zh", "有 5", "num2words has no language 'zh'"),
        ("x 5", "jp", "x 5", "unknown language 'jp'"),
        ("これは 5", "", "これは 5", "the text is not written in the script of 'de'"),
        ("um 5mg", "de", "um 5mg", "no usual reading"),
    ],
)
def test_numbers_are_read_in_the_language_of_the_row(text: str, language: str, after: str, reason: str) -> None:
    rules = TextRules(TextSection(numbers="words", language="de"))
    assert rules(item(text, language)).text == after
    assert [left.reason for left in rules.numbers_left] == ([reason] if reason else [])


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("Hello, world! It's 2.5 mg; 10:15 -- -5", "Hello world It's 2.5 mg 10:15 -5"),
        ("3,000, or 4, 5", "3,000 or 4 5"),
        ("U.S. and e.g. this", "US and eg this"),
        ("hello,world. (yes)", "hello world yes"),
        ("¿Qué? «oui» “no” it—so", "Qué oui no it so"),
        ("'quoted words' dogs' don’t th-", "quoted words dogs' don’t th"),
        ("twenty-one 5-10 5% & $3 a/b", "twenty-one 5-10 5% & $3 a/b"),
        ("今日は、いい。ジョン・スミス", "今日はいい ジョン・スミス"),
        ("take .5, -.5 or $.50. ...5 (.NET)", "take .5 -.5 or $.50 5 NET"),
        ("th[e] word(s), (in)sight 3(5)", "the words insight 3 5"),
    ],
)
def test_strip_punctuation(text: str, stripped: str) -> None:
    assert strip_punctuation(text).replace(" ", "") == stripped.replace(" ", "")
    if "。" not in text:
        assert strip_punctuation(text) == stripped


@pytest.mark.parametrize(
    ("text", "language", "lower"),
    [
        ("DIŞ KAPI İYİ", "tr", "dış kapı iyi"),
        ("DIŞ KAPI", "tur", "dış kapı"),
        ("IT IS İSTANBUL", "en", "it is istanbul"),
        ("ÜBER STRASSE", "", "über strasse"),
    ],
)
def test_lower_case_in_the_language_of_the_row(text: str, language: str, lower: str) -> None:
    assert TextRules(TextSection(case="lower"))(item(text, language)).text == lower


def test_what_a_rule_leaves_is_not_advised_again() -> None:
    rules = TextRules(TextSection(numbers="words", tags="strip"))
    rows = [rules(item("take 5mg (both) Now", "en"))]
    lines = format_style("test", split_style(rows, rules), "en")
    assert (
        "test: digits in 1 of 1 transcript (100 %); the rule leaves them; correct the transcripts where they are wrong"
        in lines
    )
    assert any(line.startswith("test: tags in 1 of 1 transcript (100 %); the rule leaves them") for line in lines)
    assert any("capitals" in line and "data.text.case: lower" in line for line in lines)


def test_languages_of_rows() -> None:
    assert [row_language(name) for name in ("EN_us", "eng", "English", "pt-BR", "jp", "xx", "")] == [
        *("en", "en", "en", "pt"),
        *("", "", ""),
    ]
    assert [row_language(name) for name in ("Deutsch", "cmn-Hans-CN", "日本語")] == ["de", "zh", "ja"]
    names = ("Englisch", "inglés", "English (US)", "American English", "<|en|>", "english-us", "英語")
    assert {row_language(name) for name in names} == {"en"}
    assert [row_language(name) for name in ("Mandarin Chinese", "Brazilian Portuguese", "fin")] == ["zh", "pt", "fi"]
    for name in ("non-English", "English, German", "Deutsch/Englisch", "und", "us", "lang_en"):
        assert row_language(name) == ""
    assert (suggested_language("jp"), suggested_language("germ"), suggested_language("xx")) == ("ja", "de", "")
    assert has_other_script("привет", "en") and not has_other_script("привет", "xx")
