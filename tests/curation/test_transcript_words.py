"""Words of a transcript keep their written form, and have the labels of their spoken form."""

import pytest

from finetune.curation.transcript_words import transcript_words
from finetune.model.ctc import to_text


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("Hello, World!", "en", [("Hello,", "hello"), ("World!", "world")]),
        ("wait - what ...", "en", [("wait -", "wait"), ("what ...", "what")]),
        ("... wait", "en", [("...", ""), ("wait", "wait")]),
        ("at 25 cats", "en", [("at", "at"), ("25", "twenty five"), ("cats", "cats")]),
        ("25 Katzen", "de-DE", [("25", "fünfundzwanzig"), ("Katzen", "katzen")]),
        ("105 cats", "en", [("105", "one hundred and five"), ("cats", "cats")]),
        ("25 cats", "xx", [("25", "25"), ("cats", "cats")]),
        ("it\u2019s R&D & more", "en", [("it\u2019s", "it's"), ("R&D", "rd"), ("&", ""), ("more", "more")]),
        ("薬を飲む", "ja", [("薬", ""), ("を", "ヲ"), ("飲", ""), ("む", "ム")]),
        ("", "en", []),
    ],
)
def test_words(text: str, language: str, words: list[tuple[str, str]]) -> None:
    found = transcript_words(text, language)
    assert [(text[word.start : word.end], to_text(list(word.labels))) for word in found] == words
