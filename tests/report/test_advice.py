"""Each rule of advice speaks beyond its threshold, and is silent just below it."""

from typing import Any

import pytest
from report_facts import DIFFERENCE, facts, group, metrics

from finetune.report.advice import advise


def test_nothing_is_said_where_nothing_is_remarkable() -> None:
    assert advise(facts()) == []


def rules(**changes: Any) -> dict[str, str]:
    return {item.rule: f"{item.found} {item.cure}" for item in advise(facts(**changes))}


# rule, path into metrics of the adapted model on test, value that is silent, value that speaks, words in the advice
THRESHOLDS = [
    ("numerals", "numerals", {"numeral": 29, "style": 0}, {"numeral": 30, "style": 0}, "30.0 % of the errors"),
    ("style", "raw_wer", 0.129, 0.131, "3.1 points of raw WER"),
    ("deletions", "deletions", 74, 75, "50.0 % of the errors are words left out"),
    ("insertions", "insertions", 56, 57, "40.1 % of the errors are words added"),
    ("truncated", "truncated", 0, 1, "1 of 100 hypotheses ended"),
    ("taught terms", "terms.seen", {"recall": 0.9}, {"recall": 0.89}, "89.0 % are heard"),
    ("untaught terms", "terms.unseen", {"recall": 0.475}, {"recall": 0.47}, "47.0 % of cases, others in 95.0 %"),
    ("invented terms", "terms.seen", {"false_alarms": 21}, {"false_alarms": 22}, "22 of 212 terms"),
    (
        "new words",
        "frequency",
        [{"name": "unseen", "missed": 29}, {"name": "1 to 5", "missed": 71}],
        [{"name": "unseen", "missed": 30}, {"name": "1 to 5", "missed": 70}],
        "30.0 % of the missed words",
    ),
    ("told keywords", "prompted", {"said": 0}, {"said": 5}, "5 of 100 test prompts"),
    (
        "few speakers",
        "blocks",
        {"note": ""},
        {"note": "only 2 speakers: the interval says nothing of others"},
        "only 2 speakers",
    ),
]


@pytest.mark.parametrize(("rule", "path", "silent", "speaks", "words"), THRESHOLDS)
def test_thresholds(rule: str, path: str, silent: Any, speaks: Any, words: str) -> None:
    for value, said in ((silent, False), (speaks, True)):
        found = metrics()
        *way, last = path.split(".")
        place = found["scores"]["test"]["adapted"]
        for key in way:
            place = place[key]
        place[last] = {**place[last], **value} if isinstance(value, dict) else value
        texts = rules(found=found)
        assert (rule in texts) == said, value
        assert not said or words in texts[rule]


def test_shares_of_few_errors_mean_nothing() -> None:
    found = metrics()
    found["scores"]["test"]["adapted"] |= {
        "substitutions": 0,
        "deletions": 19,
        "insertions": 0,
        "numerals": {"errors": 19, "numeral": 19, "style": 19},
    }
    assert rules(found=found, flagged_errors=19) == {}


@pytest.mark.parametrize(
    ("said", "heard", "words"),
    [
        ("3", "three", "your transcripts use digits where the model writes words"),
        ("three", "3", "your transcripts spell out what the model writes in digits"),
    ],
)
def test_numerals_in_another_style(said: str, heard: str, words: str) -> None:
    found = metrics()
    found["scores"]["test"]["adapted"]["numerals"] = {"errors": 100, "numeral": 62, "style": 50}
    found["details"]["test"]["adapted"]["confusions"] = [{"reference": said, "hypothesis": heard, "count": 50}]
    text = rules(found=found)["numerals"]
    assert text.startswith("62.0 % of the errors are numerals") and words in text and "whisper-en@1" in text


def test_style_names_what_differs_most() -> None:
    found = metrics()
    found["scores"]["test"]["adapted"] |= {
        "raw_wer": 0.4,
        "style": {"words": 900, "case_errors": 100, "marks_said": 90, "marks_right": 10, "marks_invented": 0},
    }
    assert "mostly casing (100 words in other case, 80 marks missing" in rules(found=found)["style"]


