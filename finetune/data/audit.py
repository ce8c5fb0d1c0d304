"""Checks every row of a corpus and its audio; keeps the usable rows and reports every problem.

All problems are collected before any is reported, so that a user can fix a corpus in one pass.
"""

import html
import math
import re
import unicodedata
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Literal

from finetune.core.errors import DataError
from finetune.data.audio import AudioInfo
from finetune.data.cells import (
    cell_channel,
    cell_keywords,
    cell_number,
    cell_seconds,
    cell_text,
    clean_text,
    json_value,
    no_number,
)
from finetune.data.downmix import describe_mix
from finetune.data.manifest import KEYS, MAX_TEXT, VERSION_KEY, Utterance, unique_id
from finetune.data.problems import Finding, Problem, format_problems
from finetune.data.row import Row
from finetune.data.row_audio import RowAudio, inspect_row, time_warnings
from finetune.data.tags import strip_tags

MOJIBAKE = re.compile("\ufffd|[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac")  # such as "Ã©" for "é"
CONTROL_TOKEN = re.compile(r"<\s*\|\s*([\w\s]+?)\s*\|\s*>")  # such as <|audio|>, also with spaces
STOP_AFTER = 100  # rows, see `audit`

Wordless = Literal["drop", "keep empty", "keep"]  # "keep empty" drops transcripts of only tags or punctuation


@dataclass(frozen=True)
class Audit:
    """The utterances to use and the problems: one Problem for each dropped row, any number of warnings."""

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
    wordless: Wordless = "drop",
    rewrite: Callable[[Utterance], Utterance] = lambda utterance: utterance,
    max_dropped: float = math.inf,
) -> Audit:
    """Checks every row of a corpus. A bad row never raises an error.

    A row with an `offset` is a segment of `duration` seconds, or ends with the file if it has no duration. A row
    without an `offset` is the whole file; its `duration` is compared with the audio. A small difference is corrected
    with a warning, a large one (see `row_audio`) drops the row.

    Args:
        rows: the rows from `read_corpus`.
        min_duration: seconds; shorter utterances are dropped.
        max_duration: seconds; longer utterances are dropped.
        max_chars_per_second: utterances with a higher rate are dropped, because the text belongs to other audio.
        special_tokens: the tokenizer's control tokens, such as `<|audio|>`. In a text they act as commands, in any
            case, and with spaces inside.
        workers: number of threads that decode audio.
        wordless: which transcripts without words stay; every word that is recognized there is an error.
        rewrite: changes the transcript of an utterance.
        max_dropped: number of dropped rows that the caller accepts; see `_stop_early`, which raises DataError.
    """
    ids, result = {stated for row in rows if (stated := _stated_id(row))}, Audit([], [], [])
    positions, by_digest, mixed_files = dict[str, str](), dict[str, Utterance](), set[str]()
    with closing(_decoded(rows, workers, max_duration)) as decoded:
        for row, audio in decoded:
            _stop_early(result, len(rows), max_dropped)
            utterance_id = _stated_id(row)
            if utterance_id in positions:
                detail = f"{positions[utterance_id]} has the same id"
                result.dropped.append(Problem("duplicate id", utterance_id, row.where, detail))
                continue
            utterance_id = utterance_id or _generated_id(row, ids)
            ids.add(utterance_id)
            positions[utterance_id] = row.where
            if isinstance(audio, Finding):
                result.dropped.append(_problem(audio, utterance_id, row))
                continue
            original = _utterance(row, utterance_id, audio)
            utterance = rewrite(original)
            finding = _check_text(row, original, utterance, special_tokens, wordless) or _check_length(
                utterance, min_duration, max_duration, max_chars_per_second
            )
            if finding:
                result.dropped.append(_problem(finding, utterance_id, row))
                continue
            result.kept.append(utterance)
            first = by_digest.setdefault(audio.info.digest, utterance)
            found = time_warnings(row, audio) + _warnings(row, original, utterance, audio.info, first)
            found += _mix_warnings(utterance, audio.info, mixed_files)
            result.warnings.extend(_problem(item, utterance_id, row) for item in found)
    return result


