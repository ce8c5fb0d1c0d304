"""Reads subtitles (SubRip and WebVTT) and the label files of Audacity: each cue is a part of the recording."""

import html
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from finetune.core.wording import count
from finetune.data.cells import cell_seconds
from finetune.data.formats.cues import Annotation, Cue
from finetune.data.subtitle_credits import is_credit
from finetune.metrics.scripts import main_script
from finetune.metrics.written_language import PROFILES, other_language

CLOCK = r"(?:\d+:)?\d{1,2}:\d{1,2}(?:[.,]\d+)?"
TIMING = re.compile(rf"\s*(?P<start>{CLOCK})\s*-->\s*(?P<end>{CLOCK})(?P<settings>\s.*)?\s*")
# A line that is meant as the times of a cue, such as `00:00:01,000 -> 00:00:02,500` or `00:00:01:000 --> 00:00:02:500`.
WRONG_TIMING = re.compile(r"[\s-]*\d+\s*:\s*\d\d[\s\d:.,;]*(?:(?:[-–—=]+\s*>|→|⇒)|[-–—]+\s*\d+:\d\d\S*[.,]\d{2,3}\s*$)")
TAG = re.compile(
    r"</?(?:i|b|u|s|font|c|v|lang|ruby|rt)(?:[.\s][^<>]*)?>"  # <i>, <font color="red">, <c.yellow>, <v Name>
    rf"|<{CLOCK}>"  # the time of a word
    r"|\{\\[^{}]*\}|\{/?[biu]\}|\{[yYcCfFsSpPhH]:[^{}]*\}",  # {\an8}, {b}, {y:i}
    re.IGNORECASE,
)
VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s+(?P<name>[^<>]+)>", re.IGNORECASE)
# Before the text: "Mary Ann: hello" in transcripts of Zoom, "[SPEAKER_00]: hello" in those of WhisperX.
SPEAKER = re.compile(r"(?P<bracket>\[)?(?P<name>[^\W\d_][\w .'’()-]{0,39}?)(?(bracket)\]):\s+(?=\S)")
HEADING = re.compile(r"(?:unknown speaker|(?:speaker|sprecher|locuteur|hablante)[ _-]*\d+):?", re.IGNORECASE)
NUMBER = re.compile(r"(\d+)[.:)]?(?:\s+|$)")  # of a line
QUESTION = re.compile(r"([QA])[.:]\s+")  # of an interview or a deposition
DIALOGUE = re.compile(r"^[-‐–—―]+(?:\s+|(?=[^\W\d]))")  # "- Good morning.", "-Yes.": a line of another speaker
NOT_CUES = ("WEBVTT", "NOTE", "STYLE", "REGION", "X-TIMESTAMP-MAP")
DASHES_REMOVED = "dashes before the lines of a dialogue are removed"
TAGS_REMOVED = "tags of subtitles such as <i> and {\\an8} are removed"
CREDITS = "credits of subtitles (such as `Subtitles by the Amara.org community`), which nobody speaks, are left out"
ENDS = 3  # first and last cues of a file, where credits can have any form
VOICES = "cues have several voices, so their rows have no speaker"


def parse_subtitles(text: str) -> Annotation:
    """The cues of a SubRip or WebVTT file; a voice tag is the speaker.

    Raises:
        ValueError: the text has lines that are not part of a cue, or is an automatic caption that repeats its lines.
    """
    is_vtt = text.lstrip("\ufeff\n ").startswith("WEBVTT")
    cues, notes = list[_Lines](), Counter[str]()
    for number, block in _blocks(text, is_vtt):
        first = next((index for index, line in enumerate(block) if TIMING.fullmatch(line)), len(block))
        is_other = is_vtt and first == len(block) and block[0].startswith(NOT_CUES)
        _check_times(block, number, is_other)
        head = block[:first]  # the counter or the name of the cue
        if is_vtt:
            surplus = [] if is_other or (first < len(block) and len(head) < 2) else head
        else:  # lines before a counter belong to the cue above, after an empty line
            surplus = head[:-1] if head and head[-1].isdecimal() else head
            if cues:
                cues[-1].lines += surplus
        if surplus and (is_vtt or not cues):
            raise ValueError(f":{number}: not a cue: {surplus[0][:60]!r}")
        for index in range(first, len(block)):
            if match := TIMING.fullmatch(block[index]):
                if index > first and len(cues[-1].lines) > 1 and cues[-1].lines[-1].isdecimal():
                    cues[-1].lines.pop()  # the counter of this cue, without an empty line before it
                notes["positions of cues are removed"] += bool((match["settings"] or "").strip())
                cues.append(_Lines(number + index, _seconds(match["start"]), _seconds(match["end"]), []))
            else:
                cues[-1].lines.append(block[index])
    if not cues:
        raise ValueError(": no cue such as `00:00:01,000 --> 00:00:02,500`")
    _check_rolling([cue.lines for cue in cues])
    _check_scripts(cues)
    _check_languages(cues)
    _join_names(cues)
    spoken = _without_credits([_cue(cue, is_vtt, notes) for cue in cues], notes)
    return Annotation(_named_speakers(spoken, notes), notes)


