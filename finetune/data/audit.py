"""Looks at every row of a corpus and its audio, keeps what can be trained on, and names everything else.

All faults are gathered before anything is reported, so a corpus is mended once and not fault by fault.
"""

import html
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from finetune.core.errors import DataError
from finetune.data.audio import AudioFacts, measure
from finetune.data.hub import Row
from finetune.data.manifest import KEYS, Utterance, unique_id

NO_TEXT = {"nan", "NaN", "<NA>", "#N/A", "null", "NULL", "None"}  # what tables and their tools write for "nothing"
# Soft hyphen, zero-width space, byte-order mark, marks of direction: not seen, not said, yet other tokens.
INVISIBLE = re.compile("[\u00ad\u200b\ufeff\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069]")
MOJIBAKE = re.compile("\ufffd|[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac")  # such as "Ã©" for "é"
TAGS = re.compile(r"\[[^\]]*\]|<[^>]*>")  # such as [noise]
Fault = tuple[str, str]  # kind and detail


@dataclass(frozen=True)
class Problem:
    """One finding: its kind, the utterance's id (or its file), where the row stands, and what is wrong."""

    kind: str
    id: str
    where: str
    detail: str


@dataclass(frozen=True)
class Audit:
    """The utterances to use, and what was found: each dropped row has one Problem, warnings may be several."""

    kept: list[Utterance]
    dropped: list[Problem]
    warnings: list[Problem]


def audit(
    rows: Sequence[Row],
    *,
    min_duration: float,
    max_duration: float,
    max_chars_per_second: float,
    special_tokens: Sequence[str],
    workers: int,
) -> Audit:
    """Check every row of a corpus; nothing is raised for a bad row.

    A row with an `offset` is the segment of `duration` seconds from there on (to the end without a duration).
    A row without one is the whole file, and its `duration` is a claim that is checked and corrected.

    Args:
        rows: what `read_corpus` gave.
        min_duration: seconds; shorter utterances are dropped.
        max_duration: seconds; longer utterances are dropped.
        max_chars_per_second: a text with more is not the text of its audio.
        special_tokens: the tokenizer's control tokens, such as `<|audio|>`, which no text may hold: they would
            be read as commands.
        workers: threads that decode.
    """
    taken = {name for row in rows if (name := _name(row))}
    first, by_audio = dict[str, str](), dict[str, Utterance]()
    kept, dropped, warnings = list[Utterance](), list[Problem](), list[Problem]()
    pool = ThreadPoolExecutor(workers)
    try:
        for row, facts in zip(rows, pool.map(_facts, rows), strict=True):
            path, name = _words(row.values.get("audio_filepath")), _name(row)
            if name in first:
                dropped.append(
                    Problem(
                        "duplicate id",
                        name,
                        row.where,
                        f"{first[name]} has this id already; make ids "
                        "unique, or leave the column out and they are made from the file names",
                    )
                )
                continue
            name = name or unique_id(path or "row", _number(row.values.get("offset")) or 0.0, taken)
            taken.add(name)
            first[name] = row.where
            text, keywords = clean_text(row.values.get("text")), _keywords(row.values.get("keywords"))
            fault = (
                facts
                if isinstance(facts, tuple)
                else _text_fault(text, keywords, special_tokens)
                or _length_fault(facts.duration, text, min_duration, max_duration, max_chars_per_second)
            )
            if isinstance(facts, AudioFacts) and not fault:
                kept.append(_utterance(row, name, path, text, facts))
                twin = by_audio.setdefault(facts.digest, kept[-1])
                doubts = _doubts(row, kept[-1], facts, twin)
                warnings += [Problem(kind, name, row.where, detail) for kind, detail in doubts]
            elif fault:
                dropped.append(Problem(fault[0], name, row.where, fault[1]))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for the whole corpus
    return Audit(kept, dropped, warnings)


def leaks(train: Iterable[Utterance], other: Iterable[Utterance]) -> list[Problem]:
    """What `other` (valid or test) has in common with `train`, which makes its score too good.

    Kinds: "sentence also in train" (case, width and punctuation apart), "audio file also in train" (the same
    segment), "speaker also in train" (once a speaker). Short answers recur in honest data; judge by the count.
    """
    train = list(train)
    sentences = {_sentence(item.text): item for item in train}
    segments = {(item.audio_filepath, item.offset): item for item in train}
    speakers = {item.speaker: item for item in train}
    problems, reported = list[Problem](), set[str]()
    for item in other:
        found = list[Fault]()
        if (key := _sentence(item.text)) and (twin := sentences.get(key)):
            found.append(("sentence also in train", f"{twin.id}: {twin.text[:80]!r}"))
        if twin := segments.get((item.audio_filepath, item.offset)):
            found.append(("audio file also in train", f"as {twin.id}"))
        if item.speaker and item.speaker not in reported and (twin := speakers.get(item.speaker)):
            reported.add(item.speaker)
            found.append(("speaker also in train", f"{item.speaker!r}, as in {twin.id}"))
        problems += [Problem(kind, item.id, item.audio_filepath, detail) for kind, detail in found]
    return problems


def report(problems: Sequence[Problem], examples: int = 3) -> str:
    """Counts by kind, most frequent first, with the first few of each; empty without problems."""
    lines = []
    for kind, number in Counter(problem.kind for problem in problems).most_common():
        lines.append(f"{kind}: {number}")
        some = [problem for problem in problems if problem.kind == kind][:examples]
        lines += [f"  {problem.id} ({problem.where}): {problem.detail}" for problem in some]
        if number > len(some):
            lines.append(f"  ... and {number - len(some)} more")
    return "\n".join(lines)


