"""The manifest: a JSON Lines file with one utterance per line. All stages read and write data in this format.

The keys are those of NeMo and of the speech leaderboards: `audio_filepath`, `duration`, `text`, and optionally `id`,
`offset`, `channel`, `language`, `speaker`, `keywords`, `audio_digest`, what the model is asked for (`task`,
`target_language`, `text_style`, `instruction`) and `sampling_weight`. All other keys are kept in `extra`. Every row has
the version of the format.
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from finetune.core.errors import DataError
from finetune.core.files import parse_jsonl, read_bytes, stream_jsonl, write_lines
from finetune.core.options import MAX_SAMPLING_WEIGHT
from finetune.core.prompts import TRANSLATE, prompt_problem, stated_task
from finetune.data.byte_range import stem_of
from finetune.data.cells import cell_channel

log = logging.getLogger(__name__)

VERSION_KEY, VERSION = "manifest_version", 2  # version 1 has no such key, and leaves out an offset of 0
PROMPT_COLUMNS = ("task", "target_language", "text_style", "instruction")
KEYS = (
    "id",
    "audio_filepath",
    "offset",
    "duration",
    "channel",
    "text",
    "language",
    "speaker",
    "keywords",
    "audio_digest",
    *PROMPT_COLUMNS,
    "sampling_weight",
)
MAX_TEXT = 100_000  # characters; speech has at most 40 a second
MAX_STEM = 255  # characters; no file name is longer
ALWAYS_WRITTEN = ("audio_filepath", "offset", "duration", "text")
TEXT_KEYS = ("id", "language", "speaker", "audio_digest", *PROMPT_COLUMNS)


@dataclass(frozen=True)
class Utterance:
    """A segment of an audio file, from `offset` to `offset + duration` seconds, and its transcript.

    `channel` is numbered from 0; None averages all channels. `audio_digest` is `AudioInfo.digest`, or "" if unknown.
    `task` is "translate" or "", which is transcription; `text_style` is one of `prompts.STYLES` or "". `instruction`
    replaces the prompt of the task. `sampling_weight` is how often a training clip occurs in an epoch.
    """

    id: str
    audio_filepath: str
    duration: float
    text: str
    offset: float = 0.0
    language: str = ""
    speaker: str = ""
    keywords: tuple[str, ...] = ()
    extra: dict[str, object] = field(default_factory=dict, hash=False)
    channel: int | None = None
    audio_digest: str = ""
    task: str = ""
    target_language: str = ""
    text_style: str = ""
    instruction: str = ""
    sampling_weight: float = 1.0

    @property
    def is_translation(self) -> bool:
        """Whether the text is a translation of what is spoken."""
        return self.task == TRANSLATE

    @property
    def text_language(self) -> str:
        """The language of the text as the row states it; "" if it states none."""
        return self.target_language or self.language


def seconds_of(utterances: Iterable[Utterance]) -> float:
    """Seconds of audio of utterances."""
    return sum(item.duration for item in utterances)


def concatenated(clips: Sequence[Utterance], occurrence: int) -> Utterance:
    """Several utterances of one language and task, one after another, as one with the file and offset of the first.

    Args:
        clips: the utterances in their order.
        occurrence: 1 for the first concatenation of these clips, 2 for the second and so on; part of the id.
    """
    keywords = dict.fromkeys(word for clip in clips for word in clip.keywords)
    return replace(
        clips[0],
        id="+".join(clip.id for clip in clips) + f"#{occurrence}" * (occurrence > 1),
        duration=sum(clip.duration for clip in clips),
        text=" ".join(clip.text for clip in clips),
        keywords=tuple(keywords),
    )


def unique_id(audio_filepath: str, offset: float, used_ids: Collection[str], channel: int | None = None) -> str:
    """An id for a row that has no id: the stem of the file, with offset, channel and a number if needed."""
    return numbered_id(id_of_place(audio_filepath, offset, channel), used_ids)


def id_of_place(audio_filepath: str, offset: float, channel: int | None = None) -> str:
    """The stem of a file, with offset and channel."""
    stem = stem_of(audio_filepath)[:MAX_STEM]
    name = f"{stem}@{offset:.3f}" if offset else stem
    return name + ("" if channel is None else f"-ch{channel}")


def numbered_id(name: str, used_ids: Container[str], numbers: dict[str, int] | None = None) -> str:
    """The name if it is free, else with the first free number.

    Args:
        name: the name.
        used_ids: the ids in use, to which the caller adds the new one.
        numbers: by name, the number that the last call gave; so many rows with one name need no search from 2.
    """
    if name not in used_ids:
        return name
    first = numbers.get(name, 1) + 1 if numbers is not None else 2
    number = next(number for number in count(first) if f"{name}-{number}" not in used_ids)
    if numbers is not None:
        numbers[name] = number
    return f"{name}-{number}"


def check_version(row: Mapping[str, object], where: str) -> None:
    """Raises DataError if a row is from a manifest of a later version."""
    version = row.get(VERSION_KEY, 1)
    if not str(version).isdecimal() or not 1 <= int(str(version)) <= VERSION:
        raise DataError(
            f"{where}: {VERSION_KEY} is {version!r}; this version of finetune reads 1 to {VERSION}. Update finetune, "
            "or run `finetune prepare` again"
        )


def read_manifest(path: str | Path) -> list[Utterance]:
    """Reads a manifest from `write_manifest`. Every invalid line is an error.

    A row without an `offset`, as in version 1 and in manifests of NeMo, begins at 0.

    Raises:
        DataError: the file cannot be read or is empty, or a line is not an utterance (the message has file:line).
    """
    with _reading(path):
        rows = list(parse_jsonl(read_bytes(path).decode("utf-8-sig").split("\n"), path))
    return list(_utterances(lambda: rows, path))


def stream_manifest(path: Path) -> Iterator[Utterance]:
    """`read_manifest` for a regular file of any size: only the hashes of the ids stay in memory.

    Raises:
        DataError: see `read_manifest`.
    """

    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        with _reading(path):
            yield from stream_jsonl(path)

    return _utterances(rows, path)


@contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    """Turns the errors of reading a file into DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason}); save the manifest as UTF-8") from error


