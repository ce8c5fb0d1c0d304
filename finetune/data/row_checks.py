"""Checks the transcript, the keywords and the length of one row whose audio could be read."""

import html
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

from finetune.core.options import MAX_SAMPLING_WEIGHT
from finetune.core.prompts import prompt_problem, stated_task
from finetune.core.unicode_text import listed
from finetune.data.audio import AudioInfo
from finetune.data.audio_suffixes import AUDIO_SUFFIXES
from finetune.data.cells import (
    cell_keywords,
    cell_number,
    cell_speaker,
    cell_text,
    clean_text,
    json_value,
    no_number,
    shown,
)
from finetune.data.downmix import describe_mix
from finetune.data.local_speakers import LOCAL
from finetune.data.manifest import KEYS, MAX_TEXT, PROMPT_COLUMNS, VERSION_KEY, Utterance
from finetune.data.problems import Finding
from finetune.data.row import Row
from finetune.data.row_audio import RowAudio
from finetune.data.subtitle_credits import is_credit
from finetune.data.tags import strip_tags

MOJIBAKE = re.compile("\ufffd|[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac")  # such as "Ã©" for "é"
CONTROL_TOKEN = re.compile(r"<\s*\|\s*([\w\s]+?)\s*\|\s*>")  # such as <|audio|>, also with spaces
SPEAKER_LABEL = re.compile(r"[\[(]?([\w .-]{1,20}?)[\])]?\s?:\s")  # such as "Agent: hello"
SPREADSHEET_ERRORS = ("#NAME?", "#N/A", "#NV", "#REF!", "#VALUE!", "#WERT!", "#DIV/0!", "#NULL!", "#NUM!", "#ZAHL!")
OTHER_MODEL = re.compile(r"(?:language \w+)?<asr_text>")  # Qwen3-ASR: "language English<asr_text>words"

Wordless = Literal["drop", "keep empty", "keep"]  # "keep empty" drops transcripts of only tags or punctuation


def to_utterance(row: Row, utterance_id: str, audio: RowAudio) -> Utterance:
    """The utterance of a row as it is stated, with measured duration. A wrong task is left out, see `check_prompt`."""
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
        speaker=cell_speaker(row.values.get("speaker")),
        keywords=tuple(cell_keywords(row.values.get("keywords"))),
        extra=extra,
        channel=audio.channel,
        audio_digest=audio.info.digest,
        **prompt_columns(row),
        sampling_weight=stated_weight(row),
    )


def stated_weight(row: Row) -> float:
    """The sampling weight of a row, 1 by default and for an empty cell; 0 if it is not a valid weight."""
    if (value := row.values.get("sampling_weight")) in (None, ""):
        return 1.0
    weight = cell_number(value) or 0.0
    return weight if 0 < weight <= MAX_SAMPLING_WEIGHT else 0.0


def prompt_columns(row: Row) -> dict[str, Any]:
    """The values of PROMPT_COLUMNS of a row, with the task and the target of `stated_task`; none if that fails."""
    texts = {name: cell_text(row.values.get(name)) for name in (*PROMPT_COLUMNS, "language")}
    try:
        task, target = stated_task(texts["task"], texts.pop("language"), texts["target_language"])
    except ValueError:
        return {}
    return {**texts, "text_style": texts["text_style"].lower(), "task": task, "target_language": target}


def check_prompt(row: Row, utterance: Utterance) -> Finding | None:
    """A reason to drop a row for its task, its style, its weight, or a translation without words."""
    language, *texts = (cell_text(row.values.get(name)) for name in ("language", "task", "target_language"))
    try:
        stated_task(texts[0], language, texts[1])
    except ValueError as error:
        return Finding("no task", str(error))
    if problem := prompt_problem(utterance.target_language, utterance.text_style, utterance.instruction):
        return Finding("no prompt", problem)
    if utterance.is_translation and not any(map(str.isalnum, utterance.text)):  # it has no score
        return Finding("no translation", f"the row has no words in {utterance.target_language}")
    if not utterance.sampling_weight:
        value = row.values.get("sampling_weight")
        return Finding(
            "invalid weight",
            f"sampling_weight must be a number above 0, at most {MAX_SAMPLING_WEIGHT:g}, not {shown(value)}",
        )
    return None