def test_runaways() -> None:
    assert "runaways" not in rules(flagged_errors=19)
    found = metrics()
    found["scores"]["test"]["adapted"]["without_flagged"] = {"utterances": 98, "wer": 0.08}
    assert (
        "2 flagged clips with 20.0 % of the errors; without them WER is 8.0 %"
        in rules(found=found, flagged_errors=20)["runaways"]
    )


@pytest.mark.parametrize(
    ("column", "rows", "said"),
    [
        ("duration", {"short": (500, 0.08), "long": (500, 0.14)}, False),  # not 1.5 times all
        ("duration", {"short": (500, 0.05), "long": (500, 0.16)}, True),
        ("duration", {"short": (960, 0.05), "long": (40, 0.3)}, False),  # too few words
        ("snr", {"loud": (500, 0.05), "noisy": (500, 0.16)}, True),
        ("accent", {"north": (500, 0.1), "south": (500, 0.19)}, False),
        ("accent", {"north": (500, 0.1), "south": (500, 0.21)}, True),
    ],
)
def test_groups_that_are_heard_much_worse(column: str, rows: dict[str, tuple[int, float]], said: bool) -> None:
    found = metrics()
    found["groups"]["test"] = [group(column, **rows)]
    texts = rules(found=found)
    assert bool(texts) == said
    assert not said or list(rows)[1] in next(iter(texts.values()))


def test_a_difference_that_is_not_proven_says_how_many_clips_would_prove_it() -> None:
    found = metrics()
    found["differences"]["test"] |= {"difference": -0.01, "low": -0.03, "high": 0.01, "detectable": 0.03}
    assert "9.0 times as large (about 900 clips" in rules(found=found)["not proven"]
    found["differences"]["test"]["difference"] = -0.0029  # more than a hundred times as many
    assert "Take both for equal" in rules(found=found)["not proven"]


def test_what_is_done_already_is_not_advised() -> None:
    found = metrics()
    found["differences"]["canary"] = {**DIFFERENCE, "difference": 0.1}
    text = rules(found=found)["forgotten"]
    assert "replay_weight" in text and "train.interpolate" not in text and "max_canary_loss" not in text
    text = rules(found=found, recipe={"data": {"canary": ["c"]}, "train": {}})["forgotten"]
    assert "(data.replay)" in text and "train.interpolate" in text and "train.max_canary_loss" in text


def test_the_rest() -> None:
    found = metrics()
    del found["differences"]["canary"]
    found["probes"]["adapted"]["with_output"] = 2
    found["suspicious"] = 2
    found["decode"]["speculative_seconds"] = 111.0
    found["details"]["test"]["adapted"]["normalizer_changes"] = [{"side": "reference"}, {"side": "hypothesis"}]
    texts = rules(
        found=found, leaked={"clips": 3, "sentences": 3, "audio": 0, "speakers": 0}, valid=[(1, 0.2), (2, 0.19)]
    )
    assert set(texts) == {"leaking", "suspicious", "no canary", "made up", "still learning", "emptied", "decoders"}
    assert "train the CTC head too" in texts["decoders"]
    opened = rules(found=found, recipe={"data": {}, "train": {}, "parts": {"ctc_head": {"mode": "full"}}})
    assert opened["decoders"].endswith("decode.decoder: greedy.")
    assert "Trained on, by text or audio: 3 test clips." in texts["leaking"] and "base for 0" in texts["made up"]
    found["decode"] |= {"tokens_equal": False, "speculative_seconds": 1.0}
    found["suspicious"] = 1
    texts = rules(found=found, valid=[(1, 0.2), (2, 0.191)])
    assert "wrote other tokens" in texts["decoders"] and not {"suspicious", "still learning", "leaking"} & set(texts)
