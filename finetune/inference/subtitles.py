"""Writes subtitles (SRT, WebVTT, TSV): groups the words of a transcript into cues that are short enough to read."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from unicodedata import east_asian_width

from finetune.inference.segments import Segment, join_texts, split_words

MAX_COLUMNS, MAX_LINES = 42, 2  # a Chinese or Japanese character is two columns wide
MAX_CUE_MS, MIN_CUE_MS = 7000, 1000  # a cue is shorter than the minimum only if the next cue or the audio's end follows
MAX_PAUSE_MS = 1500  # a cue does not span a longer pause
SENTENCE = re.compile(r"[.!?。！？…][\"'”’」』)）]*$")
SENTENCE_BONUS = 0.5  # cost reduction for a cue that ends with a sentence
BAD_BREAK = 5.0  # cost of a cue that starts in the middle of what belongs together in Chinese or Japanese
# What no line starts with, and what no line ends with (the Japanese rules of line breaking, kinsoku).
NOT_FIRST = set(
    "、。，．・：；？！ヽヾゝゞ々ー）］｝」』】〉》〕〗〙”’…‥〜～％゛゜ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ｡｣､･ｰﾞﾟ"
)
NOT_LAST = set("（［｛「『【〈《〔〖〘“‘｢￥")
TAG = re.compile("<(?=[A-Za-z/!])")


@dataclass(frozen=True)
class Cue:
    """Subtitle lines shown from `start` to `end`, in milliseconds."""

    start: int
    end: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Fragment:
    """A word, or a part of a word that is too wide for a line; times in milliseconds."""

    text: str
    separator: str  # between the previous fragment and this one on the same line
    start: int
    end: int


def cues(segments: Sequence[Segment], duration: float) -> list[Cue]:
    """Splits segments into cues of at most two lines of 42 columns and 7 seconds, in order and without overlap.

    Each segment is split at words, with few cues of similar length that end with sentences. No cue ends after the
    audio, which has `duration` seconds.
    """
    drafts = [cue for segment in segments for cue in _split_into_cues(_fragments(segment))]
    timed: list[Cue] = []
    for number, cue in enumerate(drafts):
        start = max(cue.start, timed[-1].end) if timed else cue.start
        end = min(max(cue.end, start + MIN_CUE_MS), start + MAX_CUE_MS)
        if number + 1 < len(drafts):
            end = min(end, max(drafts[number + 1].start, start + 1))
        timed.append(Cue(start, end, cue.lines))
    limit = int(1000 * duration + 1e-6)
    for number in reversed(range(len(timed))):
        end = min(timed[number].end, limit)
        limit = max(0, min(timed[number].start, end - 1))
        timed[number] = Cue(limit, end, timed[number].lines)
    return timed


def srt(segments: Sequence[Segment], duration: float) -> str:
    """Cues in SubRip format.

    The format has no escapes. So that no text is taken for times or for a tag, `-->` becomes `--›`, and `<b>` `‹b>`.
    """

    def neutral(line: str) -> str:
        return TAG.sub("‹", line.replace("-->", "--›"))

    return "\n".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n" + "\n".join(map(neutral, cue.lines)) + "\n"
        for number, cue in enumerate(cues(segments, duration), start=1)
    )


def vtt(segments: Sequence[Segment], duration: float) -> str:
    """Cues in WebVTT format (w3.org/TR/webvtt1)."""

    def escape(line: str) -> str:
        return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

    return "WEBVTT\n" + "".join(
        f"\n{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n" + "\n".join(map(escape, cue.lines)) + "\n"
        for cue in cues(segments, duration)
    )


def tsv(segments: Sequence[Segment], duration: float) -> str:
    """Cues as tab-separated values: start and end in milliseconds, and text."""
    rows = (f"{cue.start}\t{cue.end}\t{join_texts(cue.lines)}" for cue in cues(segments, duration))
    return "\n".join(["start\tend\ttext", *rows])


def _fragments(segment: Segment) -> list[_Fragment]:
    """The segment's words with their times; without word times, in proportion to their widths."""
    spans = split_words(segment.text)
    if segment.words:
        times = [(word.start, word.end) for word in segment.words]
    else:
        edges = [0, *accumulate(_width(segment.text[a:b]) for a, b in spans)]
        scale = (segment.end - segment.start) / max(1, edges[-1])
        times = [(segment.start + a * scale, segment.start + b * scale) for a, b in pairwise(edges)]
    fragments = []
    for number, ((begin, stop), (start, end)) in enumerate(zip(spans, times, strict=True)):
        separator = " " if number and begin > spans[number - 1][1] else ""
        for part in filter(
            str.strip, _split_wide_word(segment.text[begin:stop])
        ):  # `split_words` gives a full-width space as a word
            fragments.append(_Fragment(part, separator, round(1000 * start), round(1000 * end)))
            separator = ""
    return fragments


