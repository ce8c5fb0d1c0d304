"""Groups and suspicious references: ranking, notes and scores."""

import pytest

from finetune.metrics.groups import UNKNOWN, GroupTable, group_table, in_bins
from finetune.metrics.reference_check import suspicion_scores


def table(
    column: str, names: list[str], speakers: list[str], errors: list[int], better: list[int] | None = None
) -> GroupTable:
    systems = {"base": errors, **({"adapted": better} if better else {})}
    units = {"speaker": speakers, "utterance": [f"u{number}" for number in range(len(names))]}
    return group_table(column, names, sorted({*names} - {""}), systems, [10] * len(names), units, 200, 0)


def test_groups_of_enough_speakers_are_ranked() -> None:
    names = ["north"] * 6 + ["south"] * 6 + ["west"] * 4
    result = table("accent", names, [f"s{number}" for number in range(16)], [1] * 6 + [3] * 6 + [9] * 4)
    assert [(row.name, row.clips, row.speakers, row.words, row.ranked) for row in result.rows] == [
        ("north", 6, 6, 60, True),
        ("south", 6, 6, 60, True),
        ("west", 4, 4, 40, False),
    ]
    assert result.worst == {"base": "south"} and result.gap == {"base": pytest.approx(0.2)}
    assert result.rows[2].wer == {"base": 0.9} and result.rows[0].difference is None and result.note == ""


def test_a_group_without_words_is_not_the_worst() -> None:
    names, speakers = ["noise"] * 6 + ["a"] * 6 + ["b"] * 6, [f"s{number}" for number in range(18)]
    words, errors = [0] * 6 + [10] * 12, [1] * 6 + [2] * 6 + [1] * 6
    result = group_table(
        "kind", names, ["a", "b", "noise"], {"x": errors}, words, {"speaker": speakers, "u": speakers}, 200, 0
    )
    assert [(row.name, row.wer["x"], row.ranked) for row in result.rows] == [
        ("a", 0.2, True),
        ("b", 0.1, True),
        ("noise", 1.0, False),
    ]
    assert result.worst == {"x": "a"}


def test_four_speakers_are_not_ranked() -> None:
    names = ["north"] * 40 + ["south"] * 40
    result = table("accent", names, [f"{name}{number % 4}" for number, name in enumerate(names)], [1] * 80)
    assert result.worst == {} and "fewer than two groups have 5 speakers" in result.note


def test_without_speakers_five_clips_count() -> None:
    names = ["a"] * 5 + ["b"] * 6 + ["c"] * 4 + [""] * 9
    result = table("device", names, [""] * 24, [1] * 5 + [2] * 6 + [8] * 13)
    assert result.worst == {"base": "b"} and "no conclusion about other speakers" in result.note
    assert [row.name for row in result.rows] == ["a", "b", "c", UNKNOWN]
    assert not result.rows[-1].ranked and result.rows[0].unit == "utterance"


def test_one_speaker_is_a_group_of_clips() -> None:
    names = ["anna"] * 12 + ["ben"] * 12
    result = table("speaker", names, names, [1, 2] * 6 + [3, 4] * 6)
    assert result.worst == {"base": "ben"}
    assert result.rows[0].interval["base"].blocks == 12 and "only 1 speaker" in result.rows[0].note
    assert result.rows[0].interval["base"].high < result.rows[1].interval["base"].low


def test_two_systems_are_compared_in_each_group() -> None:
    names = [f"g{number % 3}" for number in range(60)]
    speakers = [f"s{number}" for number in range(60)]
    base = [3 + number % 2 for number in range(60)]
    better = [
        count - (name == "g0") - (number % 5 == 0) * (name == "g1")
        for number, (count, name) in enumerate(zip(base, names, strict=True))
    ]
    rows = {row.name: row for row in table("column", names, speakers, base, better).rows}
    assert rows["g0"].difference is not None and rows["g0"].difference.difference == pytest.approx(-0.1)
    for row in rows.values():
        assert row.difference is not None and row.p_holm is not None and row.p_holm >= row.difference.p_value
    assert rows["g2"].p_holm == 1.0


def test_bins() -> None:
    names, order = in_bins([0.5, 1.0, 3.0, 99.0], (1.0, 2.5, 10.0), "s")
    assert names == ["below 1 s", "1 to 2.5 s", "2.5 to 10 s", "10 s and more"] == order


def test_a_reference_against_three_hypotheses_is_suspicious() -> None:
    references = ["take the stent", "take the stent", "take the stent", "take the stent", ""]
    base = ["Take the graft.", "take the stent", "take a tent", "nothing alike", ""]
    adapted = ["take the graft", "take the stent", "take the stand", "quite other", ""]
    draft = ["take the grafd", "take the stend", "take a tend", "qu ode wm", ""]
    scores = suspicion_scores(references, [base, adapted, draft], "basic@2")
    assert scores[0] == max(scores) > 0.2
    assert all(score <= 0 for score in scores[1:])
    assert suspicion_scores([], [[], []], "basic@2") == []


def test_suspicion_is_one_without_common_characters() -> None:
    assert suspicion_scores(["abc"], [["xyz"], ["xyz"]], "basic@2") == [1.0]
