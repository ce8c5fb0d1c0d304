"""Term recall: occurrences, and the bounds of its rates."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.core.errors import DataError, RecipeError
from finetune.metrics.terms import (
    TermRecall,
    TermSummary,
    column_terms,
    count_terms,
    read_terms,
    summarize,
    term_lines,
    term_recall,
)

TEXTS = st.lists(st.lists(st.sampled_from(["a", "b", "ab"]), max_size=8).map(" ".join), min_size=1, max_size=5)


def row(term: str, reference: str, hypothesis: str, preset: str = "basic@2") -> tuple[int, int, int]:
    (result,) = term_recall([reference], [hypothesis], [term], preset)
    assert result.term == term
    return result.support, result.hits, result.false_alarms


@pytest.mark.parametrize(
    "term, reference, hypothesis, expected",
    [
        ("Granite Speech", "We tune granite-speech.", "we tune Granite speech", (1, 1, 0)),  # several words, normalized
        ("Granite Speech", "granite speech", "granite peach", (1, 0, 0)),
        ("cat", "concatenate the cats", "cat", (0, 0, 1)),  # whole words only
        ("no", "no no no", "no no", (3, 2, 0)),  # adjacent occurrences count
        ("no", "no", "no no no", (1, 1, 2)),
        ("a b a", "a b a b a", "a b a", (1, 1, 0)),  # without overlap
        ("don't", "I don’t", "i dont", (1, 0, 0)),
        ("x", "", "", (0, 0, 0)),
    ],
)
def test_occurrences(term: str, reference: str, hypothesis: str, expected: tuple[int, int, int]) -> None:
    assert row(term, reference, hypothesis) == expected


def test_a_hit_in_another_utterance_does_not_help() -> None:
    assert term_recall(["ibm", "no"], ["no", "ibm"], ["IBM"], "basic@2") == [TermRecall("IBM", 1, 0, 1)]


def test_terms_are_found_in_text_without_spaces() -> None:
    assert row("東京 タワー", "昨日、東京タワーへ", "昨日 東京 タワー へ", "ja-cer@2") == (1, 1, 0)


def test_spellings_made_equal_are_counted_once() -> None:
    rows = term_recall(["the ibm granite"], ["the granite"], ["Granite", "IBM", "granite"], "basic@2")
    assert rows == [TermRecall("Granite", 1, 1, 0), TermRecall("IBM", 1, 0, 0)]


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match=r"term 2 \('\+\+'\).*basic@2"):
        term_recall([], [], ["C", "++"], "basic@2")
    with pytest.raises(DataError, match="2 references but 1"):
        term_recall(["a", "b"], ["a"], ["a"], "none")
    with pytest.raises(RecipeError, match="basic@2"):
        term_recall(["a"], ["a"], ["a"], "basic")


def test_summary() -> None:
    rows = [TermRecall("a", 3, 2, 1), TermRecall("b", 1, 1, 0)]
    assert summarize(rows) == TermSummary(
        recall=3 / 4, precision=3 / 4, support=4, false_alarms=1, terms_in_references=2, macro_recall=(2 / 3 + 1) / 2
    )
    assert summarize([TermRecall("a", 0, 0, 2)]) == TermSummary(None, 0.0, 0, 2, 0, None)
    assert summarize([]) == TermSummary(None, None, 0, 0, 0, None)


def test_misses_by_utterance() -> None:
    counts = count_terms(["a b a", "b", ""], ["a", "b b", "a"], ["a", "b"], "none")
    assert counts.misses(["a"]) == ([1, 0, 0], [2, 0, 0])
    assert counts.misses(["a", "b"]) == ([2, 0, 0], [3, 1, 0])
    assert counts.misses([]) == ([0, 0, 0], [0, 0, 0])


def test_terms_of_a_column() -> None:
    cells = [["IBM", "New  York"], "stent; IBM, graft", None, 3, ["?!", 4], ""]
    assert column_terms(cells, "basic@2") == ["IBM", "New York", "stent", "graft"]
    assert column_terms(["['IBM', 'New York']", '["stent"]', "[]", "[b, c"], "basic@2")[:3] == [
        "IBM",
        "New York",
        "stent",
    ]


@given(TEXTS, TEXTS)
def test_bounds(references: list[str], hypotheses: list[str]) -> None:
    size = min(len(references), len(hypotheses))
    terms = ["a", "b", "a b", "ab"]
    for result in term_recall(references[:size], hypotheses[:size], terms, "basic@2"):
        assert 0 <= result.hits <= result.support
        assert result.false_alarms >= 0
    perfect = summarize(term_recall(references, references, terms, "basic@2"))
    assert perfect.recall in (1.0, None) and perfect.precision in (1.0, None) and perfect.false_alarms == 0
    words = sum(text.split().count("a") for text in references)
    assert term_recall(references, references, ["a"], "none")[0].support == words


def test_terms_have_the_characters_of_transcripts(tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("\n\u200b\nnai\u0308ve  man\n\u200f\u05e9\u05dc\n", encoding="utf-8")
    expected = ["na\u00efve man", "\u05e9\u05dc"]
    assert term_lines(tmp_path / "terms.txt") == [(3, expected[0]), (4, expected[1])]
    assert column_terms([["nai\u0308ve  man", "\u200f\u05e9\u05dc", "na\u00efve man"]], "none") == expected


def test_a_list_without_terms_is_refused(tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("\n \n")
    table = tmp_path / "table.txt"
    table.write_text("losartan\nmetoprolol\tpills\n")
    with pytest.raises(DataError, match=r"table\.txt:2: 'metoprolol\\tpills' has a tab, as a table with columns"):
        read_terms(table)
    with pytest.raises(DataError, match="contains no terms"):
        read_terms(tmp_path / "terms.txt")
