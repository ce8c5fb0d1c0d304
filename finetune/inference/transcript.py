"""What was heard in a file: text, segments, words; and how texts are split into words and joined."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

# Scripts written without spaces: kana, Chinese characters, their punctuation and full-width forms.
UNSPACED = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
CLOSING = "、。，．・！？）」』】ー"  # never alone: it stays with what stands before it
WORD = re.compile(f"[{UNSPACED}][{CLOSING}]*|[^\\s{UNSPACED}]+")
SEAM = re.compile(f"[{UNSPACED}][{UNSPACED}]")


@dataclass(frozen=True)
class Word:
    """A word and its place in the file, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Segment:
    """What was heard in one window, whose place in the file is `start` to `end` seconds.

    `words` are those of `split_words`, or none where their times are not known.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Transcript:
    """What was heard in one file of `duration` seconds; a window without speech has no segment.

    `seconds` is computing time, `acceptance` the share of draft tokens kept; `truncated` says that a window's text
    reached the limit of tokens; `language` is of the text, where it is known.
    """

    path: str
    text: str
    duration: float
    segments: tuple[Segment, ...]
    language: str
    seconds: float
    acceptance: float | None
    truncated: bool


def split_words(text: str) -> list[tuple[int, int]]:
    """Where words begin and end in `text`; in Japanese and Chinese each character is one."""
    return [match.span() for match in WORD.finditer(text)]


def joined(pieces: Iterable[str]) -> str:
    """Texts of windows as one: a space between two of them, and none between Japanese or Chinese characters."""

    def append(text: str, piece: str) -> str:
        return f"{text}{'' if SEAM.fullmatch(text[-1:] + piece[:1]) else ' '}{piece}"

    filled = [piece for piece in pieces if piece]
    return reduce(append, filled[1:], filled[0]) if filled else ""


def as_json(transcript: Transcript) -> str:
    """One line; keys as in OpenAI's and IBM's transcripts, times in seconds."""
    content: dict[str, Any] = {
        "audio_filepath": transcript.path,
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
        "segments": [_segment(number, segment) for number, segment in enumerate(transcript.segments)],
    }
    if transcript.language:
        content["language"] = transcript.language
    return json.dumps({**content, "truncated": transcript.truncated}, ensure_ascii=False)


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    content = {"id": number, "start": round(segment.start, 3), "end": round(segment.end, 3), "text": segment.text}
    words = [{"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)} for word in segment.words]
    return {**content, "words": words} if words else content
