"""The verdict: what an interval allows to say, and no more."""

from typing import Any

import pytest
from report_facts import DIFFERENCE, SAME, metrics

from finetune.report.verdict import BAD, GOOD, OPEN, UNKNOWN, domain, forgetting, hallucination, leak


@pytest.mark.parametrize(
    ("low", "high", "state", "headline"),
    [
        (-0.15, -0.05, GOOD, "Better"),
        (-0.15, 0.0, OPEN, "Not proven"),
        (-0.15, 0.01, OPEN, "Not proven"),
        (0.0, 0.1, OPEN, "Not proven"),
        (0.01, 0.1, BAD, "Worse"),
    ],
)
def test_only_an_interval_without_zero_proves_anything(low: float, high: float, state: str, headline: str) -> None:
    found = metrics()
    found["differences"]["test"] |= {"low": low, "high": high, "difference": (low + high) / 2}
    finding = domain(found)
    assert (finding.state, finding.headline) == (state, headline)
    assert ("shows differences of 3.0 points" in finding.detail) == (state == OPEN)
    assert finding.caveat == ""


def test_what_makes_a_verdict_doubtful_is_said_beside_it() -> None:
    found = metrics()
    found["differences"]["test"]["note"] = "only 4 blocks: take the interval for a guess"
    found["scores"]["test"]["adapted"]["prompted"]["said"] = 7
    caveat = domain(found).caveat
    assert caveat.startswith("Only 4 blocks") and "7 of 100 prompts hold a keyword" in caveat
    found["scores"]["test"]["adapted"]["translation"] = {}
    assert "BLEU" in domain(found).caveat


@pytest.mark.parametrize(
    ("change", "limit", "state"),
    [
        ({"difference": 0.02, "low": 0.01, "high": 0.03, "p_holm": 0.01}, 0.02, BAD),
        ({"difference": 0.02, "low": 0.01, "high": 0.03, "p_holm": 0.051}, 0.02, OPEN),  # not after Holm
        ({"difference": -0.02, "low": -0.03, "high": -0.01, "p_holm": 0.01}, None, GOOD),
        ({"difference": 0.0, "low": -0.01, "high": 0.019, "p_holm": 1.0}, 0.02, GOOD),
        ({"difference": 0.0, "low": -0.01, "high": 0.019, "p_holm": 1.0}, None, OPEN),
    ],
)
def test_forgetting(change: dict[str, Any], limit: float | None, state: str) -> None:
    found = metrics()
    found["differences"]["canary"] |= change
    finding = forgetting(found, limit)
    assert finding.state == state
    assert ("A loss of up to" in finding.detail) == (state == OPEN)


def test_one_canary_of_several_that_lost_is_enough() -> None:
    found = metrics()
    for name, difference in (("canary: a", SAME), ("canary: b", {**DIFFERENCE, "difference": 0.1})):
        found["differences"][name], found["scores"][name] = difference, found["scores"]["canary"]
    finding = forgetting(found, None)
    assert finding.state == BAD and finding.detail.startswith("Canary: b") and "1 set of 3 lost" in finding.detail
    found["differences"] = {"test": DIFFERENCE}
    assert forgetting(found, 0.02).state == UNKNOWN


@pytest.mark.parametrize(("base", "adapted", "state"), [(0, 0, GOOD), (3, 0, GOOD), (3, 3, OPEN), (3, 4, BAD)])
def test_words_for_clips_without_speech(base: int, adapted: int, state: str) -> None:
    found = metrics()
    found["probes"]["base"]["with_output"], found["probes"]["adapted"]["with_output"] = base, adapted
    assert hallucination(found).state == state
    assert hallucination({"probes": {}}).state == UNKNOWN


def test_leaks() -> None:
    none = {"clips": 0, "sentences": 0, "audio": 0, "speakers": 0}
    assert leak(none, 5).state == GOOD
    voices = leak({**none, "speakers": 5}, 5)
    assert voices.state == OPEN and "5 of 5 test speakers" in voices.caveat
    both = leak({"clips": 3, "sentences": 2, "audio": 1, "speakers": 5}, 5)
    assert both.state == BAD and "2 clips of test with a sentence of train and 1 clip of test with audio" in both.detail