def _check_times(block: Sequence[str], number: int, is_other: bool) -> None:
    """Raises ValueError for a line that is meant as times, but is none: its cue would be words of the one above."""
    for index, line in enumerate([] if is_other else block):
        if WRONG_TIMING.match(line) and not TIMING.fullmatch(line):
            raise ValueError(f":{number + index}: not a cue: {line[:60]!r}; write 00:00:01,000 --> 00:00:02,500")


@dataclass
class _Lines:
    """A cue before its tags are removed; `number` is its first line in the file."""

    number: int
    start: float
    end: float
    lines: list[str]


def _seconds(clock: str) -> float:
    """Seconds of a time; 00:00:60,000 is one minute, because some tools round up to it."""
    *larger, seconds = clock.replace(",", ".").split(":")
    return round(sum(int(part) * 60**power for power, part in enumerate(reversed(larger), 1)) + float(seconds), 6)


def parse_labels(text: str) -> Annotation:
    """The labels of Audacity: start, end and text with a tab between them; lines with frequencies are left out.

    Raises:
        ValueError: a line has another form.
    """
    cues = list[Cue]()
    for line, content in enumerate(text.splitlines(), 1):
        cells = content.strip("\r\n").split("\t")
        if not content.strip() or (cells[0] == "\\" and cues):
            continue
        times = [cell_seconds(cell) for cell in cells[:2]]
        if len(cells) < 2 or times[0] is None or times[1] is None or ":" in cells[0]:
            raise ValueError(f":{line}: not a label with start, end and text: {content[:60]!r}")
        cues.append(Cue(f":{line}", times[0], times[1], " ".join(cells[2:]).strip() or None))
    if not cues:
        raise ValueError(": no labels")
    return Annotation(cues)


def parse_timed_text(text: str) -> Annotation:
    """Subtitles or labels, whichever the text is. Raises ValueError if it is neither."""
    if text.lstrip("\ufeff\n ").startswith("WEBVTT") or "-->" in text:
        return parse_subtitles(text)
    return parse_labels(text)


def _blocks(text: str, is_vtt: bool) -> list[tuple[int, list[str]]]:
    """The lines between empty lines, each with the number of the first line. In WebVTT, a space is not empty."""
    blocks, last = list[tuple[int, list[str]]](), 0
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        if not line.strip():
            last = number if line and is_vtt and number == last + 1 else last
            continue
        if number > last + 1 or not blocks:
            blocks.append((number, []))
        blocks[-1][1].append(line.strip())
        last = number
    return blocks


def _check_rolling(cues: Sequence[Sequence[str]]) -> None:
    """Raises ValueError for automatic captions that roll: each cue begins with the last line of the one before."""
    filled = [lines for lines in ([TAG.sub("", line).strip() for line in lines] for lines in cues) if lines]
    repeated = sum(len(second) > 1 and first[-1] == second[0] for first, second in pairwise(filled))
    if repeated > 2 and 2 * repeated > sum(len(lines) > 1 for lines in filled):
        raise ValueError(
            f": {repeated} of {count(len(filled), 'cue')} repeat the line before them, as automatic captions "
            "that roll do; export subtitles that do not roll"
        )


def _check_scripts(cues: Sequence["_Lines"]) -> None:
    """Raises ValueError if most cues have lines in two scripts: a text and its translation."""
    lines_of: dict[tuple[float, float], list[str]] = {}  # the two texts can also be two cues of the same times
    for cue in cues:
        lines_of.setdefault((cue.start, cue.end), []).extend(TAG.sub("", line).strip() for line in cue.lines)
    scripts = [(list(dict.fromkeys(filter(None, map(main_script, lines)))), lines) for lines in lines_of.values()]
    several = [(names, lines) for names, lines in scripts if len(names) > 1]
    if len(several) > 1 and 2 * len(several) > sum(bool(names) for names, _ in scripts):
        names, lines = several[0]
        raise ValueError(
            f": {len(several)} of {count(len(scripts), 'cue')} have lines in two scripts ({' and '.join(names)}), such "
            f"as {' / '.join(filter(None, lines))[:60]!r}, as subtitles in two languages do; keep the lines of the "
            "spoken language. If both are spoken, write them on one line"
        )


def _check_languages(cues: Sequence["_Lines"]) -> None:
    """Raises ValueError if the first and the second lines of most cues are certainly in two languages of one script."""
    pairs = [cue.lines for cue in cues if len(cue.lines) == 2]
    if 2 * len(pairs) <= len(cues):
        return
    first, second = (TAG.sub("", " ".join(lines)) for lines in zip(*pairs, strict=True))
    for language in PROFILES:
        other = other_language(second, language)
        if other in PROFILES and other_language(first, other) == language:
            raise ValueError(
                f": the first lines of {count(len(pairs), 'cue')} are in the language {language!r}, the second ones in "
                f"{other!r}, such as {' / '.join(pairs[0])[:60]!r}; keep the lines of the spoken language"
            )