def check_text(
    row: Row, original: Utterance, utterance: Utterance, special_tokens: Sequence[str], wordless: Wordless
) -> Finding | None:
    """A reason to drop a row for its transcript or keywords, before and after the rules of the recipe."""
    text = original.text
    stated = row.values.get("text")  # a missing text is not an empty one
    if isinstance(stated, bool) or (not text and (wordless == "drop" or not isinstance(stated, str))):
        is_other = isinstance(stated, list | dict | bytes | bool)
        detail = (
            f"the transcript is {shown(stated)}, not a text; write one string"
            if is_other
            else "the row has no transcript"
        )
        return Finding("empty transcript", detail)
    if finding := _no_transcript(text):
        return finding
    if len(text) > MAX_TEXT:
        return Finding("transcript too long", f"{len(text)} characters; the maximum is {MAX_TEXT}")
    written = (text, utterance.text, utterance.instruction, *utterance.keywords)
    if tokens := control_tokens(written, special_tokens):  # the rules can make one
        return Finding("special token in transcript", f"{', '.join(tokens)} is a command for the model: {text[:60]!r}")
    may_be_wordless = wordless == "keep" or (wordless == "keep empty" and not utterance.text)
    if not may_be_wordless and not any(char.isalnum() for char in strip_tags(utterance.text)):
        return Finding("no words in transcript", f"only punctuation or tags: {text[:60]!r}")
    if any(unicodedata.category(char) == "Cs" for char in text):
        return Finding("invalid Unicode in transcript", f"half of a surrogate pair: {text[:60]!a}")
    return None


def _no_transcript(text: str) -> Finding | None:
    """The fault of a cell with an error value of a spreadsheet, or with JSON around its texts (Label Studio)."""
    if text.upper() in SPREADSHEET_ERRORS:
        return Finding("error value in transcript", f"{text!r} is what a spreadsheet writes if a formula fails")
    if text.startswith(("[", "{")) and (listed(text) or _is_json_object(text)):
        return Finding("JSON in transcript", f"the transcript is {shown(text)}, not a text; write one string")
    if text.lower().endswith(AUDIO_SUFFIXES) and len(text.split()) == 1:
        return Finding("no words in transcript", f"{text!r} is the name of an audio file")
    if match := OTHER_MODEL.match(text):
        return Finding("markup in transcript", f"{match[0]!r} is the format of another model")
    return None


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict) and '"' in text
    except (ValueError, RecursionError):
        return False


def control_tokens(texts: Sequence[str], special_tokens: Sequence[str]) -> list[str]:
    """The control tokens in texts, as they are written there."""
    names = {_token_name(token) for token in special_tokens}
    tokens = [match[0] for text in texts for match in CONTROL_TOKEN.finditer(text)]
    return list(dict.fromkeys(token for token in tokens if _token_name(token) in names))


def _token_name(token: str) -> str:
    return re.sub(r"\d+$", "", re.sub(r"[\s<>|_]+", "", token.lower()))  # <|unused_7|> is one of many


def check_length(
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


def text_warnings(row: Row, original: Utterance, utterance: Utterance, audio: AudioInfo) -> list[Finding]:
    """Warnings about the transcript and the keywords of a usable row.

    Args:
        row: the row.
        original: its utterance, before the rules of the recipe.
        utterance: the utterance after the rules.
        audio: its audio.
    """
    findings, text = list[Finding](), utterance.text
    raw = cell_text(row.values.get("text"))
    if " ".join(raw.split()) != original.text:
        findings.append(Finding("transcript cleaned", f"to NFC without invisible characters: {raw[:60]!a}"))
    words = row.values.get("keywords")
    if parted := [word for word in words if "," in str(word)] if isinstance(words, list | tuple) else []:
        findings.append(Finding("comma in keyword", f"each part of {str(parted[0])[:60]!r} is a keyword"))
    for column in ("keywords", "terms"):
        if barred := [word for word in cell_keywords(row.values.get(column)) if "|" in word]:
            detail = f"column {column!r}: {barred[0][:60]!r} is one keyword; | does not separate keywords"
            findings.append(Finding("bar in keyword", detail))
    if MOJIBAKE.search(text) or html.unescape(text) != text:
        findings.append(Finding("encoding errors in transcript", f"mojibake or HTML entities: {text[:60]!r}"))
    if (label := SPEAKER_LABEL.match(text)) and LOCAL.fullmatch(label[1]) and not label[1].isdigit():
        findings.append(Finding("speaker in transcript", f"{label[1]!r} before the words of {text[:60]!r}"))
    if is_credit(text):
        findings.append(Finding("credit of subtitles", f"nobody speaks {text[:60]!r}"))
    if not text:
        emptied = f"data.text leaves no word of {original.text[:60]!r}; " if original.text else ""
        findings.append(Finding("empty reference", f"{emptied}every recognized word is an error"))
    elif audio.silent:
        averaged = audio.channels > 1 and utterance.channel is None and audio.channel is None
        mixed = f" after averaging {audio.channels} channels" if averaged else ""
        findings.append(Finding("silent audio", f"no sound{mixed}, but the transcript is {text[:60]!r}"))
    return findings


def mix_warning(utterance: Utterance, audio: AudioInfo) -> Finding | None:
    """A warning about a file of several channels that are mixed."""
    if utterance.channel is not None or audio.channels == 1:
        return None
    kind = "several channels" if audio.channel is None else "opposite channels"
    return Finding(kind, describe_mix(audio.channels, audio.channel))