def clean_text(value: object) -> str:
    """A transcript in NFC, without invisible and control characters, white space folded; "" for no text."""
    if isinstance(value, list | dict):
        return ""
    text = INVISIBLE.sub("", unicodedata.normalize("NFC", _words(value)))
    text = "".join(" " if unicodedata.category(char) == "Cc" else char for char in text)
    text = " ".join(text.split())
    return "" if text in NO_TEXT else text


def _facts(row: Row) -> AudioFacts | Fault:
    """What the row's audio is, or the kind and detail of what is wrong with it."""
    path, offset, duration = _words(row.values.get("audio_filepath")), 0.0, None
    if not path:
        return "missing audio", "the row names no audio file"
    if (stated := row.values.get("offset")) not in (None, ""):
        number = _number(stated)
        if number is None or number < 0:
            return "bad offset", f"offset is {stated!r}; it must be seconds, 0 or more"
        offset, duration = number, _number(row.values.get("duration"))
    try:
        return measure(path, offset, duration if duration and duration > 0 else None)
    except DataError as error:
        kind = "missing audio" if "no such file" in str(error) else "unreadable audio"
        return kind, str(error)


def _text_fault(text: str, keywords: Sequence[str], special_tokens: Sequence[str]) -> Fault | None:
    if not text:
        return "empty text", "no transcript"
    if found := [token for token in special_tokens if token and any(token in words for words in (text, *keywords))]:
        return "special token in text", f"{', '.join(found)} would be read as a command by the model: {text[:60]!r}"
    if not any(char.isalnum() for char in TAGS.sub("", text)):
        return "no words in text", f"only punctuation or tags: {text[:60]!r}"
    if any(unicodedata.category(char) == "Cs" for char in text):
        return "broken characters in text", f"half of a surrogate pair: {text[:60]!a}"
    return None


def _length_fault(
    duration: float, text: str, min_duration: float, max_duration: float, max_chars_per_second: float
) -> Fault | None:
    if duration < min_duration:
        return "too short", f"{duration:.2f} s, the least is {min_duration:g} s"
    if duration > max_duration:
        return "too long", f"{duration:.2f} s, the most is {max_duration:g} s; cut it into segments"
    if len(text) > max_chars_per_second * duration:
        return "text too long for the audio", (
            f"{len(text)} characters in {duration:.2f} s, the most is {max_chars_per_second:g} a second: {text[:60]!r}"
        )
    return None


def _doubts(row: Row, utterance: Utterance, facts: AudioFacts, twin: Utterance) -> list[Fault]:
    """What is odd about a row that is kept; `twin` is the first utterance with the same samples."""
    found, text = list[Fault](), utterance.text
    stated, raw = row.values.get("duration"), _words(row.values.get("text"))
    number = _number(stated)
    if stated not in (None, "") and (number is None or abs(number - facts.duration) > 0.1 + 0.01 * facts.duration):
        found.append(("duration corrected", f"stated {stated!r}, measured {facts.duration:.2f} s"))
    if " ".join(raw.split()) != text:
        found.append(("text corrected", f"to composed characters (NFC) without invisible ones: {raw[:60]!a}"))
    if MOJIBAKE.search(text) or html.unescape(text) != text:
        found.append(("damaged characters in text", f"the text was encoded twice: {text[:60]!r}"))
    if facts.silent:
        mixed = f" after its {facts.channels} channels are averaged" if facts.channels > 1 else ""
        found.append(("silence", f"nothing is heard{mixed}, yet the text is {text[:60]!r}"))
    elif twin is not utterance:
        other = "the same text" if twin.text == text else f"another text: {twin.text[:60]!r}, here {text[:60]!r}"
        found.append(("same audio twice", f"sounds the same as {twin.id!r}, with {other}"))
    return found


def _utterance(row: Row, name: str, path: str, text: str, facts: AudioFacts) -> Utterance:
    return Utterance(
        id=name,
        audio_filepath=path,
        duration=facts.duration,
        text=text,
        offset=_number(row.values.get("offset")) or 0.0,
        language=_words(row.values.get("language")),
        speaker=_words(row.values.get("speaker")),
        keywords=tuple(_keywords(row.values.get("keywords"))),
        extra={key: _jsonable(value) for key, value in row.values.items() if key not in KEYS},
    )


def _name(row: Row) -> str:
    return " ".join(_words(row.values.get("id")).split())


def _words(value: object) -> str:
    """A cell as a string; "" where it holds nothing."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value).strip()


def _number(value: object) -> float | None:
    """A cell as a finite number, whichever way a table spells it; None where it is not one."""
    try:
        number = float(str(value).strip().replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _keywords(value: object) -> list[str]:
    """Keywords of a list, or of a cell that parts them by comma, semicolon or line."""
    parts = value if isinstance(value, list | tuple) else re.split(r"[,;\n]", _words(value))
    return list(dict.fromkeys(word for part in parts if (word := clean_text(part))))


def _jsonable(value: object) -> object:
    """A value that JSON can hold: no NaN, and dates or the like as strings."""
    try:
        return json.loads(json.dumps(value, allow_nan=False, default=str))
    except (TypeError, ValueError):
        return None if isinstance(value, float) else str(value)


def _sentence(text: str) -> str:
    """A text for comparison: width, case, punctuation and spacing folded away."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(" " if unicodedata.category(char)[0] in "PSZ" else char for char in text).split())
