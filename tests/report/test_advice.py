"""Each advice rule applies above its threshold, and does not apply just below it."""

from typing import Any

import pytest
from report_facts import DIFFERENCE, facts, group, metrics, recipe, results

from finetune.report.advice import advise
from finetune.report.facts import Overlap
from finetune.report.verdict import domain


def test_no_advice_without_remarkable_results() -> None:
    assert advise(facts()) == []


def rules(**changes: Any) -> dict[str, str]:
    return {item.rule: f"{item.finding} {item.action}" for item in advise(facts(**changes))}


def frequency(name: str, missed: int, words: int = 500) -> dict[str, Any]:
    return {"name": name, "words": words, "missed": missed, "inserted": 0}


# rule, path in the scores of the adapted model on test, value below and value beyond the threshold, advice
THRESHOLDS = [
    ("numerals", "numerals", {"numeral": 29, "style": 0}, {"numeral": 30, "style": 0}, "30.0 % of the errors"),
    ("deletions", "deletions", 74, 75, "50.0 % of the errors are deletions"),
    ("insertions", "insertions", 56, 57, "40.1 % of the errors are insertions"),
    ("truncated", "truncated", 0, 1, "1 of 100 hypotheses reached the limit"),
    ("seen terms", "terms.seen", {"recall": 0.9}, {"recall": 0.89}, "in training is 89.0 % (base 95.0 %)"),
    (
        "unseen terms",
        "terms.unseen",
        {"recall": 0.475},
        {"recall": 0.47},
        "is 47.0 % (base 95.0 %), of the other terms 95.0 %",
    ),
    ("false terms", "terms.seen", {"false_alarms": 21}, {"false_alarms": 22}, "22 of 212 terms"),
    (
        "unseen words",
        "frequency",
        [frequency("unseen", 29, 50), frequency("1 to 5", 71)],
        [frequency("unseen", 30, 50), frequency("1 to 5", 70)],
        "30.0 % of the missed words",
    ),
    ("prompted keywords", "prompted", {"in_reference": 0}, {"in_reference": 5}, "5 of 100 test prompts"),
    (
        "few speakers",
        "blocks",
        {"note": ""},
        {"note": "only 9 blocks: the interval is not reliable"},
        "too small: only 9 blocks",
    ),
]


@pytest.mark.parametrize(("rule", "path", "below", "beyond", "advice"), THRESHOLDS)
def test_thresholds(rule: str, path: str, below: Any, beyond: Any, advice: str) -> None:
    for value, applies in ((below, False), (beyond, True)):
        content = metrics()
        *keys, last = path.split(".")
        node = content["scores"]["test"]["adapted"]
        for key in keys:
            node = node[key]
        node[last] = {**node[last], **value} if isinstance(value, dict) else value
        texts = rules(content=content)
        assert (rule in texts) == applies, value
        assert not applies or advice in texts[rule]


def test_fractions_of_few_errors_are_ignored() -> None:
    content = metrics()
    content["scores"]["test"]["adapted"] |= {
        "substitutions": 0,
        "deletions": 19,
        "insertions": 0,
        "numerals": {"errors": 19, "numeral": 19, "style": 19, "words": 1000, "numeral_words": 10},
    }
    assert rules(content=content, flagged_errors=19) == {}


@pytest.mark.parametrize(
    ("reference", "hypothesis", "difference"),
    [
        ("3", "three", "the references use digits, but the model writes words"),
        ("three", "3", "the references use words, but the model writes digits"),
    ],
)
def test_numerals_in_another_style(reference: str, hypothesis: str, difference: str) -> None:
    content = metrics()
    content["scores"]["test"]["adapted"]["numerals"] |= {"errors": 100, "numeral": 62, "style": 50}
    content["details"]["test"]["adapted"]["confusions"] = [
        {"reference": reference, "hypothesis": hypothesis, "count": 50}
    ]
    text = rules(content=content)["numerals"]
    assert text.startswith("62.0 % of the errors involve numerals") and difference in text and "whisper-en@1" in text


