"""Timed segments and words, and how texts are split into words and joined."""

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
    """A word and its place in the audio, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Segment:
    """The text of one window of audio, from `start` to `end` seconds.

    `words` are those of `split_words`; empty if their times are not known.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()


def split_words(text: str) -> list[tuple[int, int]]:
    """Start and end of each word in `text`. In Japanese and Chinese each character is a word."""
    return [match.span() for match in WORD.finditer(text)]


def join_texts(texts: Iterable[str]) -> str:
    """Joins texts with spaces, without one between Japanese or Chinese characters."""

    def append(text: str, piece: str) -> str:
        return f"{text}{'' if SEAM.fullmatch(text[-1:] + piece[:1]) else ' '}{piece}"

    filled = [piece for piece in texts if piece]
    return reduce(append, filled[1:], filled[0]) if filled else ""