def _decoded(
    rows: Sequence[Row], workers: int, max_duration: float
) -> Generator[tuple[Row, RowAudio | Finding], None, None]:
    pool = ThreadPoolExecutor(workers)
    try:
        yield from zip(rows, pool.map(partial(inspect_row, max_duration=max_duration), rows), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest of the corpus


def _stop_early(result: Audit, total: int, max_dropped: float) -> None:
    """Raises DataError if all rows so far, at least STOP_AFTER and more than `max_dropped`, have the same problem."""
    dropped = len(result.dropped)
    if result.kept or dropped < STOP_AFTER or dropped <= max_dropped:
        return
    if len({problem.kind for problem in result.dropped}) == 1:
        raise DataError(
            f"the first {dropped} of {total} rows are all unusable for the same reason, so the others were not read\n"
            f"{format_problems(result.dropped)}"
        )


def stated_utterances(rows: Sequence[Row], source: str) -> list[Utterance]:
    """The utterances of rows with a duration, as they are stated. No audio is read.

    Raises:
        DataError: two rows have the same id.
    """
    ids, utterances = {stated for row in rows if (stated := _stated_id(row))}, dict[str, Utterance]()
    for row in rows:
        utterance_id = _stated_id(row) or _generated_id(row, ids)
        ids.add(utterance_id)
        if utterance_id in utterances:
            raise DataError(f"{row.where}: the id {utterance_id!r} is used twice in {source}; make the ids unique")
        info = AudioInfo(cell_seconds(row.values.get("duration")) or 0.0, 0, False, "")
        try:
            channel = cell_channel(row.values.get("channel"))
        except ValueError:
            channel = None
        utterances[utterance_id] = _utterance(
            row, utterance_id, RowAudio(cell_seconds(row.values.get("offset")) or 0.0, channel, info)
        )
    return list(utterances.values())


def _stated_id(row: Row) -> str:
    return " ".join(cell_text(row.values.get("id")).split())


def _generated_id(row: Row, ids: set[str]) -> str:
    path, offset = cell_text(row.values.get("audio_filepath")), cell_number(row.values.get("offset"))
    try:
        channel = cell_channel(row.values.get("channel"))
    except ValueError:
        channel = None
    return unique_id(path or "row", offset or 0.0, ids, channel)


def _problem(finding: Finding, utterance_id: str, row: Row) -> Problem:
    return Problem(finding.kind, utterance_id, row.where, finding.detail)


def _utterance(row: Row, utterance_id: str, audio: RowAudio) -> Utterance:
    extra = {key: json_value(value) for key, value in row.values.items() if key not in (*KEYS, VERSION_KEY)}
    if audio.channel is None and not no_number(channel := row.values.get("channel")):
        extra["channel_original"] = json_value(channel)
    return Utterance(
        id=utterance_id,
        audio_filepath=cell_text(row.values.get("audio_filepath")),
        duration=audio.info.duration,
        text=clean_text(row.values.get("text")),
        offset=audio.offset,
        language=cell_text(row.values.get("language")),
        speaker=cell_text(row.values.get("speaker")),
        keywords=tuple(cell_keywords(row.values.get("keywords"))),
        extra=extra,
        channel=audio.channel,
        audio_digest=audio.info.digest,
    )


def _check_text(
    row: Row, original: Utterance, utterance: Utterance, special_tokens: Sequence[str], wordless: Wordless
) -> Finding | None:
    """A reason to drop a row for its transcript or keywords, before and after the rules of the recipe."""
    text = original.text
    if not text and (wordless == "drop" or not isinstance(row.values.get("text"), str)):  # missing is not empty
        return Finding("empty transcript", "the row has no transcript")
    if len(text) > MAX_TEXT:
        return Finding("transcript too long", f"{len(text)} characters; the maximum is {MAX_TEXT}")
    if tokens := _control_tokens((text, utterance.text, *utterance.keywords), special_tokens):  # the rules can make one
        return Finding("special token in transcript", f"{', '.join(tokens)} is a command for the model: {text[:60]!r}")
    may_be_wordless = wordless == "keep" or (wordless == "keep empty" and not utterance.text)
    if not may_be_wordless and not any(char.isalnum() for char in strip_tags(utterance.text)):
        return Finding("no words in transcript", f"only punctuation or tags: {text[:60]!r}")
    if any(unicodedata.category(char) == "Cs" for char in text):
        return Finding("invalid Unicode in transcript", f"half of a surrogate pair: {text[:60]!a}")
    return None


def _control_tokens(texts: Sequence[str], special_tokens: Sequence[str]) -> list[str]:
    """The control tokens in texts, as they are written there."""
    names = {_token_name(token) for token in special_tokens}
    found = [match[0] for text in texts for match in CONTROL_TOKEN.finditer(text)]
    return list(dict.fromkeys(token for token in found if _token_name(token) in names))


def _token_name(token: str) -> str:
    return re.sub(r"\d+$", "", re.sub(r"[\s<>|_]+", "", token.lower()))  # <|unused_7|> is one of many


def _check_length(
    utterance: Utterance, min_duration: float, max_duration: float, max_chars_per_second: float
) -> Finding | None:
    """A reason to drop the utterance for its duration, or for a text that is too long for it."""
    duration, text = utterance.duration, utterance.text
    if duration < min_duration:
        return Finding("audio too short", f"{duration:.2f} s; the minimum is {min_duration:g} s")
    if duration > max_duration:
        return Finding("audio too long", f"{duration:.2f} s; the maximum is {max_duration:g} s")
    if len(text) > max_chars_per_second * duration:
        return Finding(
            "too many characters per second",
            f"{len(text)} characters in {duration:.2f} s; the maximum is {max_chars_per_second:g} "
            f"per second: {text[:60]!r}",
        )
    return None


def _mix_warnings(utterance: Utterance, audio: AudioInfo, mixed_files: set[str]) -> list[Finding]:
    """One warning for each file of several channels that are mixed; adds the file to `mixed_files`."""
    if utterance.channel is not None or audio.channels == 1 or utterance.audio_filepath in mixed_files:
        return []
    mixed_files.add(utterance.audio_filepath)
    kind = "several channels" if audio.channel is None else "opposite channels"
    return [Finding(kind, describe_mix(audio.channels, audio.channel))]


def _warnings(row: Row, original: Utterance, utterance: Utterance, audio: AudioInfo, first: Utterance) -> list[Finding]:
    """Warnings about a usable row.

    Args:
        row: the row.
        original: its utterance, before the rules of the recipe.
        utterance: the utterance after the rules.
        audio: its audio.
        first: the first utterance with the same samples.
    """
    findings, text = list[Finding](), utterance.text
    raw = cell_text(row.values.get("text"))
    if " ".join(raw.split()) != original.text:
        findings.append(Finding("transcript cleaned", f"to NFC without invisible characters: {raw[:60]!a}"))
    if MOJIBAKE.search(text) or html.unescape(text) != text:
        findings.append(Finding("encoding errors in transcript", f"mojibake or HTML entities: {text[:60]!r}"))
    if not text:
        emptied = f"data.text leaves no word of {original.text[:60]!r}; " if original.text else ""
        findings.append(Finding("empty reference", f"{emptied}every recognized word is an error"))
    elif audio.silent:
        averaged = audio.channels > 1 and utterance.channel is None and audio.channel is None
        mixed = f" after averaging {audio.channels} channels" if averaged else ""
        findings.append(Finding("silent audio", f"no sound{mixed}, but the transcript is {text[:60]!r}"))
    elif first is not utterance:
        transcripts = (
            "the same transcript" if first.text == text else f"transcripts {first.text[:60]!r} and {text[:60]!r}"
        )
        findings.append(Finding("duplicate audio", f"same samples as {first.id!r}, {transcripts}"))
    return findings