def _utterances(rows: Callable[[], Iterable[tuple[str, dict[str, Any]]]], path: str | Path) -> Iterator[Utterance]:
    """The utterances of rows, which can be iterated several times."""
    without_id = _survey(rows(), path)
    used_ids = {str(row["id"]) for _, row in rows() if row.get("id")} if without_id else set[str]()
    seen = set[int]()
    for where, row in rows():
        utterance = _utterance(row, where, used_ids)
        if hash(utterance.id) in seen:
            earlier = takewhile(lambda item: item[0] != where, rows())  # noqa: B023 (used at once)
            if first := next((place for place, other in earlier if other.get("id") == utterance.id), None):
                raise DataError(f"{where}: id {utterance.id!r} is already used at {first}; make the ids unique")
        seen.add(hash(utterance.id))
        if without_id:
            used_ids.add(utterance.id)
        yield utterance


def _survey(rows: Iterable[tuple[str, dict[str, Any]]], path: str | Path) -> bool:
    """Whether a row has no id. Checks the versions, and notes rows without an offset."""
    counts, total = Counter[str](), 0
    for where, row in rows:
        check_version(row, where)
        counts.update(offset="offset" in row, id=bool(row.get("id")))
        total += 1
    if not total:
        raise DataError(f"{path}: the manifest is empty")
    if 0 < counts["offset"] < total:
        log.info(f"{path}: a manifest of version 1 or of NeMo; rows without an offset begin at 0")
    return counts["id"] < total


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Writes a manifest atomically: a temporary file, then a rename.

    Raises:
        DataError: an utterance cannot be written as JSON (the message has its id).
    """
    write_lines(Path(path), map(manifest_line, utterances))


def parse_manifest_line(line: bytes) -> Utterance:
    """The utterance of a line of `manifest_line`."""
    row = json.loads(line)
    return _utterance(row, row["id"], ())


def _utterance(row: dict[str, object], where: str, used_ids: Collection[str]) -> Utterance:
    """A row with checked values. `used_ids` has the ids in use; only a row without an id needs it."""
    for key in ("audio_filepath", "text"):
        if not isinstance(row.get(key), str):
            raise DataError(f"{where}: `{key}` must be a string; got {row.get(key)!r}")
    if len(str(row["text"])) > MAX_TEXT:
        raise DataError(f"{where}: `text` has {len(str(row['text']))} characters; the largest number is {MAX_TEXT}")
    for key in TEXT_KEYS:
        if not isinstance(row.get(key, ""), str):
            raise DataError(f"{where}: `{key}` must be a string; got {row[key]!r}")
    duration, offset = _seconds(row, "duration", where), _seconds(row, "offset", where) if "offset" in row else 0.0
    if duration == 0:
        raise DataError(f"{where}: `duration` must be more than 0")
    keywords = row.get("keywords", [])
    if not isinstance(keywords, list) or not all(isinstance(word, str) for word in keywords):
        raise DataError(f"{where}: `keywords` must be a list of strings; got {keywords!r}")
    try:
        channel = cell_channel(row.get("channel"))  # in version 1 a column of the corpus, such as "left"
    except ValueError as error:
        raise DataError(f"{where}: `channel`: {error}") from error
    path, texts = str(row["audio_filepath"]), {key: str(row.get(key, "")) for key in TEXT_KEYS}
    try:
        task, target = stated_task(texts["task"], texts["language"], texts["target_language"])
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    if problem := prompt_problem(target, texts["text_style"], texts["instruction"]):
        raise DataError(f"{where}: {problem}")
    return Utterance(
        **texts
        | {"id": texts["id"] or unique_id(path, offset, used_ids, channel), "task": task, "target_language": target},
        audio_filepath=path,
        duration=duration,
        text=str(row["text"]),
        offset=offset,
        keywords=tuple(keywords),
        extra={key: value for key, value in row.items() if key not in (*KEYS, VERSION_KEY)},
        channel=channel,
        sampling_weight=_weight(row, where),
    )


def _weight(row: dict[str, object], where: str) -> float:
    value = row.get("sampling_weight", 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_SAMPLING_WEIGHT:
        raise DataError(
            f"{where}: `sampling_weight` must be a number above 0, at most {MAX_SAMPLING_WEIGHT:g}; got {value!r}"
        )
    return float(value)


def _seconds(row: dict[str, object], key: str, where: str) -> float:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise DataError(f"{where}: `{key}` must be a number of seconds, 0 or more; got {value!r}")
    return float(value)


def manifest_line(utterance: Utterance) -> bytes:
    """The line of an utterance. Raises DataError if it cannot be written as JSON."""
    return json_line(manifest_row(utterance), utterance.id)


def manifest_row(utterance: Utterance) -> dict[str, object]:
    """The keys and values of an utterance in a manifest. Empty values are left out.

    Raises:
        DataError: `extra` has a key of the manifest.
    """
    row: dict[str, object] = {key: getattr(utterance, key) for key in KEYS}
    row = {key: value for key, value in row.items() if value or key in ALWAYS_WRITTEN or value == 0}
    if utterance.sampling_weight == 1:
        del row["sampling_weight"]
    row[VERSION_KEY] = VERSION
    if clash := sorted(set(row) & set(utterance.extra)):
        raise DataError(f"utterance {utterance.id!r}: `extra` must not contain the manifest's own keys {clash}")
    return row | utterance.extra


def json_line(row: Mapping[str, object], utterance_id: str) -> bytes:
    """A row as one line of JSON. Raises DataError if it cannot be written as JSON."""
    try:
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"utterance {utterance_id!r} cannot be written as JSON: {error}") from error
    try:
        return line.encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, such as a file name that is not UTF-8
        return json.dumps(row).encode() + b"\n"
