"""Conditions of --fail-if: grammar and evaluation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.core.errors import DataError, RecipeError
from finetune.metrics.conditions import METRICS, check_conditions, parse_condition

BASE = {"wer": 0.212, "cer": 0.1, "recall": 0.8}


@pytest.mark.parametrize(
    "text, wer, expected",
    [
        ("wer > base + 0.2", 0.214, False),  # equal is not above, in binary fractions too
        ("wer > base + 0.2", 0.2141, True),
        ("wer>=base+0.2", 0.214, True),
        ("wer > base", 0.212, False),
        ("wer >= base", 0.212, True),
        ("wer > base - 5", 0.17, True),
        (" wer<base-5 ", 0.16, True),
        ("wer > 20", 0.2001, True),
        ("wer <= 20.5", 0.205, True),
        ("wer < 20", 0.2, False),
    ],
)
def test_conditions(text: str, wer: float, expected: bool) -> None:
    assert parse_condition(text).is_true({**BASE, "wer": wer}, BASE) is expected


def test_each_metric_has_its_own_value() -> None:
    other = {"wer": 0.9, "cer": 0.05, "recall": 0.7}
    assert [parse_condition(f"{name} > base").is_true(other, BASE) for name in METRICS] == [True, False, False]
    with pytest.raises(DataError, match="no term occurs in the references"):
        parse_condition("recall < 50").is_true({**other, "recall": None}, BASE)
    with pytest.raises(DataError, match="no term occurs in the references"):
        parse_condition("recall < base").is_true(other, {**BASE, "recall": None})


def test_conditions_that_have_nothing_to_count_are_refused_before_any_work() -> None:
    wer, recall = parse_condition("wer > base"), parse_condition("recall < 90")
    check_conditions([wer, recall], ["take aspirin", ""], ["aspirin"], "basic@2")
    with pytest.raises(DataError, match="wer is undefined, because the references have no words"):
        check_conditions([wer], ["", "..."], [], "basic@2")
    with pytest.raises(DataError, match="no term occurs in the references"):
        check_conditions([recall], ["take it"], ["aspirin"], "basic@2")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "wer",
        "wer >",
        "wer > bass",
        "mer > base",
        "wer => base",
        "wer > base + ",
        "wer > base 0.2",
        "wer > -1",
        "wer > base + 1e3",
        "wer > 1 + 1",
        "base > wer",
        "wer > base; wer > 1",
        "__import__('os')",
        "wer > base\nwer > 1",
        "WER > base",
    ],
)
def test_invalid_conditions_are_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(RecipeError, match="invalid condition; write wer, cer or recall, then .* such as 'wer > base"):
        parse_condition(text)


@given(st.text(max_size=20))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        condition = parse_condition(text)
    except RecipeError:
        return
    assert condition.metric in METRICS


@given(st.floats(0, 2), st.floats(0, 2), st.integers(0, 50))
def test_greater_and_not_greater_are_opposites(wer: float, base: float, points: int) -> None:
    results = [
        parse_condition(f"wer {sign} base + {points}").is_true({"wer": wer}, {"wer": base}) for sign in (">", "<=")
    ]
    assert results[0] is not results[1]