def test_style_names_what_differs_most() -> None:
    content = metrics()
    content["scores"]["test"]["adapted"] |= {
        "raw_wer": 0.4,
        "style": {"words": 900, "case_errors": 100, "marks": 90, "marks_correct": 10, "marks_inserted": 0},
    }
    text = rules(content=content)["style"]
    assert "mostly casing (100 words with other casing, 80 missing" in text and "data.text" not in text
    lower = recipe(data={"canary": ["c"], "text": {"case": "lower"}})
    assert "data.text.case" in rules(content=content, recipe=lower)["style"]
    content["scores"]["test"]["adapted"]["raw_wer"] = 0.129  # 2.9 points
    assert "style" not in rules(content=content)
    content["scores"]["test"]["adapted"] |= {"raw_wer": 0.47}  # 370 words; casing and marks are fewer than half
    assert "style" not in rules(content=content)


def test_style_of_text_without_spaces_is_measured_in_characters() -> None:
    content = metrics()
    content["scores"]["test"]["adapted"] |= {
        "normalizer": "ja-cer@2",
        "raw_wer": 0.99,  # of whole sentences
        "raw_cer": 0.2,
        "style": {"words": 900, "case_errors": 0, "marks": 90, "marks_correct": 10, "marks_inserted": 0},
    }
    text = rules(content=content)["style"]
    assert "10.0 points of raw CER" in text and "80 missing punctuation marks" in text and "WER" not in text
    content["scores"]["test"]["adapted"]["raw_cer"] = 0.1
    assert "style" not in rules(content=content)


def test_runaways() -> None:
    assert "runaways" not in rules(flagged_errors=19)
    content = metrics()
    content["scores"]["test"]["adapted"]["without_flagged"] = {"utterances": 98, "wer": 0.08}
    assert (
        "2 flagged clips with 20.0 % of the errors; the WER without them is 8.0 %"
        in rules(content=content, flagged_errors=20)["runaways"]
    )


@pytest.mark.parametrize(
    ("column", "rows", "applies"),
    [
        ("duration", {"short": (500, 0.08), "long": (500, 0.14)}, False),  # not 1.5 times all
        ("duration", {"short": (500, 0.05), "long": (500, 0.16)}, True),
        ("duration", {"short": (960, 0.05), "long": (40, 0.3)}, False),  # too few words
        ("snr", {"loud": (500, 0.05), "noisy": (500, 0.16)}, True),
        ("accent", {"north": (500, 0.1), "south": (500, 0.19)}, False),
        ("accent", {"north": (500, 0.1), "south": (500, 0.21)}, True),
    ],
)
def test_groups_with_a_much_higher_wer(column: str, rows: dict[str, tuple[int, float]], applies: bool) -> None:
    content = metrics()
    content["groups"]["test"] = [group(column, **rows)]
    texts = rules(content=content)
    assert bool(texts) == applies
    assert not applies or list(rows)[1] in next(iter(texts.values()))


def test_size_of_the_test_set_that_detects_the_difference() -> None:
    content = metrics()
    content["differences"]["test"] |= {"difference": -0.01, "p_value": 0.051, "detectable": 0.03}
    assert "9.0 times as large (about 900 clips" in rules(content=content)["not significant"]
    content["differences"]["test"]["difference"] = -0.0029  # more than a hundred times as many
    assert "Treat both models as equal" in rules(content=content)["not significant"]
    content["differences"]["test"] |= {"difference": 0.0, "detectable": 0.05}
    assert "Treat both models as equal" in rules(content=content)["not significant"]
    content["differences"]["test"]["detectable"] = 0.1  # too large to say that the models are equal
    text = rules(content=content)["not significant"]
    assert "equal on this" not in text and "A test set of about 2,500 clips, of new speakers, detects 2 points" in text
    content["differences"]["test"] |= {"detectable": 0.03}
    content["differences"]["test"]["difference"] = -0.03  # as large as detectable, so a larger set is not computed
    text = rules(content=content)["not significant"]
    assert "times as large" not in text and "add clips of new speakers" in text
    content["differences"]["test"]["p_value"] = 0.05
    assert "not significant" not in rules(content=content)


@pytest.mark.parametrize(("blocks", "applies"), [(9, False), (10, True)])
def test_a_few_blocks_do_not_say_which_test_set_is_large_enough(blocks: int, applies: bool) -> None:
    content, note = metrics(), "" if applies else f"only {blocks} blocks: the interval is not reliable"
    for difference, detectable in ((0.0, 0.04), (0.0, 8.0), (-0.01, 0.03), (-0.03, 0.03)):
        content["differences"]["test"] |= {
            "difference": difference, "p_value": 1.0, "detectable": detectable, "blocks": blocks, "note": note
        }  # fmt: skip
        found = rules(content=content)
        assert ("not significant" in found) == applies
        assert ("few speakers" in found) != applies, "asks for more speakers instead"
        assert ("can detect" in domain(results(content)).detail) == applies


