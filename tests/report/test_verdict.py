"""The verdict follows from intervals and counts."""

import json
from pathlib import Path
from typing import Any

import pytest
from report_facts import DIFFERENCE, SAME, facts, metrics, results

from finetune.core.run_dir import RunDir
from finetune.report.advice import advise
from finetune.report.facts import Overlap
from finetune.report.overlap import limited_to_speakers, read_overlap
from finetune.report.verdict import BAD, GOOD, OPEN, UNKNOWN, domain, forgetting, hallucination, leak


@pytest.mark.parametrize(
    ("difference", "p_value", "state", "headline"),
    [
        (-0.1, 0.05, GOOD, "Better"),
        (-0.1, 0.051, OPEN, "No significant difference"),
        (0.1, 0.051, OPEN, "No significant difference"),
        (0.1, 0.05, BAD, "Worse"),
    ],
)
def test_the_p_value_decides(difference: float, p_value: float, state: str, headline: str) -> None:
    content = metrics()
    content["differences"]["test"] |= {"difference": difference, "p_value": p_value}
    finding = domain(results(content))
    assert (finding.state, finding.headline) == (state, headline)
    assert ("detect differences of 3.0 points" in finding.detail) == (state == OPEN)
    assert finding.caveat == ""


def test_a_model_that_writes_nothing_is_not_better() -> None:
    """Its error rate is 100 %, and that of the wrong text of the base can be higher."""
    content = metrics()
    adapted = content["scores"]["test"]["adapted"]
    adapted |= {"empty_hypotheses": 70, "empty_references": {"utterances": 20, "with_words": 0, "words": 0, "ids": []}}
    adapted |= {"deletions": 900}
    assert (domain(results(content)).state, domain(results(content)).headline) == (BAD, "No text for 50 of 80 clips")
    rules = {advice.rule: advice for advice in advise(facts(content))}
    assert "writes nothing for 50 of 80 test clips with speech" in rules["silent"].finding and "deletions" not in rules
    adapted |= {"empty_hypotheses": 50}
    assert domain(results(content)).headline == "Better"


@pytest.mark.parametrize(
    ("scope", "speakers", "suffix", "holds"),
    [
        ("other speakers", 20, "", "holds for other speakers like these."),
        ("these speakers", 4, " on these 4 speakers; other speakers not shown", "holds on these 4 speakers; other"),
        ("these speakers", 1, " on this speaker; other speakers not shown", "holds on this speaker; other speakers"),
        (
            "unknown speakers",
            0,
            " on these clips; other speakers not shown (speakers are unknown)",
            "holds on these clips; other speakers not shown",
        ),
    ],
)
def test_every_verdict_says_for_whom_it_holds(scope: str, speakers: int, suffix: str, holds: str) -> None:
    content, where = metrics(), {"scope": scope, "speakers": speakers}
    content["differences"]["test"] |= where
    content["differences"]["canary"] |= where | {"low": -0.02, "high": -0.01}
    better, same = domain(results(content)), forgetting(results(content), None)
    assert (better.headline, same.headline) == (f"Better{suffix}", f"No loss{suffix}")
    assert holds in better.detail and holds in same.detail
    content["differences"]["test"] |= {"difference": 0.1}
    content["differences"]["canary"] |= {"difference": 0.1, "p_holm": 0.01}
    assert domain(results(content)).headline == forgetting(results(content), None).headline == f"Worse{suffix}"
    content["differences"]["test"] |= {"p_value": 0.2}
    assert domain(results(content)).headline == "No significant difference"


def test_a_verdict_does_not_hold_for_others_if_test_speakers_are_in_the_training() -> None:
    before = results()
    limited = limited_to_speakers(before, Overlap(0, 0, 0, speakers=1))
    assert domain(limited).headline == "Better on these 20 speakers; other speakers not shown"
    assert "for other speakers like these" not in domain(limited).detail
    assert limited.differences["canary"] == before.differences["canary"]
    assert limited_to_speakers(before, Overlap(2, 2, 0, speakers=0)) == before
    canary = limited_to_speakers(before, Overlap(0, 0, 0, speakers=0, canary_speakers=8))
    assert canary.differences["test"] == before.differences["test"]
    assert "on these 20 speakers; other speakers not shown" in forgetting(canary, None).detail


