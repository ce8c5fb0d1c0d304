"""Reads TextGrids of Praat, in the long and the short form: each interval with words is a part of the recording."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from finetune.data.formats.cues import Annotation, Cue
from finetune.data.formats.tiers import Tier, cues_of_tiers

TOKEN = re.compile(r'![^\n]*|"(?:[^"]|"")*"|[^\s"]+')
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def parse_textgrid(text: str) -> Annotation:
    """The intervals of all tiers of speakers; tiers of points, phones and syllables are left out.

    Praat reads free-standing numbers, strings and flags, and takes everything else (`xmin =`, `intervals [1]:`) as
    comments. So one reader reads both forms.

    Raises:
        ValueError: the text is not a TextGrid, or ends too early.
    """
    tokens = _Tokens(iter(_values(text)))
    kind = [tokens.string(), tokens.string()]
    if kind[0] not in ("ooTextFile", "ooTextFile short") or kind[1] != "TextGrid":
        raise ValueError(f": not a TextGrid of Praat ({' '.join(kind)[:60]!r})")
    tokens.number()
    tokens.number()
    tiers, notes = list[Tier](), Counter[str]()
    for _ in range(tokens.count()):
        is_interval, name = tokens.string() == "IntervalTier", tokens.string()
        tokens.number()
        tokens.number()
        cues = list[Cue]()
        for number in range(1, tokens.count() + 1):
            start = tokens.number()
            end = tokens.number() if is_interval else start
            mark = " ".join(tokens.string().split())
            cues.append(Cue(f": tier {name!r}, interval {number}", start, end, mark))
        if is_interval:
            tiers.append(Tier(name, cues))
        elif cues:
            notes["points of point tiers are not read"] += len(cues)
    return cues_of_tiers(tiers, notes)


def _values(text: str) -> Iterator[str | float]:
    """The free-standing strings, as text that begins with a quote, and numbers."""
    for match in TOKEN.finditer(text.lstrip("\ufeff")):
        token = match[0]
        if token.startswith('"'):
            yield token[1:-1].replace('""', '"') if token != '"' else ""
        elif NUMBER.fullmatch(token):
            yield float(token)


@dataclass
class _Tokens:
    values: Iterator[str | float]

    def string(self) -> str:
        value = next(self.values, None)
        if not isinstance(value, str):
            raise ValueError(f": damaged TextGrid: {_shown(value)} instead of a text")
        return value

    def number(self) -> float:
        value = next(self.values, None)
        if not isinstance(value, float) or not math.isfinite(value):
            raise ValueError(f": damaged TextGrid: {_shown(value)} instead of a number")
        return value

    def count(self) -> int:
        return int(self.number())


def _shown(value: object) -> str:
    return "the end of the file" if value is None else repr(value)[:60]