def _without_credits(cues: Sequence[Cue], notes: Counter[str]) -> list[Cue]:
    """The cues without credits of subtitles."""
    spoken = [
        cue
        for index, cue in enumerate(cues)
        if not is_credit(cue.text or "", at_end=index < ENDS or index >= len(cues) - ENDS)
    ]
    if not spoken:
        raise ValueError(f": only credits of subtitles: {cues[0].text!r}")
    notes[CREDITS] += len(cues) - len(spoken)
    return spoken


def _named_speakers(cues: list[Cue], notes: Counter[str]) -> list[Cue]:
    """The cues with the speaker that stands before a colon (`Mary Ann: hello`), if most cues have one of few names."""
    names = Counter(match["name"] for cue in cues if (match := SPEAKER.match(cue.text or "")))
    repeated = {name for name, number in names.items() if number > 1}
    number = sum(names[name] for name in repeated)
    if number < 3 or 2 * number < len(cues) or any(cue.speaker for cue in cues):
        return cues
    result = []
    for cue in cues:
        match = SPEAKER.match(cue.text or "")
        if match and cue.text and (match["name"] in repeated or match["name"][0].isupper()):
            notes["names before a colon are the speaker, and not a part of the text"] += 1
            cue = replace(cue, speaker=match["name"], text=cue.text[match.end() :])
        result.append(cue)
    return result


def without_speakers(text: str, notes: Counter[str]) -> str:
    """The text of a whole recording without what is not spoken: numbers of lines, names of speakers, Q. and A.

    Names stand before a colon in most lines, or in lines of their own. All lines have numbers, or none.
    """
    stated = [line.strip() for line in text.splitlines() if line.strip()]
    lines = _without_numbers(stated)
    notes["numbers of lines are removed"] += lines != stated
    headings = [line for line in lines if HEADING.fullmatch(line)] or _alternate_names(lines)
    spoken = [line for line in lines if line not in headings] if len(headings) < len(lines) else lines
    notes["names of speakers in lines of their own are removed"] += len(lines) - len(spoken)
    if {"Q", "A"} <= {match[1] for line in spoken if (match := QUESTION.match(line))}:
        spoken = [QUESTION.sub("", line) for line in spoken]
        notes["Q. and A. before questions and answers are removed"] += 1
    cues = [Cue("", 0.0, 0.0, line) for line in spoken]
    named = _named_speakers(cues, notes)
    return text if named is cues and spoken == stated else "\n".join(cue.text or "" for cue in named)


def _without_numbers(lines: list[str]) -> list[str]:
    """The lines without their numbers, as in depositions: 1, 2, 3 and so on, from 1 again on the next page."""
    found = [NUMBER.match(line) for line in lines]
    numbers = [int(match[1]) for match in found if match]
    is_counted = all(second in (1, first + 1) for first, second in pairwise([0, *numbers]))
    if len(numbers) < max(3, len(lines)) or not is_counted:
        return lines
    words = [line[match.end() :] for line, match in zip(lines, found, strict=True) if match]
    return [line for line in words if line] or lines


def _alternate_names(lines: Sequence[str]) -> set[str]:
    """Two or more names, one above each line of words (Otter without times); none in any other text."""
    names = Counter(lines[::2])
    are_names = all(SPEAKER.match(f"{name}: x") and all(word[0].isupper() for word in name.split()) for name in names)
    return {*names} if 1 < len(names) <= len(lines) // 4 and are_names else set()


def _join_names(cues: Sequence[_Lines]) -> None:
    """Writes `Mary Ann: hello` in one line where each cue has its speaker in a line above the words (Teams)."""
    names = Counter(cue.lines[0] if len(cue.lines) > 1 else "" for cue in cues)
    if 2 * len(names) <= len(cues) and all(SPEAKER.match(f"{name}: x") for name in names):
        for cue in cues:
            cue.lines[:2] = [f"{cue.lines[0]}: {cue.lines[1]}"]


def _cue(cue: _Lines, is_vtt: bool, notes: Counter[str]) -> Cue:
    text = " ".join(cue.lines)
    voices = list(dict.fromkeys(html.unescape(match["name"]).strip() for match in VOICE.finditer(text)))
    tags = [match[0] for match in TAG.finditer(text) if match[0] != "</v>" and not VOICE.fullmatch(match[0])]
    notes[TAGS_REMOVED] += len(tags)
    notes[VOICES] += len(voices) > 1
    spoken = [TAG.sub(" " if len(voices) > 1 else "", line).strip() for line in cue.lines]
    lines = [DIALOGUE.sub("", line) for line in spoken]
    notes[DASHES_REMOVED] += lines != spoken
    text = " ".join(" ".join(lines).split())
    text = html.unescape(text) if is_vtt else text
    return Cue(f":{cue.number}", cue.start, cue.end, text or None, voices[0] if len(voices) == 1 else "")
