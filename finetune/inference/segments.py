"""Segments and words with times; splits a text into words and joins texts."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

# Scripts without spaces between words: kana, Chinese characters, their punctuation and full-width forms.
UNSPACED = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
CLOSING = "、。，．・！？）」』】ー"  # stays with the character before it
WORD = re.compile(f"[{UNSPACED}][{CLOSING}]*|[^\\s{UNSPACED}]+")
SEAM = re.compile(f"[{UNSPACED}][{UNSPACED}]")


@dataclass(frozen=True)
class Word:
    """A word and its times in the audio, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Segment:
    """The text of one window of audio, from `start` to `end` seconds.

    `words` are the words of `split_words`; empty if their times are not known.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()


def split_words(text: str) -> list[tuple[int, int]]:
    """Start and end of each word in `text`. In Japanese and Chinese each character is a word."""
    return [match.span() for match in WORD.finditer(text)]


def join_texts(texts: Iterable[str]) -> str:
    """Joins texts with spaces, but without a space between Japanese or Chinese characters."""

    def append(text: str, next_text: str) -> str:
        return f"{text}{'' if SEAM.fullmatch(text[-1:] + next_text[:1]) else ' '}{next_text}"

    non_empty = [text for text in texts if text]
    return reduce(append, non_empty[1:], non_empty[0]) if non_empty else ""
