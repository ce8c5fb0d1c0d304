"""Reads hypothesis files of any recognizer (JSON Lines, CSV, TSV, TRN): exactly one text for each clip."""

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from finetune.core.errors import DataError
from finetune.core.files import repeated_key
from finetune.core.wording import count
from finetune.data.byte_range import parse_byte_range
from finetune.data.formats.nist import one_reading
from finetune.data.formats.tables import read_table
from finetune.data.text_lines import read_text

log = logging.getLogger(__name__)

TEXT = "pred_text"
KEYS = ("id", "audio_filepath")  # columns that identify a clip
FORMATS = (".jsonl", ".json", ".csv", ".tsv")  # besides TRN
_TRN = re.compile(r"(.*)\(([^()\s]+)\)\s*")
_MAX_NAMES = 3  # ids in a message


@dataclass(frozen=True)
class ClipNames:
    """Names that can identify a clip in a file: its id, its audio file, its label in a TRN file."""

    id: str
    audio_filepath: str
    label: str


@dataclass(frozen=True)
class HypothesisRow:
    """The hypothesis of one clip, and all cells of its row (none for TRN)."""

    text: str
    cells: Mapping[str, object]


def read_hypotheses(path: Path, clips: Sequence[ClipNames], unmatched: list[str] | None = None) -> list[HypothesisRow]:
    """Reads the hypothesis of each clip.

    Rows of JSON Lines, CSV and TSV have `pred_text` and `id`, or `audio_filepath` (relative or absolute: one of the
    two paths must end with the other). A JSON file can be one object of texts by id, or by audio file. Lines of TRN
    are `words (id)`, as in sclite and `evaluation/*.trn`; of alternatives `{ a / b }` the first one is read.

    Args:
        path: the file.
        clips: the clips.
        unmatched: gets the names of rows that match no clip, if every clip has a row.

    Returns:
        One row for each clip, in the order of the clips. An empty text is a hypothesis without words.

    Raises:
        DataError: the file cannot be read; a row has no text or no name (the message has file:line); a clip has no row
            or several rows.
    """
    rows = _trn_rows(path) if path.suffix.lower() == ".trn" else _table_rows(path)
    if not rows:
        raise DataError(f"{path}: the file has no hypotheses")
    indices = _clip_indices(rows, clips, path)
    by_clip: dict[int, _Row] = {}
    duplicate, unknown = list[str](), list[str]()
    for row, index in zip(rows, indices, strict=True):
        if index is None:
            unknown.append(row.name)
        elif index in by_clip:
            duplicate.append(row.name)
        else:
            by_clip[index] = row
    missing = [clip.id for index, clip in enumerate(clips) if index not in by_clip]
    problems = [
        f"{problem}: {', '.join(map(repr, names[:_MAX_NAMES]))}{' ...' * (len(names) > _MAX_NAMES)}"
        for problem, names in (
            (f"{len(missing)} of {count(len(clips), 'clip')} have no hypothesis", missing),
            (f"{len(unknown)} of {count(len(rows), 'row')} match no clip", unknown),
            (f"{count(len(duplicate), 'row')} of a clip that already has a row", duplicate),
        )
        if names
    ]
    if missing or duplicate:
        raise DataError(
            f"{path}: does not match the clips; nothing was scored\n  "
            + "\n  ".join(problems)
            + "\nThe file needs exactly one row for each clip of the manifest."
        )
    if unmatched is not None:
        unmatched += unknown
    return [by_clip[index].hypothesis for index in range(len(clips))]


@dataclass(frozen=True)
class _Row:
    """A row that is not yet matched to a clip; `keys` are its names for the clip, by column (or `label`)."""

    keys: Mapping[str, str]
    hypothesis: HypothesisRow

    @property
    def name(self) -> str:
        return next(iter(self.keys.values()))


def _table_rows(path: Path) -> list[_Row]:
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path}: unknown format {path.suffix or '(no suffix)'}; use {', '.join(FORMATS)} or .trn")
    rows = []
    if texts := _texts_by_id(path):
        return [_Row(dict.fromkeys(KEYS, name.strip()), HypothesisRow(text, {})) for name, text in texts.items()]
    for row in read_table(path):
        cells = {str(name).strip(): value for name, value in row.values.items()}
        if not isinstance(text := cells.get(TEXT), str):
            raise DataError(
                f"{row.where}: no text in {TEXT!r}; the columns are {', '.join(map(repr, cells)) or 'empty'}. "
                f"Give a string in {TEXT!r}, empty for a hypothesis without words"
            )
        keys = {key: str(cells[key]).strip() for key in KEYS if cells.get(key) not in (None, "")}
        if not keys:
            raise DataError(f"{row.where}: the row has no id and no audio_filepath; give one of them")
        rows.append(_Row(keys, HypothesisRow(text, cells)))
    return rows


