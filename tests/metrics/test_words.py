"""Errors by kind of word: frequency bins, numbers and entities, casing and punctuation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.metrics.alignment import align
from finetune.metrics.words import (
    EntityRecall,
    FrequencyBin,
    NumeralErrors,
    Style,
    by_frequency,
    entities,
    numeral_errors,
    style,
    word_counts,
)


def test_bins_by_frequency_in_training() -> None:
    trained = word_counts(["often " * 51, "Some, some some six " * 2, "rare"], "basic@2")
    assert trained == {"often": 51, "some": 6, "six": 2, "rare": 1}
    rows = align(["often some rare never"], ["often same never"], "basic@2")
    assert by_frequency(rows, trained, "basic@2") == [
        FrequencyBin("unseen", 1, 0, 0),
        FrequencyBin("1 to 5", 1, 1, 0),
        FrequencyBin("6 to 50", 1, 1, 0),
        FrequencyBin("more than 50", 1, 0, 0),
    ]
    assert by_frequency(align(["日本"], ["日"], "ja-cer@2"), {}, "ja-cer@2") == []


def test_bins_hold_all_words() -> None:
    references, hypotheses = ["a b c d", "e f", ""], ["a x c", "e f g", "h"]
    bins = by_frequency(align(references, hypotheses, "none"), {"a": 1, "b": 10, "e": 100}, "none")
    assert sum(item.words for item in bins) == 6
    assert sum(item.missed + item.inserted for item in bins) == 4


def entity(kind: str, reference: str, hypothesis: str) -> tuple[int, int, int]:
    rows = {row.kind: row for row in entities([reference], [hypothesis], "basic@2")}
    row = rows.get(kind, EntityRecall(kind, 0, 0, 0))
    return row.support, row.hits, row.false_alarms


@pytest.mark.parametrize(
    "kind, reference, hypothesis, expected",
    [
        ("number", "room twenty one on floor three", "room twenty one on floor four", (2, 1, 1)),
        ("number", "two hundred and six people", "two hundred and sixty people", (1, 0, 1)),
        ("number", "call 5551212 now", "call 5551212 now", (1, 1, 0)),
        ("number", "no one had a second thought", "no one", (0, 0, 0)),  # pronoun and adjective
        ("number", "the twenty second of May", "the twenty second", (1, 1, 0)),
        ("number", "someone threefold weighty", "someone", (0, 0, 0)),
        ("time", "at 10:30 or 11:45", "at 10:30", (2, 1, 0)),
        ("date", "on 2024-05-01", "on 2024-05-02", (1, 0, 1)),
        ("e-mail", "to Jane.Doe@example.com.", "to jane.doe@example.com", (1, 1, 0)),
        ("code", "gate 12B and the 21st", "gate 12b", (1, 1, 0)),
        ("time", "pay 2.50 and 1,10.50 from 10.20.30.40 in 25:70", "pay 2.50", (0, 0, 0)),  # no times
        ("time", "um 14.30 Uhr, 2.15 pm or 8:05am", "um 14.30 Uhr, 2:15 pm or 8:05am", (3, 2, 1)),
        ("date", "host 10.20.30.40", "host", (0, 0, 0)),
        ("name", "He met Anna Novak in Paris.", "he met anna novak in paris", (2, 2, 0)),  # `style` counts casing
        ("name", "Paris is old and Paris is big", "paris is old and paris is big paris", (1, 1, 1)),
        ("name", "he met anna in paris", "He met Anna in Rome", (0, 0, 1)),
        ("name", "so I'm with O'Brien, Jean-Luc and Émile", "so i'm with O’Brien jean luc and Emile", (3, 2, 1)),
        ("name", "HE MET ANNA NOVAK", "he met anna", (0, 0, 0)),  # no casing
        ("name", "He met Anna Novak in Paris.", "He met Anna Novak in Rome.", (2, 1, 1)),
    ],
)
def test_entities(kind: str, reference: str, hypothesis: str, expected: tuple[int, int, int]) -> None:
    assert entity(kind, reference, hypothesis) == expected


@pytest.mark.parametrize(
    "reference, hypothesis", [("-5", "5"), ("2.5", "25"), ("$5", "5"), ("5%", "5"), ("1/2", "1 2")]
)
def test_numbers_with_other_signs_are_other_numbers(reference: str, hypothesis: str) -> None:
    assert entity("number", f"it was {reference} then", f"it was {hypothesis} then")[:2] == (1, 0)
    (edits,) = align([f"it was {reference}"], [f"it was {hypothesis}"], "basic@2")
    assert numeral_errors([edits]).numeral == numeral_errors([edits]).errors > 0


def test_german_nouns_are_no_names() -> None:
    texts = ["wir haben ein Haus in Berlin"]
    assert entities(texts, texts, "basic@2", ["de"]) == []
    assert entities(texts, texts, "basic@2") == [EntityRecall("name", 2, 2, 0)]


def test_kinds_without_occurrences_are_omitted() -> None:
    assert entities(["plain words"], ["plain words"], "basic@2") == []


def test_numerals_in_another_style() -> None:
    rows = align(["take twenty milligrams at three"], ["take 20 milligrams at four"], "basic@2")
    assert numeral_errors(rows) == NumeralErrors(errors=2, numeral=2, style=1, words=5, numeral_words=2)
    assert numeral_errors(align(["one house"], ["one horse"], "basic@2")) == NumeralErrors(1, 0, 0, 2, 1)


@pytest.mark.parametrize(
    "language, reference, hypothesis, counts",
    [  # errors, numeral, style
        (
            "de",
            "ich nehme 5 um 10 uhr und 25 am 3.",
            "ich nehme fünf um zehn uhr und fünfundzwanzig am dritten",
            (4, 4, 4),
        ),
        ("de", "im jahr 1998 dreißig", "im jahr tausendneunhundertachtundneunzig 30", (2, 2, 2)),
        ("de", "120 mg 2 mal 1,5 am 120.", "hundertzwanzig mg zwo mal anderthalb am hundertzwanzigsten", (4, 4, 4)),
        ("de", "2,5 liter 1999", "zweieinhalb liter neunzehnhundertneunundneunzig", (2, 2, 2)),
        ("de", "eine macht einte hunde", "die nacht meinte rot", (4, 0, 0)),
        ("pt", "2 caixas 16", "duas caixas dezesseis", (2, 2, 2)),
        ("es", "tome 5 a las 10", "tome cinco a las diez", (2, 2, 2)),
        ("fr", "prenez 5 à 10 heures", "prenez cinq à dix heures", (2, 2, 2)),
        ("fr", "un chat et une souris", "le chien", (5, 0, 0)),
        ("pt", "às 8 em 2 dias", "às oito em dois dias", (2, 2, 2)),
        ("", "nehme 5 um 10", "nehme fünf um zehn", (2, 2, 0)),
        ("xx", "nehme 5", "nehme fünf", (1, 1, 0)),
    ],
)
def test_numerals_in_another_style_by_language(
    language: str, reference: str, hypothesis: str, counts: tuple[int, int, int]
) -> None:
    result = numeral_errors(align([reference], [hypothesis], "basic@2"), [language])
    assert (result.errors, result.numeral, result.style) == counts


def test_japanese_numerals_in_another_style() -> None:
    result = numeral_errors(align(["5日に8本"], ["五日に八本"], "ja-cer@2"), ["ja"])
    assert (result.errors, result.numeral, result.style, result.numeral_words) == (2, 2, 2, 2)


@pytest.mark.parametrize(
    "reference, hypothesis, expected",
    [
        ("Hello, world. Yes!", "hello world. yes?", Style(3, 2, 3, 1, 1)),
        ("It’s fine", "It's fine", Style(2, 0, 0, 0, 0)),
        ("the cat sat.", "the dog sat.", Style(2, 0, 1, 1, 0)),  # style is compared at equal words only
        ("", "Words, here.", Style(0, 0, 0, 0, 0)),
        ("wait... what", "wait what...", Style(2, 0, 1, 0, 1)),
        ("はい、そうです。本当？", "はい、そうです本当！", Style(8, 0, 3, 1, 1)),
        ("今日は晴れ。", "昨日は晴れ。", Style(4, 0, 1, 1, 0)),  # the marks of a sentence with errors count, too
        ("ＡＢＣは５個、です！", "ＡＢＣは５個､です!", Style(6, 0, 2, 2, 0)),  # the width is no difference
        ("안녕하세요, 네.", "안녕하세요 네.", Style(2, 0, 2, 1, 0)),
        ("मैं घर जा रहा हूँ, ठीक है।", "मैं घर जा रहा हूँ ठीक है।", Style(7, 0, 2, 1, 0)),  # with vowel signs
        ("می\u200cخواهم بروم؟", "می\u200cخواهم بروم", Style(2, 0, 1, 0, 0)),
        ("هل أنت بخير؟ نعم، شكرا", "هل أنت بخير نعم، شكرا", Style(5, 0, 2, 1, 0)),
    ],
)
def test_style(reference: str, hypothesis: str, expected: Style) -> None:
    assert style([reference], [hypothesis]) == expected


@given(st.lists(st.text("aB ,.9'?", max_size=20), min_size=1, max_size=4))
def test_a_text_has_its_own_style(texts: list[str]) -> None:
    result = style(texts, texts)
    assert (result.case_errors, result.marks_inserted) == (0, 0) and result.marks_correct == result.marks
    for row in entities(texts, texts, "none"):
        assert row.hits == row.support and row.false_alarms == 0