def test_settings_of_the_recipe_are_not_advised() -> None:
    content = metrics()
    content["differences"]["canary"] = {**DIFFERENCE, "difference": 0.1}
    text = rules(content=content)["forgotten"]
    assert "Increase data.replay_weight; or lower the learning rates." in text
    text = rules(content=content, recipe=recipe(data={"canary": ["c"]}))["forgotten"]
    assert "(data.replay)" in text and "train.interpolate" in text and "train.max_canary_loss" in text


def test_rules_of_the_run() -> None:
    content = metrics()
    del content["differences"]["canary"]
    content["probes"]["adapted"]["with_output"] = 2
    content["suspicious"] = 2
    content["decoders"]["speculative_seconds"] = 111.0
    content["details"]["test"]["adapted"]["normalizer_changes"] = [
        {"id": "u", "side": side, "text": "?!"} for side in ("reference", "hypothesis")
    ]
    texts = rules(
        content=content, overlap=Overlap(clips=3, sentences=3, audio=0, speakers=0), valid=[(1, 0.2), (2, 0.19)]
    )
    assert set(texts) == {"leaking", "suspicious", "no canary", "hallucinated", "still learning", "emptied", "decoders"}
    assert "70.0 % of the draft tokens are accepted. Set decode.decoder: greedy." in texts["decoders"]
    content["decoders"]["acceptance"] = 0.4
    assert "train the CTC head too" in rules(content=content)["decoders"]
    trained = rules(content=content, recipe=recipe(parts={"ctc_head": {"mode": "full"}}))
    assert trained["decoders"].endswith("decode.decoder: greedy.")
    for decoder in ("greedy", "beam"):  # it is greedy, or writes better texts
        assert "decoders" not in rules(content=content, recipe=recipe(decode={"decoder": decoder}))
    assert "3 test clips with training text" in texts["leaking"] and "(base 0)" in texts["hallucinated"]
    content["decoders"] |= {"tokens_equal": False, "speculative_seconds": 1.0}
    content["suspicious"] = 1
    texts = rules(content=content, valid=[(1, 0.2), (2, 0.191)])
    assert "wrote different tokens" in texts["decoders"] and not {"suspicious", "still learning", "leaking"} & set(
        texts
    )


@pytest.mark.parametrize(("last", "applies"), [(0.1, False), (0.2, False), (0.08, True)])
def test_a_validation_that_only_returns_to_an_earlier_one_is_no_reason_to_train_longer(
    last: float, applies: bool
) -> None:
    assert ("still learning" in rules(valid=[(1, 0.3), (2, 0.1), (3, 0.4), (4, last)])) == applies


def test_words_without_speech_name_training_without_speech_if_the_run_had_none() -> None:
    content = metrics()
    content["probes"]["adapted"]["with_output"] = 2
    assert "augment.no_speech: 0.05" in rules(content=content)["hallucinated"]
    trained = recipe(data={"canary": ["c"]}, augment={"no_speech": 0.05})
    assert "augment.no_speech" not in rules(content=content, recipe=trained)["hallucinated"]


def test_texts_that_a_model_wrote_are_named() -> None:
    text = rules(pseudo_labels={"train": 230})["pseudo-labels"]
    assert "230 clips of train" in text and "Check some" in text
    assert "Remove them from valid" in rules(pseudo_labels={"train": 9, "test": 1})["pseudo-labels"]


def test_digit_data_is_not_advised_to_add_numbers() -> None:
    """99 % of the words are numerals, so nearly all errors involve them."""
    content = metrics()
    content["scores"]["test"]["adapted"]["numerals"] |= {"numeral": 100, "numeral_words": 990}
    assert "numerals" not in rules(content=content)
    content["scores"]["test"]["adapted"]["numerals"] |= {"numeral_words": 660}  # 100/660 is 1.5 times 100/1000
    assert "Add sentences with numbers" in rules(content=content)["numerals"]


