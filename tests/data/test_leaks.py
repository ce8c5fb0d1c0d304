"""Leaks between splits: identical and overlapping audio, sentences, speakers."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.data.leak_text import num_words
from finetune.data.leaks import find_leaks, is_refused
from finetune.data.manifest import Utterance
from finetune.data.problems import ADVICE


def item(name: str, text: str = "", path: str = "", speaker: str = "", digest: str = "") -> Utterance:
    return Utterance(name, path or f"/{name}.wav", 2.0, text, speaker=speaker, audio_digest=digest)


def kinds(train: list[Utterance], scored: list[Utterance]) -> list[tuple[str, str]]:
    problems = find_leaks(train, scored)
    assert all(problem.kind.partition(" also in ")[0] in ADVICE for problem in problems)
    return [(problem.kind.removesuffix(" also in train"), problem.id) for problem in problems]


def test_the_same_samples_leak_under_another_name_and_with_another_transcript() -> None:
    train = [item("a", "close the blue door now", digest="d1"), item("b", "one", digest="d2"), item("c", "x")]
    scored = [item("x", "close the red door now", digest="d1"), item("y", "one", digest="d3"), item("z", "new words")]
    assert kinds(train, scored) == [("audio", "x"), ("short sentence", "y")]
    assert "there 'close the blue door now'" in find_leaks(train, scored)[0].detail
    assert [is_refused(leak) for leak in find_leaks(train, scored)] == [True, False]


@pytest.mark.parametrize(
    ("offset", "duration", "seconds"),
    [
        (10.0, 4.0, 4.0),
        (8.0, 2.5, 0),  # 0.5 s
        (8.0, 2.6, 0.6),
        (13.4, 5.0, 0.6),
        (13.6, 5.0, 0),
        (6.0, 4.0, 0),
        (14.0, 2.0, 0),
        (11.0, 0.4, 0.4),  # short, but complete
        (9.7, 0.5, 0),  # 0.2 s of 0.5 s
        (9.8, 0.5, 0.3),
        (0.0, 60.0, 4.0),
    ],
)
def test_overlapping_segments_of_one_file(offset: float, duration: float, seconds: float) -> None:
    train = [
        Utterance("long", "/call.wav", 1.0, "first", offset=0.0),
        Utterance("a", "/call.wav", 4.0, "some", offset=10.0),
        Utterance("b", "/call.wav", 1.0, "other", offset=90.0),
    ]
    segment = Utterance("x", "/call.wav", duration, "words", offset=offset)
    found = [leak for leak in find_leaks(train[1:], [segment]) if is_refused(leak)]
    assert [(leak.kind, leak.detail) for leak in found] == (
        [("overlapping audio also in train", f"{seconds:.2f} s are also in a")] if seconds else []
    )
    assert not find_leaks(train, [replace(segment, audio_filepath="/other.wav")])


def test_segments_are_compared_in_every_file() -> None:
    train = [Utterance(f"t{n}", f"/{n}.wav", 4.0, "", offset=5.0 * (n % 3)) for n in range(9)]
    scored = [Utterance(f"x{n}", f"/{n}.wav", 4.0, "", offset=5.0) for n in range(12)]
    leaks = find_leaks(train, scored)
    assert [(leak.id, leak.detail) for leak in leaks] == [(f"x{n}", f"4.00 s are also in t{n}") for n in (1, 4, 7)]


def test_the_last_copy_in_train_is_named() -> None:
    train = [item(f"t{n}", "say four words now", speaker="s", digest="d") for n in range(3)]
    found = find_leaks(
        train, [item("x", "Say four words now!", digest="d"), item("y", "say, four words now", speaker="s")]
    )
    assert [leak.detail.partition(" (")[0].partition(":")[0] for leak in found] == [
        "same samples as t2",
        "t2",
        "'s', as in t2",
    ]


def test_a_long_segment_before_the_others_is_found() -> None:
    train = [Utterance(f"t{n}", "/a.wav", 80.0 if n == 0 else 1.0, "", offset=n * 2.0) for n in range(20)]
    assert "t0" in find_leaks(train, [Utterance("x", "/a.wav", 2.0, "", offset=70.0)])[0].detail


@pytest.mark.parametrize(
    ("first", "second", "leaks"), [(0, 1, False), (1, 1, True), (None, 1, True), (0, None, True), (None, None, True)]
)
def test_the_two_sides_of_a_call_do_not_overlap(first: int | None, second: int | None, leaks: bool) -> None:
    call = item("a", "one", "/call.wav")
    found = find_leaks([replace(call, channel=first)], [replace(call, id="x", text="two", channel=second)])
    assert bool(found) == leaks


def test_equal_sentences_in_other_recordings_are_warnings() -> None:
    train = [item("a", "Guten Tag, Herr Maier, bitte kommen!", speaker="s1"), item("b", "...", speaker="s2")]
    scored = [
        item("x", "guten tag herr maier bitte kommen"),
        item("y", "?"),
        item("z", "new", speaker="s1"),
        item("w", "newer", speaker="s1"),
        item("v", "fine", speaker="s3"),
    ]
    assert kinds(train, scored) == [("sentence", "x"), ("speaker", "z")]
    assert not any(map(is_refused, find_leaks(train, scored)))
    assert find_leaks(train, []) == []
    assert find_leaks(train, scored[:1], "replay")[0].kind == "sentence also in replay"


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("\u4f60\u597d\u4e16\u754c\u4eca\u5929\u597d", "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u4eca\u5929 \u597d\uff01"),
        ("\u3044\u3044 3 D \u3067\u3059\u304b\u306d\u4eca", "\u3044\u30443 D\u3067\u3059\u304b\u306d\u3001\u4eca"),
    ],
)
def test_sentences_without_spaces_are_equal_with_other_punctuation(text: str, other: str) -> None:
    assert kinds([item("a", text)], [item("x", other)]) == [("sentence", "x")]


def test_overlapping_segments_of_a_hard_link(tmp_path: Path) -> None:
    first, second = tmp_path / "a.wav", tmp_path / "b.wav"
    first.write_bytes(b"RIFF")
    second.hardlink_to(first)
    assert kinds([item("a", path=str(first))], [item("x", path=str(second))]) == [("overlapping audio", "x")]


def test_a_sentence_of_four_words_is_not_short() -> None:
    train = [item("a", "turn on the light"), item("b", "turn it on")]
    assert kinds(train, [item("x", "Turn on the light."), item("y", "Turn it on.")]) == [
        ("sentence", "x"),
        ("short sentence", "y"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [("turn it on", 3), ("", 0), ("今日はいい天気ですね", 5), ("はい", 1), ("打开灯 now", 2), ("한국어 문장", 2)],
)
def test_words_of_scripts_without_spaces_are_counted_by_characters(text: str, words: int) -> None:
    assert num_words(text) == words


def test_large_splits_take_seconds() -> None:
    """One long recording with 100,000 segments is the worst case."""
    train = [
        Utterance(f"t{n}", "/a.wav", 1.0, f"sentence {n}", offset=2.0 * n, audio_digest=f"{n}") for n in range(10**5)
    ]
    test = [Utterance(f"x{n}", "/a.wav", 0.9, f"text {n}", offset=2.0 * n + 1.05) for n in range(10**4)]
    started = time.monotonic()
    assert find_leaks(train, test) == []
    assert time.monotonic() - started < 10
