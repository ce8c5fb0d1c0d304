"""Reads NIST's files of transcripts: STM (segments, as in TED-LIUM) and CTM (words, as from an aligner)."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from finetune.data.cells import cell_number
from finetune.data.formats.cues import Annotation, Cue, join_words
from finetune.data.tags import is_known

NOT_SCORED = {"ignore_time_segment_in_scoring", "excluded_region", "inter_segment_gap"}
NO_NAME = ("unknown", "unk", "na", "null", "<na>")  # of a speaker
EMPTY_WORDS = ("", "<eps>", "<sil>", "sil", "@")
SIDES = {"A": 0, "B": 1}
ALTERNATIVES = re.compile(r"\{\s([^{}]*\s/\s[^{}]*)\}")  # { a / b }: the scorer accepts either
OPTIONAL = re.compile(r"(?<!\S)\(([^\s()]+)\)(?!\S)")  # (a): the scorer accepts its absence


def parse_stm(text: str) -> Annotation:
    """The segments of an STM file: waveform, channel, speaker, start, end, labels such as `<o,f0,male>`, words.

    Raises:
        ValueError: a line has another form.
    """
    cues, channels, notes = list[Cue](), list[str](), Counter[str]()
    for where, line in _lines(text):
        cells = line.split(None, 5)
        start, end = (cell_number(cell) for cell in (cells[3:5] if len(cells) > 4 else ("", "")))
        if start is None or end is None:
            raise ValueError(f"{where}: not a line of STM (file, channel, speaker, start, end, words): {line[:60]!r}")
        words, label = cells[5] if len(cells) > 5 else "", ""
        if words.startswith("<") and ">" in words:
            label, _, words = words[1:].partition(">")
        if {cells[2].lower(), words.strip().lower()} & NOT_SCORED:
            notes["segments that are not scored (ignore_time_segment_in_scoring) are not read"] += 1
            continue
        speaker = "" if cells[2].lower() in NO_NAME else cells[2]
        words = one_reading(words, notes)
        extra: dict[str, object] = {"stm_label": label} if label else {}
        cues.append(Cue(where, start, end, words.strip() or None, speaker, None, cells[0], extra))
        channels.append(cells[1])
    if not cues:
        raise ValueError(": no segments of STM")
    return Annotation(_with_channels(cues, channels), notes)


def parse_ctm(text: str) -> Annotation:
    """Segments of the words of a CTM file: waveform, channel, start, duration, word, confidence, kind, speaker.

    Raises:
        ValueError: a line has another form, or the file has alternatives.
    """
    words, channels, notes = list[Cue](), list[str](), Counter[str]()
    for where, line in _lines(text):
        cells = line.split()
        if len(cells) > 4 and cells[4].upper().startswith("<ALT"):
            raise ValueError(f"{where}: alternatives ({cells[4]}) are not read; keep one of them")
        start, duration = (cell_number(cell) for cell in (cells[2:4] if len(cells) > 4 else ("", "")))
        if start is None or duration is None or start < 0 or duration < 0:
            raise ValueError(f"{where}: not a line of CTM (file, channel, start, duration, word): {line[:60]!r}")
        if cells[4].lower() in EMPTY_WORDS:
            notes["silences are not read"] += 1
            continue
        confidence = cell_number(cells[5]) if len(cells) > 5 else None
        extra: dict[str, object] = {} if confidence is None else {"confidence": confidence}
        speaker = cells[7] if len(cells) > 7 and cells[7].lower() not in NO_NAME else ""
        words.append(Cue(where, start, round(start + duration, 6), cells[4], speaker, None, cells[0], extra))
        channels.append(cells[1])
    if not words:
        raise ValueError(": no words of CTM")
    notes["words are joined to segments at pauses"] += len(words)
    return Annotation(join_words(_with_channels(words, channels)), notes)


def one_reading(words: str, notes: Counter[str]) -> str:
    """Words with the first of each alternatives, and optional words without brackets; `notes` counts both."""

    def first(match: re.Match[str]) -> str:
        notes["of alternatives { a / b }, the first one with words is read"] += 1
        parts = (part.strip() for part in re.split(r"\s/\s", f" {match[1]} "))
        return next((part for part in parts if part not in EMPTY_WORDS), "")

    def optional(match: re.Match[str]) -> str:
        if is_known(match[1]) and not match[1].startswith("%"):  # (applause)
            return match[0]
        notes["brackets of optional words (a) are removed"] += 1
        return match[1]

    before = None
    while before != words:  # alternatives can contain others
        before, words = words, ALTERNATIVES.sub(first, words)
    return " ".join(OPTIONAL.sub(optional, words).split())


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """The lines that are not comments, each with its position."""
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        if line.strip() and not line.lstrip().startswith(";;"):
            yield f":{number}", line.strip()


def _with_channels(cues: Sequence[Cue], names: Sequence[str]) -> list[Cue]:
    """The cues with channels from 0. Their names are A and B, or begin with 1, unless one is 0.

    Raises:
        ValueError: a name is something else.
    """
    first = 0 if "0" in names else 1
    result = []
    for cue, name in zip(cues, names, strict=True):
        if name.upper() not in SIDES and not name.isdecimal():
            raise ValueError(f"{cue.where}: channel {name[:20]!r} is not A, B, 1 or 2")
        result.append(replace(cue, channel=SIDES.get(name.upper(), int(name) - first if name.isdecimal() else 0)))
    return result
