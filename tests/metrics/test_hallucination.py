"""Flags of single hypotheses, false keywords, and the summary of probes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.metrics.hallucination import FLAGS, Probe, ProbeSummary, false_keywords, flags, summarize_probes

INSTRUCTION = "can you transcribe the speech into a written format?"


def of(
    reference: str,
    hypothesis: str,
    duration: float = 5.0,
    keywords: tuple[str, ...] = (),
    truncated: bool = False,
    preset: str = "basic@2",
) -> tuple[str, ...]:
    return flags(
        reference,
        hypothesis,
        duration=duration,
        instruction=INSTRUCTION,
        keywords=keywords,
        truncated=truncated,
        preset=preset,
    )


@pytest.mark.parametrize(
    "reference, hypothesis, expected",
    [
        ("take two now", "take two now", ()),
        ("take two now", "take to no", ()),
        ("", "", ()),
        ("no no no no no", "no no no no no", ()),  # the reference repeats too
        ("no", "no no no no", ("loop",)),
        ("one word", "and then and then and then and then", ("loop", "long")),
        ("one two three", "one two three one two three one two three", ()),  # three repetitions are not a loop
        ("the cat", "the cat sat on the mat and", ()),
        ("the cat", "the cat sat on the mat and purred", ("long",)),
        ("", "thanks for watching it", ("long", "unspoken")),
        ("", "thanks", ("unspoken",)),
        ("yes", "you transcribe the speech", ("echo",)),
        ("can you transcribe the speech now", "can you transcribe the speech now", ()),
    ],
)
def test_flags(reference: str, hypothesis: str, expected: tuple[str, ...]) -> None:
    assert of(reference, hypothesis) == expected


def test_speed_in_words_or_characters_per_second() -> None:
    assert of("a b c d e f", "a b c d e f g", duration=1.0) == ("fast",)
    assert of("a b c d e f g", "a b c d e f g", duration=1.0) == ()  # the speaker is fast
    assert of("今日は", "今日は晴れで明日は雨です", duration=0.5, preset="ja-cer@2") == ("fast", "long")
    assert of("one two", "one two", truncated=True) == ("truncated",)


@pytest.mark.parametrize(
    "reference, hypothesis, expected",
    [
        ("新しいプラットフォームです", "新しいplatformです", ()),  # "form" is in the instruction
        ("1000円です", "10000円です", ()),
        ("ハハハと笑う", "ハハハハと笑う", ()),
        ("はい", "はいはいはいはい", ("loop", "long")),
        ("千円の本です", "00000000円の本です", ("loop",)),
        ("晴れです", "transcribe the speechです", ("long", "echo")),
    ],
)
def test_flags_of_characters(reference: str, hypothesis: str, expected: tuple[str, ...]) -> None:
    assert of(reference, hypothesis, preset="ja-cer@2") == expected


def test_a_common_ending_is_no_copy_of_a_japanese_instruction() -> None:
    instruction = "この音声の内容を正確に書き起こしてください"
    shared = {"duration": 5.0, "instruction": instruction, "keywords": (), "truncated": False, "preset": "ja-cer@2"}
    assert flags("少し待って下さい", "少し待ってください", **shared) == ()
    assert "echo" in flags("少し待って下さい", "内容を正確に書き起こしてください", **shared)


def test_compression_detects_loops_with_changes() -> None:
    text = " ".join(f"and so on to {number % 7} and on" for number in range(40))
    assert "loop" in of("words", text, duration=100)


def test_false_keywords() -> None:
    keywords = ("Stent", "New York", "graft", "?!")
    assert false_keywords("the stent", "the stent in new york", keywords, "basic@2") == ["New York"]
    assert of("the stent", "the stent in new york", keywords=keywords) == ("keyword",)
    assert of("the stent", "the stents", keywords=keywords) == ()


def test_summary_of_probes() -> None:
    probes = [
        Probe("silence", 3.0, ""),
        Probe("hum", 3.0, "..."),
        Probe("noise", 3.0, "thank you"),
        Probe("tone", 3.0, "yes"),
    ]
    assert summarize_probes(probes) == ProbeSummary(4, 2, 0.5, 15.0)
    assert summarize_probes([]) == ProbeSummary(0, 0, 0.0, 0.0)


@given(st.text(max_size=40), st.floats(0.1, 30))
def test_a_perfect_hypothesis_has_no_flag(text: str, duration: float) -> None:
    assert of(text, text, duration) == ()
    assert set(of("", text, duration)) <= set(FLAGS)
