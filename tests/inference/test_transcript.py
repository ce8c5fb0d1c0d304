"""Joins the texts of windows, splits words, and writes transcripts as JSON."""

import json

import pytest

from finetune.inference.segments import Segment, Word, join_texts, split_words
from finetune.inference.transcript import Transcript


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["the first", "and the second"], "the first and the second"),
        (["", "one", "", "two", ""], "one two"),
        (["薬を", "飲みます。", "はい"], "薬を飲みます。はい"),
        (["グラナイト", "granite", "モデル"], "グラナイト granite モデル"),
        (["今日は。", "ok"], "今日は。 ok"),
        ([], ""),
        ([""], ""),
    ],
)
def test_windows_are_joined_as_their_script_is_written(pieces: list[str], text: str) -> None:
    assert join_texts(pieces) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("two words", ["two", "words"]),
        ("it's 3.5 mg", ["it's", "3.5", "mg"]),
        ("薬を飲む。はい", ["薬", "を", "飲", "む。", "は", "い"]),
        ("スーパーAB店", ["スー", "パー", "AB", "店"]),
        ("  ", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in split_words(text)] == words


def test_json_has_segments_and_words_with_their_times() -> None:
    segments = (
        Segment(0.0, 1.23456, "hi you", (Word("hi", 0.1, 0.30001), Word("you", 0.4, 0.5))),
        Segment(2.0, 3.0, "salut"),
    )
    line = Transcript("a.wav", "hi you salut", 3.00001, segments, "en", 0.5, 0.9, True).to_json()
    assert "\n" not in line
    assert json.loads(line) == {
        "audio_filepath": "a.wav",
        "duration": 3.0,
        "text": "hi you salut",
        "language": "en",
        "truncated": True,
        "no_speech_windows": 0,
        "segments": [
            {
                "id": 0,
                "start": 0.0,
                "end": 1.235,
                "text": "hi you",
                "words": [{"word": "hi", "start": 0.1, "end": 0.3}, {"word": "you", "start": 0.4, "end": 0.5}],
            },
            {"id": 1, "start": 2.0, "end": 3.0, "text": "salut"},
        ],
    }
    silent = json.loads(Transcript("a.wav", "", 3.0, (), "", 0.5, None, False).to_json())
    assert silent == {
        "audio_filepath": "a.wav",
        "duration": 3.0,
        "text": "",
        "segments": [],
        "truncated": False,
        "no_speech_windows": 0,
    }
