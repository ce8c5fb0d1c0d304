"""Subtitle cues: readable for any text, and parsed correctly by independent SRT and WebVTT parsers."""

from itertools import pairwise

import pytest
import srt as srt_parser
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.inference.segments import Segment, Word, join_texts, split_words
from finetune.inference.subtitles import MAX_COLUMNS, MAX_CUE_MS, MAX_LINES, MIN_CUE_MS, cues, srt, tsv, vtt
from finetune.inference.transcript import Transcript


def segment(text: str, start: float = 0.0, pace: float = 0.3, timed: bool = True) -> Segment:
    """A segment with words of `pace` seconds and 0.1 s between them."""
    words = [text[a:b] for a, b in split_words(text)]
    timing = [Word(word, start + n * (pace + 0.1), start + n * (pace + 0.1) + pace) for n, word in enumerate(words)]
    return Segment(start, timing[-1].end if timing else start, text, tuple(timing) if timed else ())


LONG = (
    "here is a sentence that alone is too long for a line of it. and behind it a second one, which is longer than "
    "the first and ends here."
)


def test_long_text_is_split_at_sentences() -> None:
    result = [" ".join(cue.lines) for cue in cues([segment(LONG, pace=0.2)], 60.0)]
    assert result == [LONG[:59], LONG[60:]] and LONG[58] == "."


def test_cue_ends_at_a_long_pause_and_has_a_minimum_duration() -> None:
    words = (Word("yes", 0.0, 0.2), Word("maybe", 4.0, 4.2), Word("no", 4.4, 4.5))
    result = cues([Segment(0.0, 5.0, "yes maybe no", words)], 5.0)
    assert [(cue.start, cue.end, cue.lines) for cue in result] == [(0, 1000, ("yes",)), (4000, 5000, ("maybe no",))]


def test_japanese_is_split_between_characters_and_joined_without_spaces() -> None:
    text = "これはとても長い文章なので、一つの字幕には入りません。だから、いくつかに分けて表示することになります。"
    result = cues([segment(text, pace=0.1)], 60.0)
    assert len(result) > 1 and "".join("".join(cue.lines) for cue in result) == text
    assert all(len(line) <= MAX_COLUMNS // 2 and line[0] not in "。、" for cue in result for line in cue.lines)
    assert "".join(row.split("\t")[2] for row in tsv([segment(text, pace=0.1)], 60.0).splitlines()[1:]) == text


def test_full_width_letters_are_two_columns_wide() -> None:
    result = cues([segment("\uff21" * 50)], 60.0)
    assert max(len(line) for cue in result for line in cue.lines) <= MAX_COLUMNS // 2


def test_text_without_word_times_is_spread_over_its_window() -> None:
    result = cues([segment(LONG, 10.0, timed=False), segment("short", 60.0, timed=False)], 90.0)
    assert result[0].start == 10_000 and result[-1].start == 60_000
    assert all(one.end <= two.start for one, two in pairwise(result))


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
@given(texts=st.lists(TEXTS, min_size=1, max_size=3), steps=TIMES, timed=st.booleans(), rest=st.floats(0, 2))
def test_any_text_gives_valid_cues_that_parsers_read(
    texts: list[str], steps: list[float], timed: bool, rest: float
) -> None:
    now, step, segments = 3595.0, iter(steps * 4), []
    for text in texts:
        start, words = now, []
        for a, b in split_words(text):
            word_start = now + next(step) / 3
            now = word_start + next(step)
            words.append(Word(text[a:b], word_start, now))
        segments.append(Segment(start, now, text, tuple(words) if timed else ()))
    duration = now + rest  # seconds of audio: the last word can end where the audio ends
    result = cues(segments, duration)
    assert all(cue.end <= 1000 * duration + 1e-3 for cue in result)
    assert all(
        len(cue.lines) <= MAX_LINES and all(0 < len(line) <= MAX_COLUMNS for line in cue.lines) for cue in result
    )
    assert all(0 < cue.end - cue.start <= MAX_CUE_MS for cue in result)
    assert all(one.end <= two.start for one, two in pairwise(result))
    assert all(one.end - one.start >= min(MIN_CUE_MS, two.start - one.start) for one, two in pairwise(result))
    characters = "".join("".join(text.split()) for text in texts)
    assert "".join("".join("".join(cue.lines).split()) for cue in result) == characters

    expected = [(cue.start, cue.end, "\n".join(cue.lines)) for cue in result]
    parsed = list(srt_parser.parse(srt(segments, duration), ignore_errors=False))
    assert [cue.index for cue in parsed] == list(range(1, len(result) + 1))
    assert [
        (round(cue.start.total_seconds() * 1000), round(cue.end.total_seconds() * 1000), cue.content) for cue in parsed
    ] == [(start, end, text.strip()) for start, end, text in expected]
    read = webvtt.from_string(vtt(segments, duration))
    assert [(round(1000 * to_seconds(cue.start)), round(1000 * to_seconds(cue.end))) for cue in read] == [
        (start, end) for start, end, _ in expected
    ]


@pytest.mark.parametrize(("duration", "times"), [(0.4, [(0, 200), (300, 400)]), (0.3, [(0, 200), (299, 300)])])
def test_the_last_cue_ends_with_the_audio(duration: float, times: list[tuple[int, int]]) -> None:
    segments = [Segment(0.0, 0.2, "yes", (Word("yes", 0.0, 0.2),)), Segment(0.3, 0.4, "no", (Word("no", 0.3, 0.4),))]
    result = cues(segments, duration)
    assert [(cue.start, cue.end) for cue in result][1:] == times[1:] and result[0].end <= times[1][0]
    assert tsv(segments, duration).splitlines()[-1] == f"{times[1][0]}\t{times[1][1]}\tno"
    transcript = Transcript("a.wav", "yes no", duration, tuple(segments), "", 0.0, None, False)
    assert transcript.to_srt().count(f"00:00:00,{times[1][1]}") == 1


def to_seconds(clock: str) -> float:
    hours, minutes, seconds = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def test_vtt_escapes_markup() -> None:
    assert "\n&lt;b&gt; a &amp; b --&gt; c\n" in vtt([segment("<b> a & b --> c")], 9.0)
    (cue,) = webvtt.from_string(vtt([segment("fish & chips")], 9.0))
    assert cue.raw_text.replace("&amp;", "&") == "fish & chips"


def test_no_segments_give_empty_files() -> None:
    assert (srt([], 1.0), vtt([], 1.0), tsv([], 1.0)) == ("", "WEBVTT\n", "start\tend\ttext")
    assert list(srt_parser.parse(srt([Segment(0, 1, "")], 1.0))) == []


def test_tsv_has_milliseconds() -> None:
    assert tsv([segment("hi you", 1.0)], 9.0).splitlines() == ["start\tend\ttext", "1000\t2000\thi you"]


@pytest.mark.parametrize("seconds", [0.0, 59.9996, 3599.9999, 360_000.0])
def test_clock_rounds_and_carries(seconds: float) -> None:
    (cue,) = srt_parser.parse(srt([Segment(seconds, seconds + 1, "x")], seconds + 1))
    assert cue.start.total_seconds() == pytest.approx(seconds, abs=6e-4)
    assert join_texts([cue.content]) == "x"