def test_unseen_words_that_are_missed_as_often_as_others_are_not_named() -> None:
    content = metrics()
    content["scores"]["test"]["adapted"]["frequency"] = [frequency("unseen", 60, 600), frequency("1 to 5", 40, 400)]
    assert "unseen words" not in rules(content=content)


@pytest.mark.parametrize(
    ("column", "rows", "named", "not_named"),
    [
        ("snr", {"noisy": (500, 0.05), "clean": (500, 0.16)}, "little noise", "noise_db"),
        ("snr", {"noisy": (500, 0.16), "clean": (500, 0.05)}, "noise_db", "little noise"),
        ("duration", {"short": (500, 0.16), "long": (500, 0.05)}, "of that length", "cut long recordings"),
        ("duration", {"short": (500, 0.05), "long": (500, 0.16)}, "cut long recordings", "nothing"),
    ],
)
def test_the_action_fits_the_end_of_the_scale(
    column: str, rows: dict[str, tuple[int, float]], named: str, not_named: str
) -> None:
    content = metrics()
    content["groups"]["test"] = [group(column, **rows)]
    text = rules(content=content)[column]
    assert named in text and not_named not in text


def test_groups_whose_intervals_overlap_and_flags_without_harm_are_not_named() -> None:
    content = metrics()
    table = group("accent", north=(500, 0.1), south=(500, 0.3))
    table["rows"][1]["interval"]["adapted"]["low"] = 0.11
    content["groups"]["test"] = [table]
    content["scores"]["test"]["adapted"]["without_flagged"] = {"utterances": 98, "wer": 0.1}  # not lower
    assert rules(content=content, flagged_errors=50) == {}


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ({"scope": "these speakers", "speakers": 4}, "Test has only 4 speakers, so nothing is shown for other"),
        ({"scope": "unknown speakers", "speakers": 0}, "Add a column speaker"),
    ],
)
def test_speakers_that_limit_the_scope_are_advice(where: dict[str, Any], text: str) -> None:
    content = metrics()
    content["differences"]["test"] |= where
    assert text in rules(content=content)["few speakers"]


def test_terms_that_training_made_worse() -> None:
    content = metrics()
    content["scores"]["test"]["adapted"]["terms"]["seen"]["recall"] = 0.5
    assert "Training made it worse" in rules(content=content)["seen terms"]
    content["scores"]["test"]["base"]["terms"]["seen"]["recall"] = 0.2
    assert "Add more sentences" in rules(content=content)["seen terms"]


def term(name: str, support: int, hits: int) -> dict[str, Any]:
    return {"term": name, "support": support, "hits": hits, "false_alarms": 0, "as_written": False, "seen": True}


def test_training_on_synthetic_speech_only_is_a_warning() -> None:
    content = metrics()
    content["synthetic"] = {"clips": 40, "synthetic": 40, "terms": []}
    text = rules(results=results(content))["synthetic training"]
    assert text.startswith("All 40 training clips are synthetic speech.") and text.endswith("Test on recordings.")
    content["synthetic"]["synthetic"] = 39
    assert "synthetic training" not in rules(results=results(content))


def test_the_recall_of_terms_without_recordings_is_that_of_recorded_test_clips() -> None:
    content = metrics()
    content["synthetic"] = {"clips": 40, "synthetic": 10, "terms": ["foo", "bar"]}
    both = {system: {**content["details"]["test"]["base"]} for system in ("base", "adapted")}
    both["base"]["terms"] = [term("foo", 4, 0)]
    both["adapted"]["terms"] = [term("foo", 4, 2), term("bar", 1, 1), term("other", 5, 0)]
    content["details"]["test"] = both
    text = rules(results=results(content))["synthetic training"]
    assert (
        "Only synthetic training clips have 2 terms of the domain. Their recall on test is 60.0 % (base 0.0 %)" in text
    )
    assert "record a few clips" in text
    real = {system: {**rows, "terms": [term("foo", 2, 0)]} for system, rows in both.items()}
    content["details"]["test: real"] = real
    text = rules(results=results(content))["synthetic training"]
    assert "Their recall on recorded test clips is 0.0 %" in text and "--lexicon" in text
    real["adapted"]["terms"] = real["base"]["terms"] = [term("other", 5, 0)]
    assert "None of them occurs in recorded test clips." in rules(results=results(content))["synthetic training"]
