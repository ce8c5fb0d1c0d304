"""Reads JSON of Whisper, WhisperX, faster-whisper and whisper.cpp: each segment is a part of the recording."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from finetune.core.errors import DataError
from finetune.core.languages import row_language
from finetune.data.cells import cell_channel
from finetune.data.columns import known_columns
from finetune.data.formats.cues import Annotation, Cue
from finetune.data.text_lines import read_text

HEAD = 1 << 16  # bytes in which the first line of JSON Lines ends


def is_whisper(path: Path, max_bytes: int) -> bool:
    """Whether a file is one JSON object with segments, and not a table of rows with audio."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
        if not head.startswith(b"{") or path.stat().st_size > max_bytes or _begins_json_lines(head):
            return False
        data = json.loads(read_text(path).lstrip("\ufeff"))
    except (DataError, OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and "audio_filepath" not in known_columns(data).values() and bool(_parts(data))


def parse_whisper(text: str) -> Annotation:
    """The segments with words of a file.

    Raises:
        ValueError: it has no segments, a segment has no times, or it is a translation.
    """
    try:
        data = json.loads(text.lstrip("\ufeff"))
    except RecursionError as error:
        raise ValueError(": not JSON with segments") from error
    except ValueError as error:
        raise ValueError(f": not JSON ({error})") from error
    if not isinstance(data, dict) or not (parts := _parts(data)):
        raise ValueError(": no list `segments` with start, end and text")
    settings = [item for item in (data.get("params"), data.get("result")) if isinstance(item, dict)]
    if data.get("task") == "translate" or any(item.get("translate") is True for item in settings):
        raise ValueError(": a translation into English, not a transcript; write a table with target_language")
    languages = (row_language(str(item["language"])) for item in (data, *settings[::-1]) if item.get("language"))
    language = next(filter(None, languages), "")
    cues, notes = list[Cue](), Counter[str]()
    for number, part in enumerate(parts):
        where = f": segment {number}"
        start, end, words = _times_and_words(part, where)
        if not words:
            notes["segments without words are not read"] += 1
            continue
        stated = {key: part[name] for name, key in known_columns(part).items()}
        extra: dict[str, object] = {"language": language} if language else {}
        speaker, channel = stated.get("speaker"), None
        try:
            channel = cell_channel(stated.get("channel"))
        except ValueError:
            extra["channel"] = stated["channel"]  # the audit names it
        cues.append(Cue(where, start, end, words, speaker if isinstance(speaker, str) else "", channel, extra=extra))
    if not cues:
        raise ValueError(": no segment has words")
    return Annotation(cues, notes)


def _begins_json_lines(head: bytes) -> bool:
    """Whether the first line is a complete object, and another line follows."""
    line, _, rest = head.partition(b"\n")
    try:
        json.loads(line)
    except ValueError:
        return False
    return bool(rest.strip())


def _parts(data: Mapping[str, Any]) -> list[Any]:
    """The segments, or those of whisper.cpp, which have their times in `offsets`; none if there is no such list."""
    for key, needed in (("segments", {"start", "end", "text"}), ("transcription", {"offsets", "text"})):
        parts = data.get(key)
        if isinstance(parts, list) and parts and isinstance(parts[0], dict) and needed <= parts[0].keys():
            return parts
    return []


def _times_and_words(part: object, where: str) -> tuple[float, float, str]:
    """Start and end in seconds, and the words of a segment. Raises ValueError if it has no times or no text."""
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        times: Iterable[object] = (part.get("start"), part.get("end"))
        unit, offsets = 1.0, part.get("offsets")
        if isinstance(offsets, dict):  # whisper.cpp, in milliseconds
            unit, times = 1e-3, (offsets.get("from"), offsets.get("to"))
        numbers = [
            round(time * unit, 6)
            for time in times
            if isinstance(time, int | float) and not isinstance(time, bool) and abs(time) < 1e9 and math.isfinite(time)
        ]
        if len(numbers) == 2:
            return numbers[0], numbers[1], " ".join(str(part["text"]).split())
    raise ValueError(f"{where}: not a segment with start, end (in seconds) and text")
