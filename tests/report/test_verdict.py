"""The verdict follows from intervals and counts."""

from typing import Any

import pytest
from report_facts import DIFFERENCE, SAME, metrics, results

from finetune.report.facts import Overlap
from finetune.report.verdict import BAD, GOOD, OPEN, UNKNOWN, domain, forgetting, hallucination, leak


@pytest.mark.parametrize(
    ("low", "high", "state", "headline"),
    [
        (-0.15, -0.05, GOOD, "Better"),
        (-0.15, 0.0, OPEN, "No significant difference"),
        (-0.15, 0.01, OPEN, "No significant difference"),
        (0.0, 0.1, OPEN, "No significant difference"),
        (0.01, 0.1, BAD, "Worse"),
    ],
)
def test_only_an_interval_without_zero_is_a_result(low: float, high: float, state: str, headline: str) -> None:
    content = metrics()
    content["differences"]["test"] |= {"low": low, "high": high, "difference": (low + high) / 2}
    finding = domain(results(content))
    assert (finding.state, finding.headline) == (state, headline)
    assert ("detect differences of 3.0 points" in finding.detail) == (state == OPEN)
    assert finding.caveat == ""


def test_caveats_of_the_domain() -> None:
    content = metrics()
    content["differences"]["test"]["note"] = "only 4 blocks: the interval is not reliable"
    content["scores"]["test"]["adapted"]["prompted"]["in_reference"] = 7
    caveat = domain(results(content)).caveat
    assert caveat.startswith("Only 4 blocks") and "7 of 100 prompts contain a keyword" in caveat
    content["scores"]["test"]["adapted"]["translation"] = {
        "de": {"bleu": 30.0, "bleu_signature": "", "chrf": 50.0, "chrf_signature": "", "empty_hypotheses": 0}
    }
    assert "BLEU" in domain(results(content)).caveat


@pytest.mark.parametrize(
    ("change", "limit", "state"),
    [
        ({"difference": 0.02, "low": 0.01, "high": 0.03, "p_holm": 0.01}, 0.02, BAD),
        ({"difference": 0.02, "low": 0.01, "high": 0.03, "p_holm": 0.051}, 0.02, OPEN),  # not significant after Holm
        ({"difference": -0.02, "low": -0.03, "high": -0.01, "p_holm": 0.01}, None, GOOD),
        ({"difference": 0.0, "low": -0.01, "high": 0.019, "p_holm": 1.0}, 0.02, GOOD),
        ({"difference": 0.0, "low": -0.01, "high": 0.019, "p_holm": 1.0}, None, OPEN),
    ],
)
def test_forgetting(change: dict[str, Any], limit: float | None, state: str) -> None:
    content = metrics()
    content["differences"]["canary"] |= change
    finding = forgetting(results(content), limit)
    assert finding.state == state
    assert ("A loss of up to" in finding.detail) == (state == OPEN)


def test_a_canary_beyond_its_limit_is_bad_even_if_the_loss_is_not_significant() -> None:
    content = metrics()
    content["differences"]["canary"] |= {"difference": 0.0203, "low": -0.01, "high": 0.05, "p_holm": 0.2}
    finding = forgetting(results(content), 0.02)
    assert (finding.state, finding.headline) == (BAD, "Above the limit")
    assert finding.detail.endswith("The recipe accepts 2.0 points (train.max_canary_loss).")
    assert forgetting(results(content), 0.0203).headline == "No significant loss"
    assert forgetting(results(content), None).headline == "No significant loss"


def test_one_canary_set_with_a_loss_is_enough() -> None:
    content = metrics()
    for name, difference in (("canary: a", SAME), ("canary: b", {**DIFFERENCE, "difference": 0.1})):
        content["differences"][name], content["scores"][name] = difference, content["scores"]["canary"]
    finding = forgetting(results(content), None)
    assert (
        finding.state == BAD
        and finding.detail.startswith("Canary: b")
        and "1 set of 3 have a significant loss" in finding.detail
    )
    content["differences"] = {"test": DIFFERENCE}
    assert forgetting(results(content), 0.02).state == UNKNOWN


@pytest.mark.parametrize(("base", "adapted", "state"), [(0, 0, GOOD), (3, 0, GOOD), (3, 3, OPEN), (3, 4, BAD)])
def test_hallucinations(base: int, adapted: int, state: str) -> None:
    content = metrics()
    content["probes"]["base"]["with_output"], content["probes"]["adapted"]["with_output"] = base, adapted
    assert hallucination(results(content)).state == state
    assert hallucination(results({**content, "probes": None})).state == UNKNOWN


def test_leaks() -> None:
    assert leak(Overlap(0, 0, 0, 0), 5).state == GOOD
    speakers = leak(Overlap(0, 0, 0, speakers=5), 5)
    assert speakers.state == OPEN and "5 of 5 test speakers" in speakers.caveat
    both = leak(Overlap(clips=3, sentences=2, audio=1, speakers=5), 5)
    assert both.state == BAD and "2 test clips with a training sentence and 1 test clip with training" in both.detail
