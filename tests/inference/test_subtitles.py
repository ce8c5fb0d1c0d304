"""Subtitle cues: readable for any text, and parsed correctly by independent SRT and WebVTT parsers."""

import html
import random
import re
from itertools import pairwise

import numpy as np
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


NOT_FIRST, NOT_LAST = "、。」）々ーっょ…", "「（"  # of the next test


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "彼は「明日の午後三時に東京の駅で会いましょう」と言ったので、私はちょっと驚いてしまった。" * 2,
        "新しいPCは（多分）高いと思っていたけれど、USBで2つのモニターが使えて便利だった…。本当ですよ。" * 2,
        "人々はコーヒーを飲みながらゆっくりとニュースについて話していたが、やがて静かになっていった。" * 2,
    ],
)
def test_japanese_lines_start_and_end_where_they_may(text: str, timed: bool) -> None:
    for cut in range(12):  # other places of the breaks
        one = segment(text[cut:], pace=0.08)
        lines = [line for cue in cues([one if timed else Segment(0.0, 20.0, one.text)], 60.0) for line in cue.lines]
        assert "".join(lines) == text[cut:] and len(lines) > 3
        for before, line in pairwise(lines):
            assert line[0] not in NOT_FIRST and before[-1] not in NOT_LAST, (before, line)
            assert sum(1 if char < "\u2000" else 2 for char in line) <= MAX_COLUMNS


def test_a_line_that_breaks_elsewhere_needs_no_other_cue() -> None:
    (cue,) = cues([segment("彼はそこでずいぶん長くまっていたのだと思う。", pace=0.05)], 60.0)
    assert [len(line) for line in cue.lines] == [11, 11]
    (cue,) = cues([segment("彼はそこでずいぶん長くっていたのだとも思う。", pace=0.05)], 60.0)
    assert sorted(len(line) for line in cue.lines) == [10, 12] and cue.lines[1][0] != "っ"


def test_text_that_cannot_be_broken_well_is_broken() -> None:
    text = "「" * 60 + "。" * 3 + "っ" * 60
    lines = [line for cue in cues([segment(text, pace=0.05)], 60.0) for line in cue.lines]
    assert "".join(lines) == text and max(map(len, lines)) <= MAX_COLUMNS // 2


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
    ] == [(start, end, text.replace("-->", "--›").replace("<b", "‹b")) for start, end, text in expected]
    read = webvtt.from_string(vtt(segments, duration))
    assert [
        (round(1000 * to_seconds(cue.start)), round(1000 * to_seconds(cue.end)), html.unescape(cue.raw_text))
        for cue in read
    ] == expected


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


def hour(rng: random.Random) -> list[Segment]:
    """Segments of 62 minutes: English and Japanese, with and without word times, with and without pauses."""
    english = [
        "yes.",
        "the",
        "a",
        "recording",
        "of",
        "42",
        "unbelievably-long-compound-words",
        "patients,",
        "isn't",
        "&",
    ]
    japanese = ["薬を飲む。", "東京", "「はい」", "ニュース", "、", "コーヒー", "100円", "っ"]
    segments, now = list[Segment](), 0.0
    while now < 62 * 60:
        some = rng.choices(english, k=rng.randint(1, 30)) if rng.random() < 0.5 else rng.choices(japanese, k=8)
        text, start, words = (" " if some[0] in english else "").join(some), now, []
        for a, b in split_words(text):
            begin = now + rng.choice((0.0, 0.01, 0.1, 2.0)) * rng.random()
            now = begin + rng.choice((0.0, 0.0004, 0.3, 1.0)) * rng.random()
            words.append(Word(text[a:b], begin, now))
        segments.append(Segment(start, now, text, tuple(words) if rng.random() < 0.7 else ()))
        now += rng.choice((0.0, 0.0, 3.0)) * rng.random()
    return segments


CLOCK = r"(\d\d):([0-5]\d):([0-5]\d)[.,](\d{3})"


