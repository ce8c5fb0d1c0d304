"""Terms with signs: which are matched as written, and where they occur."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.metrics.hallucination import false_keywords
from finetune.metrics.normalizer import NORMALIZERS, UNSPACED
from finetune.metrics.term_matcher import TermMatcher, loses_signs
from finetune.metrics.terms import TermRecall, notes_on_signs, term_recall

SIGNED = [
    "A+",
    "A-",
    "C++",
    "C#",
    "F#",
    ".NET",
    "AT&T",
    "R&D",
    "U.S.",
    "a.m.",
    "#covid",
    "HLA-B*27",
    "Ca²⁺",
    "é+",
    "日本+",
]
PLAIN = [
    "Granite-Speech",
    "don't",
    "St. John's",
    "Node.js",
    "Procter & Gamble",
    "Yahoo!",
    "J. Smith",
    "rock-'n'-roll",
    "n/a",
]
REFERENCES = ["give her a pint of a plus blood", "a man and a dog", "vitamin c is fine", "he writes c plus plus"]


@pytest.mark.parametrize("preset", [name for name in NORMALIZERS if name != "none"])
def test_signs_that_a_preset_removes(preset: str) -> None:
    assert [term for term in SIGNED + PLAIN if loses_signs(term, preset)] == SIGNED


def test_signs_that_only_some_presets_remove() -> None:
    numbers = ["-5", "2.5 mg", "1/2", "50%", "$5"]
    assert not any(loses_signs(term, "basic@2") for term in numbers)
    assert all(loses_signs(term, "basic@1") for term in numbers)
    assert not any(loses_signs(term, "none") for term in SIGNED if term != "Ca²⁺")


@pytest.mark.parametrize("preset", NORMALIZERS)
def test_words_are_not_terms_with_signs(preset: str) -> None:
    rows = term_recall(REFERENCES, REFERENCES, ["A+", "C++", "C#", ".NET", "vitamin c"], preset)
    assert [(row.support, row.hits, row.false_alarms) for row in rows] == [(0, 0, 0)] * 4 + [(1, 1, 0)]


@pytest.mark.parametrize(
    "term, text, count",
    [
        ("C++", 'I like C++. c++, (C++) "C++"', 4),
        ("C++", "C+, C+++, C++a, xC++, c + +", 0),
        ("C#", "c# C##, C#.", 2),
        ("A+", "a+ A+/B+ A++ A+b a", 2),
        ("A-", "an A-team, blood type a–, A−", 2),
        (".NET", "the .net or net, ASP.NET, ...net", 1),
        ("R&D", "r&d, R & D, rd", 1),
        ("C+", "C+# @C+ C+", 1),
        ("U.S.", "the U.S., give us u.s. help", 2),
        ("C++", "日本でC++を書く", 1),
        ("日本+", "西日本+ 日本", 0),
        ("Ca²⁺", "ca2+ CA²⁺ ca2", 2),
        ("#covid", "#COVID covid ##covid", 1),
    ],
)
def test_places_of_terms_as_written(term: str, text: str, count: int) -> None:
    assert TermMatcher([term], "basic@2").counts(text) == [count]


def test_a_term_as_written_does_not_contain_a_plain_term() -> None:
    assert TermMatcher(["C", "C++", "C#", "net", ".NET"], "basic@2").counts("C, C++ and .NET or the net") == [
        1,
        1,
        0,
        1,
        1,
    ]
    assert TermMatcher(["C", "C++"], "ja-cer@2").counts("C++とC") == [1, 1]
    assert TermMatcher(["new york", "C++ in New York"], "basic@2").counts("c++ in new york, New York") == [1, 1]


def test_each_spelling_is_one_term() -> None:
    rows = term_recall(["c++ and C#"], ["C++ and c"], ["C++", "c++", "C#", "c", "C"], "basic@2")
    assert rows == [
        TermRecall("C++", 1, 1, 0, as_written=True),
        TermRecall("C#", 1, 0, 0, as_written=True),
        TermRecall("c", 0, 0, 1),
    ]


def test_notes() -> None:
    assert notes_on_signs(["stent"], "basic@2", ["a stent"]) == []
    assert notes_on_signs(["A+"], "basic@2", None) == [
        "matched as written, with their signs, because basic@2 removes these: A+"
    ]
    _, absent = notes_on_signs(["A+", "C#", "stent"], "basic@2", ["type C# here"])
    assert absent.startswith("not in a reference as written: A+;") and "'a plus'" in absent


def test_keywords_with_signs() -> None:
    keywords = ["A+", "C#", "?!", "dog"]
    assert false_keywords("a man", "a man and a dog", keywords, "basic@2") == ["dog"]
    assert false_keywords("type a", "type A+ in C#", keywords, "basic@2") == ["A+", "C#"]
    assert false_keywords("C#", "c#", keywords, "basic@2") == []


@given(st.lists(st.sampled_from(["a", "A+", "c", "C++", "C#", ".net", "net", "ab"]), max_size=12))
def test_each_word_is_counted_once(words: list[str]) -> None:
    terms = ["A", "A+", "C", "C++", "C#", "NET", ".NET"]
    for preset in set(NORMALIZERS) - UNSPACED - {"none"}:
        counts = dict(zip(terms, TermMatcher(terms, preset).counts(" ".join(words)), strict=True))
        if preset != "openasr@2026-08":  # it merges single letters
            assert counts == {term: sum(word.upper() == term for word in words) for term in terms}


@given(
    st.lists(st.sampled_from(SIGNED + PLAIN + ["new york", "york"]), min_size=1, unique=True),
    st.lists(st.sampled_from([*SIGNED, *PLAIN, "new", "york", "c", "a", "net"])),
)
def test_found_terms_are_those_that_are_counted(terms: list[str], words: list[str]) -> None:
    for preset in ("basic@2", "none", "ja-cer@2"):
        matcher, text = TermMatcher(terms, preset), " ".join(words)
        counts = matcher.counts(text)
        assert matcher.terms_in(text) == [term.term for term, count in zip(matcher.terms, counts, strict=True) if count]


@pytest.mark.parametrize(
    "term, text, count",
    [
        ("insuline", "l'insuline d’insuline et insuline", 3),
        ("l'hôpital", "l'hôpital de l'hôpital", 2),
        ("hôpital", "jusqu'à l'hôpital", 1),
        ("New York d'Or", "à new york d'or", 1),
        ("insulina", "dell'insulina e l'insulina", 2),
        ("hui", "aujourd'hui", 0),
        ("Brien", "O'Brien", 0),
        ("patient", "the patient's", 0),
    ],
)
@pytest.mark.parametrize("preset", ["none", "basic@1", "basic@2"])
def test_a_noun_after_an_elided_article_is_a_word(preset: str, term: str, text: str, count: int) -> None:
    matcher = TermMatcher([term.lower()], preset)
    assert matcher.counts(text.lower()) == [count]
    assert matcher.terms_in(text.lower()) == [term.lower()] * bool(count)
