"""Subtitles: the words of a transcript as cues that are short enough to read."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from unicodedata import east_asian_width

from finetune.inference.segments import Segment, join_texts, split_words

COLUMNS, LINES = 42, 2  # a Chinese or Japanese character is two columns wide
LONGEST, SHORTEST = 7000, 1000  # milliseconds; a cue is shorter only where the next one follows
PAUSE = 1500  # milliseconds of silence that no cue bridges
SENTENCE = re.compile(r"[.!?。！？…][\"'”’」』)）]*$")
CLOSING_BONUS = 0.5  # for a cue that ends with its sentence


@dataclass(frozen=True)
class Cue:
    """Lines on the screen from `start` to `end`, in milliseconds."""

    start: int
    end: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Piece:
    """A word, or a part of one too wide for a line; `glue` stands before it where both are on one line."""

    text: str
    glue: str
    start: int
    end: int


def cues(segments: Sequence[Segment]) -> list[Cue]:
    """Cues of at most two lines of 42 columns and 7 seconds, in order, without overlap.

    Of all ways to cut a segment at its words, the one with few cues of like length that end with sentences.
    """
    found = [cue for segment in segments for cue in _cut(_pieces(segment))]
    placed: list[Cue] = []
    for number, cue in enumerate(found):
        start = max(cue.start, placed[-1].end) if placed else cue.start
        end = min(max(cue.end, start + SHORTEST), start + LONGEST)
        if number + 1 < len(found):
            end = min(end, max(found[number + 1].start, start + 1))
        placed.append(Cue(start, end, cue.lines))
    return placed


def srt(segments: Sequence[Segment]) -> str:
    """SubRip."""
    return "\n".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n" + "\n".join(cue.lines) + "\n"
        for number, cue in enumerate(cues(segments), start=1)
    )


def vtt(segments: Sequence[Segment]) -> str:
    """WebVTT (w3.org/TR/webvtt1)."""

    def safe(line: str) -> str:
        return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

    return "WEBVTT\n" + "".join(
        f"\n{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n" + "\n".join(map(safe, cue.lines)) + "\n"
        for cue in cues(segments)
    )


def tsv(segments: Sequence[Segment]) -> str:
    """A table of cues: start and end in milliseconds, text."""
    rows = (f"{cue.start}\t{cue.end}\t{join_texts(cue.lines)}" for cue in cues(segments))
    return "\n".join(["start\tend\ttext", *rows])


def _pieces(segment: Segment) -> list[_Piece]:
    """The segment's words with their times; spread over it by their widths where it has none."""
    spans = split_words(segment.text)
    if segment.words:
        times = [(word.start, word.end) for word in segment.words]
    else:
        edges = [0, *accumulate(_width(segment.text[a:b]) for a, b in spans)]
        scale = (segment.end - segment.start) / max(1, edges[-1])
        times = [(segment.start + a * scale, segment.start + b * scale) for a, b in pairwise(edges)]
    pieces = []
    for number, ((begin, stop), (start, end)) in enumerate(zip(spans, times, strict=True)):
        glue = " " if number and begin > spans[number - 1][1] else ""
        for part in filter(str.strip, _narrow(segment.text[begin:stop])):  # a wide space may stand for a word
            pieces.append(_Piece(part, glue, round(1000 * start), round(1000 * end)))
            glue = ""
    return pieces


def _narrow(word: str) -> list[str]:
    """A word in parts that fit a line; nearly always one."""
    parts, wide = [""], 0
    for char in word:
        wide += _width(char)
        if wide > COLUMNS:
            parts.append("")
            wide = _width(char)
        parts[-1] += char
    return parts


def _cut(pieces: list[_Piece]) -> list[Cue]:
    """The cheapest way to cut, found from the front: `best[i]` is the cost of all before piece i, and where it cuts."""
    edges = [0, *accumulate(len(piece.glue) + _width(piece.text) for piece in pieces)]

    def width(first: int, stop: int) -> int:
        return edges[stop] - edges[first] - len(pieces[first].glue)

    def fold(first: int, stop: int) -> int | None:
        """Where the second line begins, `stop` if there is none, None if two are not enough."""
        if width(first, stop) <= COLUMNS:
            return stop
        wide, at = min((max(width(first, at), width(at, stop)), at) for at in range(first + 1, stop))
        return at if wide <= COLUMNS else None

    best = [(0.0, 0, 0)]
    for stop in range(1, len(pieces) + 1):
        bonus = CLOSING_BONUS if SENTENCE.search(pieces[stop - 1].text) else 0.0
        options = []
        for first in reversed(range(stop)):
            alone = first == stop - 1
            late = not alone and (
                pieces[first + 1].start - pieces[first].end > PAUSE
                or pieces[stop - 1].end > pieces[first].start + LONGEST
            )
            at = fold(first, stop)
            if late or at is None:
                break
            spare = 1 - width(first, stop) / (COLUMNS * LINES)
            options.append((best[first][0] + 1 + spare**2 - bonus, first, at))
        best.append(min(options))
    found: list[Cue] = []
    stop = len(pieces)
    while stop:
        _, first, at = best[stop]
        lines = [
            "".join(piece.glue + piece.text for piece in some).strip()
            for some in (pieces[first:at], pieces[at:stop])
            if some
        ]
        found.append(Cue(pieces[first].start, min(pieces[stop - 1].end, pieces[first].start + LONGEST), tuple(lines)))
        stop = first
    return found[::-1]


def _width(text: str) -> int:
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def _clock(milliseconds: int, comma: str) -> str:
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{comma}{rest % 1000:03d}"