def test_the_overlap_names_speakers_of_test_and_of_canary(tmp_path: Path) -> None:
    def speaker(name: str) -> dict[str, str]:
        return {"kind": "speaker also in train", "id": name, "audio_filepath": "a.wav", "detail": f"{name!r}, as in b"}

    run = RunDir(tmp_path)
    assert read_overlap(run) == Overlap(0, 0, 0, 0)
    run.manifests.mkdir()
    warnings = {"test": [speaker("ann")], "canary": [speaker("ann"), speaker("bob")]}
    run.problems.write_text(json.dumps({split: {"warnings": items} for split, items in warnings.items()}))
    assert read_overlap(run) == Overlap(0, 0, 0, speakers=1, canary_speakers=2)


def test_no_loss_on_several_sets_has_the_narrowest_scope() -> None:
    content = metrics()
    for name, scope in (("canary", "other speakers"), ("canary: a", "these speakers")):
        content["differences"][name] = {**SAME, "high": -0.001, "scope": scope, "speakers": 3}
        content["scores"][name] = content["scores"]["canary"]
    assert forgetting(results(content), None).headline == "No loss on these 3 speakers; other speakers not shown"


@pytest.mark.parametrize(("high", "headline"), [(0.0, "No loss"), (0.019, "No loss above the limit")])
def test_no_loss_and_a_loss_within_the_limit_differ(high: float, headline: str) -> None:
    content = metrics()
    content["differences"]["canary"] |= {"difference": -0.01, "high": high}
    finding = forgetting(results(content), 0.02)
    assert finding.headline == headline and "The recipe accepts 2.0 points (train.max_canary_loss)." in finding.detail


def test_a_test_set_without_speech_has_inserted_words_and_no_wer() -> None:
    content = metrics()
    silent = {"reference_words": 0, "substitutions": 0, "deletions": 0, "hits": 0}
    for system, wer, words in (("base", 1.0, 12), ("adapted", 0.0, 0)):
        content["scores"]["test"][system] |= {**silent, "wer": wer, "insertions": words}
    content["differences"]["test"] |= {"difference": -1.0, "note": "there are no reference words", "detectable": None}
    finding = domain(results(content))
    assert finding.detail.startswith("Inserted words 12 → 0 in 100 clips without speech (p 0.001).")
    assert "WER" not in finding.detail and "points" not in finding.detail
    (few,) = (item for item in advise(facts(content)) if item.rule == "few speakers")
    assert "only inserted words are measured" in few.finding and "clips with speech" in few.action


def test_caveats_of_the_domain() -> None:
    content = metrics()
    content["differences"]["test"]["note"] = "only 4 blocks: the interval is not reliable"
    content["scores"]["test"]["adapted"]["prompted"]["in_reference"] = 7
    caveat = domain(results(content)).caveat
    assert caveat.startswith("Only 4 blocks") and "7 of 100 prompts contain a keyword" in caveat
    content["scores"]["test"]["adapted"]["flags"] = {"language": 1}
    assert "1 hypothesis in another language (base 0)" in domain(results(content)).caveat


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


@pytest.mark.parametrize(
    ("base", "adapted", "state"), [(62.0, 82.0, BAD), (62.0, 62.4, OPEN), (62.0, 62.6, BAD), (82.0, 62.0, OPEN)]
)
def test_more_words_per_minute_in_as_many_clips_are_more_hallucinations(
    base: float, adapted: float, state: str
) -> None:
    content = metrics()
    for system, rate in (("base", base), ("adapted", adapted)):
        content["probes"][system] |= {"with_output": 6, "words_per_minute": rate}
    assert hallucination(results(content)).state == state
    assert ("hallucinated" in {item.rule for item in advise(facts(content=content))}) == (state == BAD)


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
    assert "1 of 1 test speaker is in the training data" in leak(Overlap(0, 0, 0, speakers=1), 1).caveat
    assert "1 of 5 test speakers is in the training data" in leak(Overlap(0, 0, 0, speakers=1), 5).caveat
    both = leak(Overlap(clips=3, sentences=2, audio=1, speakers=5), 5)
    assert both.state == BAD and "2 test clips with a training sentence and 1 test clip with training" in both.detail


def test_parts_of_test_are_not_general_speech() -> None:
    content = metrics()
    content["differences"] = {"test": DIFFERENCE, "test: real": {**DIFFERENCE, "difference": 0.5}}
    assert forgetting(results(content), 0.02).state == UNKNOWN
    assert "no canary" in {item.rule for item in advise(facts(content))}