def _split_wide_word(word: str) -> list[str]:
    """Splits a word into parts that fit on a line; almost always one part."""
    parts, columns = [""], 0
    for char in word:
        columns += _width(char)
        if columns > MAX_COLUMNS:
            parts.append("")
            columns = _width(char)
        parts[-1] += char
    return parts


def _split_into_cues(fragments: list[_Fragment]) -> list[Cue]:
    """Splits a segment at minimum cost by dynamic programming.

    `best[i]` describes the first i fragments: their cost, the first fragment of their last cue, and the fragment that
    starts its second line (i if there is one line).
    """
    edges = [0, *accumulate(len(fragment.separator) + _width(fragment.text) for fragment in fragments)]
    bad = [False, *(_belong_together(one, two) for one, two in pairwise(fragments))]  # a break before a fragment

    def width(first: int, stop: int) -> int:
        return edges[stop] - edges[first] - len(fragments[first].separator)

    def line_break(first: int, stop: int) -> int | None:
        """The fragment that starts the second line; `stop` if one line is enough, None if two lines are not enough."""
        if width(first, stop) <= MAX_COLUMNS:
            return stop
        widths = ((max(width(first, at), width(at, stop)), at) for at in range(first + 1, stop))
        possible = [(bad[at], columns, at) for columns, at in widths if columns <= MAX_COLUMNS]
        return min(possible)[2] if possible else None

    best = [(0.0, 0, 0)]
    for stop in range(1, len(fragments) + 1):
        bonus = SENTENCE_BONUS if SENTENCE.search(fragments[stop - 1].text) else 0.0
        options = []
        for first in reversed(range(stop)):
            too_long = first < stop - 1 and (
                fragments[first + 1].start - fragments[first].end > MAX_PAUSE_MS
                or fragments[stop - 1].end > fragments[first].start + MAX_CUE_MS
            )
            at = line_break(first, stop)
            if too_long or at is None:
                break
            unused = 1 - width(first, stop) / (MAX_COLUMNS * MAX_LINES)
            bad_breaks = bad[first] + (at < stop and bad[at])
            options.append((best[first][0] + 1 + unused**2 - bonus + BAD_BREAK * bad_breaks, first, at))
        best.append(min(options))
    result: list[Cue] = []
    stop = len(fragments)
    while stop:
        _, first, at = best[stop]
        lines = [
            "".join(fragment.separator + fragment.text for fragment in line).strip()
            for line in (fragments[first:at], fragments[at:stop])
            if line
        ]
        result.append(
            Cue(fragments[first].start, min(fragments[stop - 1].end, fragments[first].start + MAX_CUE_MS), tuple(lines))
        )
        stop = first
    return result[::-1]


def _belong_together(one: _Fragment, two: _Fragment) -> bool:
    """Whether no line ends between two fragments, if possible."""
    return not two.separator and (two.text[0] in NOT_FIRST or one.text[-1] in NOT_LAST)


def _width(text: str) -> int:
    """Width in columns."""
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def _clock(milliseconds: int, decimal_mark: str) -> str:
    """A time as hours:minutes:seconds and milliseconds."""
    hours, remainder = divmod(milliseconds, 3_600_000)
    minutes, remainder = divmod(remainder, 60_000)
    return f"{hours:02d}:{minutes:02d}:{remainder // 1000:02d}{decimal_mark}{remainder % 1000:03d}"
