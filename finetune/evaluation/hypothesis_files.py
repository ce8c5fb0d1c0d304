"""Hypothesis files of any recognizer (JSON Lines, CSV, TSV, TRN): one text for each clip, or an error."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.core.errors import DataError
from finetune.data.corpora import read_table, read_text

TEXT = "pred_text"
KEYS = ("id", "audio_filepath")  # by which a row tells its clip
_TRN = re.compile(r"(.*)\(([^()\s]+)\)\s*")
_EXAMPLES = 3


@dataclass(frozen=True)
class Names:
    """How files may name a clip: its id, its audio file, and its label in a TRN file (the id will do as well)."""

    id: str
    audio_filepath: str
    label: str


@dataclass(frozen=True)
class Hypothesis:
    """One clip's `text`, and all the `cells` of its row (none in TRN)."""

    text: str
    cells: Mapping[str, object]


def read_hypotheses(path: Path, clips: Sequence[Names]) -> list[Hypothesis]:
    """What the file has for each clip, in the order of the clips; an empty text is silence.

    Rows of JSON Lines, CSV and TSV have `pred_text` and `id`, or `audio_filepath` (relative or absolute: one of the
    two paths must end with the other). Lines of TRN are `words (id)`, as sclite and `evaluation/*.trn` have them.

    Raises:
        DataError: the file cannot be read, or a row has no text or no name (names file:line); clips without a row,
            rows without a clip, or a clip with several: none of the file is used then.
    """
    rows = _trn_rows(path) if path.suffix.lower() == ".trn" else _table_rows(path)
    if not rows:
        raise DataError(f"{path}: holds no hypotheses")
    places = _places(rows, clips, path)
    found: dict[int, _Row] = {}
    doubled, strange = list[str](), list[str]()
    for row, place in zip(rows, places, strict=True):
        if place is None:
            strange.append(row.name)
        elif place in found:
            doubled.append(row.name)
        else:
            found[place] = row
    missing = [clip.id for index, clip in enumerate(clips) if index not in found]
    faults = [
        f"{len(names)} {what}: {', '.join(map(repr, names[:_EXAMPLES]))}{' ...' * (len(names) > _EXAMPLES)}"
        for what, names in (
            (f"of {len(clips)} clips have no hypothesis", missing),
            (f"of {len(rows)} rows are of no clip", strange),
            ("rows name a clip that has one already", doubled),
        )
        if names
    ]
    if faults:
        raise DataError(
            f"{path} does not fit the clips, so nothing was scored\n  "
            + "\n  ".join(faults)
            + "\nIt needs one row for each clip of the manifest, and no other."
        )
    return [found[index].said for index in range(len(clips))]


@dataclass(frozen=True)
class _Row:
    """`keys` is what the row says of its clip, `name` the first of it."""

    keys: Mapping[str, str]
    said: Hypothesis

    @property
    def name(self) -> str:
        return next(iter(self.keys.values()))


def _table_rows(path: Path) -> list[_Row]:
    found = []
    for row in read_table(path):
        cells = {str(name).strip(): value for name, value in row.values.items()}
        if not isinstance(text := cells.get(TEXT), str):
            raise DataError(
                f"{row.where}: no text in {TEXT!r}; the row has {', '.join(map(repr, cells)) or 'nothing'}."
                f" A hypothesis is a string in {TEXT!r}, empty where nothing was heard"
            )
        keys = {key: str(cells[key]).strip() for key in KEYS if cells.get(key) not in (None, "")}
        if not keys:
            raise DataError(f"{row.where}: neither an id nor an audio_filepath tells which clip this is")
        found.append(_Row(keys, Hypothesis(text, cells)))
    return found


def _trn_rows(path: Path) -> list[_Row]:
    found = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        line = line.rstrip("\r")
        if not line.strip() or line.startswith(";;"):
            continue
        if not (match := _TRN.fullmatch(line)):
            raise DataError(f"{path}:{number}: not a line of TRN, which is words and then (id): {line[-60:]!r}")
        found.append(_Row({"label": match[2]}, Hypothesis(match[1].strip(), {})))
    return found


def _places(rows: Sequence[_Row], clips: Sequence[Names], path: Path) -> list[int | None]:
    """For each row its clip, by whichever key that all rows have fits more clips."""
    labels, ids = ({getattr(clip, key): index for index, clip in enumerate(clips)} for key in ("label", "id"))
    readings = (("label", labels.get), ("label", ids.get), ("id", ids.get), ("audio_filepath", _by_file(clips, path)))
    choices = []
    for key, find in readings:
        if all(key in row.keys for row in rows):
            choices.append([find(row.keys[key]) for row in rows])
            if None not in choices[-1]:
                return choices[-1]
    if not choices:
        raise DataError(f"{path}: some rows have an id and others an audio_filepath; give all of them the same")
    return max(choices, key=lambda places: sum(place is not None for place in places))


def _by_file(clips: Sequence[Names], path: Path) -> Callable[[str], int | None]:
    """Paths fit where one ends with the other: `clips/a.wav` fits `/data/clips/a.wav`, but `/old/clips/a.wav` not."""
    known: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    for index, clip in enumerate(clips):
        parts = _parts(clip.audio_filepath, Path())
        known.setdefault(parts[-1], []).append((parts, index))

    def find(name: str) -> int | None:
        parts = _parts(name, path.parent)
        fitting = [
            (other, index)
            for other, index in known.get(parts[-1], [])
            if all(a == b for a, b in zip(reversed(parts), reversed(other), strict=False))
        ]
        fitting = [item for item in fitting if item[0] == parts] or fitting
        if len(fitting) > 1:
            raise DataError(f"{path}: {len(fitting)} clips are of the audio file {name!r}; tell them apart by id")
        return fitting[0][1] if fitting else None

    return find


def _parts(name: str, folder: Path) -> tuple[str, ...]:
    name = name.replace("\\", "/")
    name = os.path.abspath(folder / name) if ".." in name else os.path.normpath(name)
    return tuple(part for part in name.split("/") if part)