def _texts_by_id(path: Path) -> dict[str, str]:
    """The texts of a file that is one JSON object `{"id": "text"}`; none if it has rows."""
    if path.suffix.lower() != ".json":
        return {}
    try:
        content = json.loads(text := read_text(path))
    except (ValueError, RecursionError):
        return {}  # JSON Lines, or damaged
    if not isinstance(content, dict) or TEXT in content:
        return {}
    if key := repeated_key(text, content):
        raise DataError(f"{path}: the id {key!r} is there twice, with different texts")
    if not all(isinstance(value, str) for value in content.values()):
        raise DataError(
            f"{path}: one JSON object, but its values are not texts; give a text for each id, or a list of objects "
            f"with id and {TEXT}"
        )
    return content


def _trn_rows(path: Path) -> list[_Row]:
    rows, notes = [], Counter[str]()
    for number, line in enumerate(read_text(path).split("\n"), 1):
        line = line.rstrip("\r")
        if not line.strip() or line.startswith(";;"):
            continue
        if not (match := _TRN.fullmatch(line)):
            raise DataError(f"{path}:{number}: not a TRN line; write words, then (id): {line[-60:]!r}")
        rows.append(_Row({"label": match[2]}, HypothesisRow(one_reading(match[1], notes), {})))
    for note in notes:
        log.info("%s: %s", path, note)
    return rows


def _clip_indices(rows: Sequence[_Row], clips: Sequence[ClipNames], path: Path) -> list[int | None]:
    """For each row the index of its clip, or None, with the key that finds most clips; all rows must have this key."""
    by_label, by_id = (_name_lookup(getattr(clip, key) for clip in clips) for key in ("label", "id"))
    lookups = (("label", by_label), ("label", by_id), ("id", by_id), ("audio_filepath", _path_lookup(clips, path)))
    candidates = []
    for key, lookup in lookups:
        if all(key in row.keys for row in rows):
            candidates.append(clip_indices := [lookup(row.keys[key]) for row in rows])
            matched = [index for index in clip_indices if index is not None]
            if len(matched) == len(rows) or len(matched) == len({*matched}) == len(clips):
                return clip_indices
    if not candidates:
        raise DataError(
            f"{path}: some rows have only an id and others only an audio_filepath; give all rows the same column"
        )
    return max(candidates, key=lambda indices: len({*indices} - {None}))


def _name_lookup(names: Iterable[str]) -> Callable[[str], int | None]:
    """Returns a function from a name to its index; "é" can be one character or two, as macOS writes it."""
    exact = {name: index for index, name in enumerate(names)}
    composed = {normalize("NFC", name): index for name, index in exact.items()}
    return lambda name: exact.get(name, composed.get(normalize("NFC", name)))


def _path_lookup(clips: Sequence[ClipNames], path: Path) -> Callable[[str], int | None]:
    """Returns a function from a path to the index of its clip. Two paths match if one ends with the other.

    `clips/a.wav` matches `/data/clips/a.wav`, but `/old/clips/a.wav` does not.
    """
    by_file_name: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    for index, clip in enumerate(clips):
        parts = _path_parts(clip.audio_filepath, Path())
        by_file_name.setdefault(parts[-1], []).append((parts, index))

    def lookup(name: str) -> int | None:
        parts = _path_parts(name, path.parent)
        matches = [
            (clip_parts, index)
            for clip_parts, index in by_file_name.get(parts[-1], [])
            if all(a == b for a, b in zip(reversed(parts), reversed(clip_parts), strict=False))
        ]
        matches = [match for match in matches if match[0] == parts] or matches
        if len(matches) > 1:
            raise DataError(
                f"{path}: {len(matches)} clips have the audio file {name!r}, and the ids of the rows, if any, are not "
                "those of the manifest; give the rows its ids"
            )
        return matches[0][1] if matches else None

    return lookup


def _path_parts(name: str, folder: Path) -> tuple[str, ...]:
    if member := parse_byte_range(name):
        name = f"{member.file}/{member.name}"
    name = normalize("NFC", name).replace("\\", "/")
    name = os.path.abspath(folder / name) if ".." in name else os.path.normpath(name)
    return tuple(part for part in name.split("/") if part)
