"""Alignments keep both texts; MAPSSWE: segments of given examples, and its result on simulated systems."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.core.errors import DataError
from finetune.metrics.alignment import Confusion, Edit, align, confusions, count_errors, count_words
from finetune.metrics.mapsswe import mapsswe
from finetune.metrics.wer import errors_per_utterance

SENTENCE = st.lists(st.sampled_from(["a", "b", "c", "dd"]), max_size=8).map(" ".join)
PAIRS = st.lists(st.tuples(SENTENCE, SENTENCE), min_size=1, max_size=6)


@given(PAIRS)
def test_both_sides_are_rebuilt(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = map(list, zip(*pairs, strict=True))
    rows = align(references, hypotheses, "none")
    assert [" ".join(edit.reference for edit in row if edit.reference) for row in rows] == references
    assert [" ".join(edit.hypothesis for edit in row if edit.hypothesis) for row in rows] == hypotheses
    counted = [(count_errors(row), count_words(row)) for row in rows]
    assert counted == errors_per_utterance(references, hypotheses, "none")
    for edit in (edit for row in rows for edit in row):
        kind = "equal" if edit.reference == edit.hypothesis else "substitute"
        assert edit.op == ("insert" if not edit.reference else "delete" if not edit.hypothesis else kind)


@given(PAIRS, st.randoms(use_true_random=False))
def test_order_does_not_matter(pairs: list[tuple[str, str]], rng: random.Random) -> None:
    shuffled = rng.sample(pairs, len(pairs))
    counted = [
        sorted(errors_per_utterance([a for a, _ in some], [b for _, b in some], "none")) for some in (pairs, shuffled)
    ]
    assert counted[0] == counted[1]


def test_confusions_are_counted() -> None:
    rows = align(["take the stent", "take the stent", "no"], ["take a tent", "take a stent up", ""], "basic@2")
    assert rows[0] == [
        Edit("equal", "take", "take"),
        Edit("substitute", "the", "a"),
        Edit("substitute", "stent", "tent"),
    ]
    assert confusions(rows, 3) == [Confusion("the", "a", 2), Confusion("", "up", 1), Confusion("no", "", 1)]
    (row,) = align(["it's the dogs' bed"], ["its the dogs bed"], "basic@2")
    assert (
        row[0] == Edit("substitute", "it's", "its") and count_errors(row) == 1
    )  # an apostrophe inside a word is part of it
    assert align([], [], "none") == []
    assert [edit.op for edit in align(["今日は"], ["今 日"], "ja-cer@2")[0]] == ["equal", "equal", "delete"]


def compared(reference: str, first: str, second: str) -> list[int]:
    result = mapsswe(align([reference], [first], "none"), align([reference], [second], "none"))
    return [result.segments, round(result.mean_difference * result.segments)]


@pytest.mark.parametrize(
    "first, second, segments, difference",
    [
        ("a b c d e f g h", "a b c d e f g h", 0, 0),
        ("a b X d e f g h", "a b c d e f Y h", 2, 0),  # three correct words between them
        ("a b X d Y f g h", "a b c d e f g h", 1, -2),  # one correct word does not separate them
        ("a b X d e f g h", "a b c d e X g h", 2, 0),  # two correct words do
        ("a b X d e Z f g h", "a b c d e f g h", 2, -2),  # an insertion is not a correct word
        ("X b c d e f g Y", "X b c d e f g Y", 2, 0),  # equal errors: segments without a difference
        ("", "a b c d e f g h", 1, -8),
        ("a b c d e f g h", "a b c d e f g h i j", 1, 2),
    ],
)
def test_segments(first: str, second: str, segments: int, difference: int) -> None:
    assert compared("a b c d e f g h", first, second) == [segments, difference]


def test_mapsswe_on_better_and_equal_systems() -> None:
    rng = random.Random(3)
    words = [[str(number) for number in range(12)] for _ in range(300)]

    def system(rate: float) -> list[str]:
        return [" ".join("x" if rng.random() < rate else word for word in text) for text in words]

    references = [" ".join(text) for text in words]
    base, equal, better = (align(references, system(rate), "none") for rate in (0.3, 0.3, 0.2))
    result = mapsswe(base, better)
    assert result.segments > 300 and result.z is not None and result.z < -5
    assert result.p_value is not None and result.p_value < 1e-5 and result.note == ""
    assert (mapsswe(base, equal).p_value or 0) > 0.05
    few = mapsswe(base[:3], better[:3])
    assert "only" in few.note
    assert mapsswe(base, base).p_value is None
    with pytest.raises(DataError, match="different references"):
        mapsswe(align(["a b"], ["a"], "none"), align(["a c"], ["a"], "none"))