def test_an_hour_is_read_by_parsers() -> None:
    segments = hour(random.Random(1))
    duration = segments[-1].end + 0.5
    written, captions = srt(segments, duration), vtt(segments, duration)
    clocks = re.findall(f"^{CLOCK} --> {CLOCK}$", written, re.MULTILINE)
    assert clocks == re.findall(f"^{CLOCK} --> {CLOCK}$", captions, re.MULTILINE), "each with hours"
    read = list(srt_parser.parse(written, ignore_errors=False))
    assert len(clocks) == len(read) == len(webvtt.from_string(captions)) > 500
    assert [cue.index for cue in read] == list(range(1, len(read) + 1))
    times = [(cue.start.total_seconds(), cue.end.total_seconds()) for cue in read]
    vtt_times = [(to_seconds(cue.start), to_seconds(cue.end)) for cue in webvtt.from_string(captions)]
    assert np.array(vtt_times) == pytest.approx(np.array(times))
    assert times[0][0] < 3 and 3600 < times[-1][0] < times[-1][1] <= duration
    assert all(start < end <= next_start for (start, end), (next_start, _) in pairwise(times))
    assert all(end - start <= MAX_CUE_MS / 1000 + 1e-6 for start, end in times)
    for cue in read:
        assert cue.content.strip() and all(line.strip() for line in cue.content.split("\n"))
    spoken = "".join("".join(segment.text.split()) for segment in segments)
    assert "".join("".join(cue.content.split()) for cue in read) == spoken
    check_word_times(segments, times, [cue.content for cue in read])


def check_word_times(segments: list[Segment], times: list[tuple[float, float]], texts: list[str]) -> None:
    """Each cue starts with the first of its words, to the millisecond; later only if the cue before it ends there."""
    letters = [char for text in texts for char in "".join(text.split())]
    starts = dict[int, float]()  # of words with known times, by the number of their first letter
    number = 0
    for item in segments:
        for (a, b), word in zip(split_words(item.text), item.words or [None] * len(item.text), strict=False):
            if word:
                starts[number] = word.start
            number += len(item.text[a:b].strip())
    assert number == len(letters)
    number = checked = 0
    for index, ((start, _), text) in enumerate(zip(times, texts, strict=True)):
        if number in starts and not (index and start <= times[index - 1][1]):
            assert start == pytest.approx(starts[number], abs=5.1e-4)
            checked += 1
        number += len("".join(text.split()))
    assert checked > 100


INJECTED = [
    "one\n\n2\n00:00:05,000 --> 00:00:06,000\ntwo",
    "one\r\n\r\n00:05.000 --> 00:06.000\r\ntwo",
    "00:00:05,000 --> 00:00:06,000",
    "a\u2028\u2028b\x0b\x0bc\x85\x85d",
    "NOTE a --> b",
    "<i>a</i> &amp; <v Bob> & x < y -->",
    "\n\n \u3000 \n",
]


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("text", INJECTED)
def test_no_text_becomes_a_cue_or_a_tag(text: str, timed: bool) -> None:
    segments = [segment("before"), segment(text, 2.0, timed=timed), segment("after", 20.0)]
    expected = ["".join(" ".join(cue.lines).split()) for cue in cues(segments, 30.0)]
    assert "".join(expected) == "before" + "".join(text.split()) + "after"
    read = list(srt_parser.parse(srt(segments, 30.0), ignore_errors=False))
    found = ["".join(cue.content.split()) for cue in read]
    assert [text.replace("›", ">").replace("‹", "<") for text in found] == expected
    assert not any(re.search("-->|<[a-z/]", cue.content) for cue in read)
    assert [cue.start.total_seconds() for cue in (read[0], read[-1])] == [0, 20]
    captions = webvtt.from_string(vtt(segments, 30.0))
    assert ["".join(html.unescape(cue.raw_text).split()) for cue in captions] == expected
    assert not any(re.search("-->|<|&(?!(amp|lt|gt);)", cue.raw_text) for cue in captions)
    assert len(tsv(segments, 30.0).splitlines()) == 1 + len(expected)


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
    (caption,) = webvtt.from_string(vtt([Segment(seconds, seconds + 1, "x")], seconds + 1))
    assert to_seconds(caption.start) == pytest.approx(cue.start.total_seconds())
