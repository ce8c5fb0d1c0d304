"""Cues a person can read, whatever was said; SRT and WebVTT as independent parsers read them."""

from itertools import pairwise

import pytest
import srt as srt_parser
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.inference.segments import Segment, Word, join_texts, split_words
from finetune.inference.subtitles import COLUMNS, LINES, LONGEST, SHORTEST, cues, srt, tsv, vtt


def segment(text: str, start: float = 0.0, pace: float = 0.3, timed: bool = True) -> Segment:
    """Words of `pace` seconds with a tenth between them."""
    words = [text[a:b] for a, b in split_words(text)]
    timing = [Word(word, start + n * (pace + 0.1), start + n * (pace + 0.1) + pace) for n, word in enumerate(words)]
    return Segment(start, timing[-1].end if timing else start, text, tuple(timing) if timed else ())


LONG = (
    "here is a sentence that alone is too long for a line of it. and behind it a second one, which is longer than "
    "the first and ends here."
)


def test_a_long_text_is_cut_at_words_and_sentences() -> None:
    found = [" ".join(cue.lines) for cue in cues([segment(LONG, pace=0.2)])]
    assert found == [LONG[:59], LONG[60:]] and LONG[58] == "."


def test_a_cue_ends_in_a_long_pause_and_stays_long_enough_to_be_read() -> None:
    words = (Word("yes", 0.0, 0.2), Word("maybe", 4.0, 4.2), Word("no", 4.4, 4.5))
    found = cues([Segment(0.0, 5.0, "yes maybe no", words)])
    assert [(cue.start, cue.end, cue.lines) for cue in found] == [(0, 1000, ("yes",)), (4000, 5000, ("maybe no",))]


def test_japanese_is_cut_between_characters_and_joined_without_spaces() -> None:
    text = "これはとても長い文章なので、一つの字幕には入りません。だから、いくつかに分けて表示することになります。"
    found = cues([segment(text, pace=0.1)])
    assert len(found) > 1 and "".join("".join(cue.lines) for cue in found) == text
    assert all(len(line) <= COLUMNS // 2 and line[0] not in "。、" for cue in found for line in cue.lines)
    assert "".join(row.split("\t")[2] for row in tsv([segment(text, pace=0.1)]).splitlines()[1:]) == text


def test_a_translation_is_spread_over_its_window() -> None:
    found = cues([segment(LONG, 10.0, timed=False), segment("short", 60.0, timed=False)])
    assert found[0].start == 10_000 and found[-1].start == 60_000
    assert all(one.end <= two.start for one, two in pairwise(found))


TEXTS = st.lists(
    st.sampled_from(
        [
            "a",
            "word",
            "another",
            "sentence.",
            "x" * 50,
            "薬を飲む。",
            "モデル",
            "<b>",
            "&",
            "-->",
            "1",
            "é!",
            "\u3000全角",
        ]
    ),
    min_size=0,
    max_size=40,
).map(" ".join)
TIMES = st.lists(st.floats(0, 3), min_size=160, max_size=160)


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3), steps=TIMES, timed=st.booleans())
def test_any_text_at_any_times_gives_sane_cues_that_parsers_read_back(
    texts: list[str], steps: list[float], timed: bool
) -> None:
    now, step, segments = 3595.0, iter(steps * 4), []
    for text in texts:
        start, words = now, []
        for a, b in split_words(text):
            begun = now + next(step) / 3
            now = begun + next(step)
            words.append(Word(text[a:b], begun, now))
        segments.append(Segment(start, now, text, tuple(words) if timed else ()))
    found = cues(segments)
    assert all(len(cue.lines) <= LINES and all(0 < len(line) <= COLUMNS for line in cue.lines) for cue in found)
    assert all(0 < cue.end - cue.start <= LONGEST for cue in found)
    assert all(one.end <= two.start for one, two in pairwise(found))
    assert all(one.end - one.start >= min(SHORTEST, two.start - one.start) for one, two in pairwise(found))
    said = "".join("".join(text.split()) for text in texts)
    assert "".join("".join("".join(cue.lines).split()) for cue in found) == said

    expected = [(cue.start, cue.end, "\n".join(cue.lines)) for cue in found]
    parsed = list(srt_parser.parse(srt(segments), ignore_errors=False))
    assert [cue.index for cue in parsed] == list(range(1, len(found) + 1))
    assert [
        (round(cue.start.total_seconds() * 1000), round(cue.end.total_seconds() * 1000), cue.content) for cue in parsed
    ] == [(start, end, text.strip()) for start, end, text in expected]
    read = webvtt.from_string(vtt(segments))
    assert [(round(1000 * to_seconds(cue.start)), round(1000 * to_seconds(cue.end))) for cue in read] == [
        (start, end) for start, end, _ in expected
    ]


def to_seconds(clock: str) -> float:
    hours, minutes, seconds = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def test_vtt_text_is_no_markup() -> None:
    assert "\n&lt;b&gt; a &amp; b --&gt; c\n" in vtt([segment("<b> a & b --> c")])
    (cue,) = webvtt.from_string(vtt([segment("fish & chips")]))
    assert cue.raw_text.replace("&amp;", "&") == "fish & chips"


def test_nothing_said_gives_empty_files() -> None:
    assert (srt([]), vtt([]), tsv([])) == ("", "WEBVTT\n", "start\tend\ttext")
    assert list(srt_parser.parse(srt([Segment(0, 1, "")]))) == []


def test_a_table_has_milliseconds() -> None:
    assert tsv([segment("hi you", 1.0)]).splitlines() == ["start\tend\ttext", "1000\t2000\thi you"]


@pytest.mark.parametrize("seconds", [0.0, 59.9996, 3599.9999, 360_000.0])
def test_clocks_round_and_carry(seconds: float) -> None:
    (cue,) = srt_parser.parse(srt([Segment(seconds, seconds + 1, "x")]))
    assert cue.start.total_seconds() == pytest.approx(seconds, abs=6e-4)
    assert join_texts([cue.content]) == "x"
