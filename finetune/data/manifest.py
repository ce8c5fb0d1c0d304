"""The manifest: one JSON line for each utterance, the form in which all data travels.

The keys are those of NeMo and of the speech leaderboards: `audio_filepath`, `duration`, `text` and, where
known, `id`, `offset`, `language`, `speaker`, `keywords`. Every other key is carried along in `extra`.
"""

import json
import math
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path, PurePath

from finetune.core.errors import DataError
from finetune.core.files import parse_jsonl

KEYS = ("id", "audio_filepath", "offset", "duration", "text", "language", "speaker", "keywords")


@dataclass(frozen=True)
class Utterance:
    """A piece of audio and what is said in it: the seconds `offset` to `offset + duration` of one file."""

    id: str
    audio_filepath: str
    duration: float
    text: str
    offset: float = 0.0
    language: str = ""
    speaker: str = ""
    keywords: tuple[str, ...] = ()
    extra: dict[str, object] = field(default_factory=dict, hash=False)


def concatenated(clips: Sequence[Utterance], time: int) -> Utterance:
    """Clips spoken one after another as one, for the `time`-th time; file and offset are those of the first."""
    keywords = dict.fromkeys(word for clip in clips for word in clip.keywords)
    return replace(
        clips[0],
        id="+".join(clip.id for clip in clips) + f"#{time}" * (time > 1),
        duration=sum(clip.duration for clip in clips),
        text=" ".join(clip.text for clip in clips),
        keywords=tuple(keywords),
    )


def unique_id(audio_filepath: str, offset: float, taken: Collection[str]) -> str:
    """An id for a row that has none: the file's stem, with the offset or a number where that is not enough."""
    stem = PurePath(audio_filepath).stem
    name = f"{stem}@{offset:.3f}" if offset else stem
    if name not in taken:
        return name
    return next(numbered for n in count(2) if (numbered := f"{name}-{n}") not in taken)


def read_manifest(path: str | Path) -> list[Utterance]:
    """Read a manifest that `write_manifest` wrote; anything odd in it is an error.

    Raises:
        DataError: the file cannot be read or is empty, or a line is not an utterance (names file:line).
    """
    try:
        rows = parse_jsonl(Path(path).read_text(encoding="utf-8-sig"), path)
    except OSError as error:
        raise DataError(f"{path}: cannot read this manifest ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a manifest: the file is not UTF-8 text ({error.reason})") from error
    if not rows:
        raise DataError(f"{path}: the manifest is empty")
    taken = {str(row["id"]) for _, row in rows if row.get("id")}
    seen: dict[str, str] = {}
    utterances = []
    for where, row in rows:
        utterance = _utterance(row, where, taken)
        if utterance.id in seen:
            raise DataError(f"{where}: id {utterance.id!r} was given at {seen[utterance.id]} already")
        seen[utterance.id] = where
        taken.add(utterance.id)
        utterances.append(utterance)
    return utterances


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest whole or not at all: a reader never sees half of it.

    Raises:
        DataError: an utterance cannot be written as JSON (names its id).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            for utterance in utterances:
                file.write(_line(utterance))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _utterance(row: dict[str, object], where: str, taken: Collection[str]) -> Utterance:
    """One checked row. `taken` is consulted only if the row has no id of its own."""
    for key in ("audio_filepath", "text"):
        if not isinstance(row.get(key), str):
            raise DataError(f"{where}: `{key}` must be a string; found {row.get(key)!r}")
    for key in ("id", "language", "speaker"):
        if not isinstance(row.get(key, ""), str):
            raise DataError(f"{where}: `{key}` must be a string; found {row[key]!r}")
    duration, offset = _seconds(row, "duration", where), _seconds(row, "offset", where) if "offset" in row else 0.0
    if duration == 0:
        raise DataError(f"{where}: `duration` is 0")
    keywords = row.get("keywords", [])
    if not isinstance(keywords, list) or not all(isinstance(word, str) for word in keywords):
        raise DataError(f"{where}: `keywords` must be a list of strings; found {keywords!r}")
    path = str(row["audio_filepath"])
    return Utterance(
        id=str(row.get("id") or unique_id(path, offset, taken)),
        audio_filepath=path,
        duration=duration,
        text=str(row["text"]),
        offset=offset,
        language=str(row.get("language", "")),
        speaker=str(row.get("speaker", "")),
        keywords=tuple(keywords),
        extra={key: value for key, value in row.items() if key not in KEYS},
    )


def _seconds(row: dict[str, object], key: str, where: str) -> float:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise DataError(f"{where}: `{key}` must be a number of seconds, 0 or more; found {value!r}")
    return float(value)


def _line(utterance: Utterance) -> bytes:
    row: dict[str, object] = {key: getattr(utterance, key) for key in KEYS}
    row = {key: value for key, value in row.items() if value or key in ("audio_filepath", "duration", "text")}
    if clash := sorted(set(KEYS) & set(utterance.extra)):
        raise DataError(f"utterance {utterance.id!r}: `extra` may not hold the manifest's own keys {clash}")
    try:
        line = json.dumps(row | utterance.extra, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"utterance {utterance.id!r} cannot be written as JSON: {error}") from error
    try:
        return line.encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, such as a file name that is not UTF-8
        return json.dumps(row | utterance.extra).encode() + b"\n"
