"""Finds the audio of a table that has no column for it, but ids that are the names of audio files (VoxPopuli)."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from finetune.data.cells import cell_text
from finetune.data.columns import known_columns
from finetune.data.formats.audio_names import is_audio
from finetune.data.row import Row


def with_audio_of_ids(rows: Iterable[Row], folder: Path) -> Iterable[Row]:
    """The rows, with `audio_filepath` if no column has audio and the first id names a file below the folder.

    Args:
        rows: rows that can be iterated several times.
        folder: the folder of the table.
    """
    first = next(iter(rows), None)
    if first is None:
        return rows
    names = {key: name for name, key in known_columns(first.values).items()}
    column = names.get("id")
    if column is None or "audio_filepath" in names or not cell_text(first.values.get(column)):
        return rows
    files = _audio_below(folder)
    return _with_audio(rows, column, files) if cell_text(first.values[column]) in files else rows


def _with_audio(rows: Iterable[Row], column: str, files: dict[str, str]) -> Iterator[Row]:
    for row in rows:
        name = cell_text(row.values.get(column))
        yield replace(row, values=row.values | {"audio_filepath": files.get(name, f"{name}.wav")})


def _audio_below(folder: Path) -> dict[str, str]:
    """The audio files below a folder by their names without suffix, the first of each name."""
    files = dict[str, str]()
    for place, folders, names in os.walk(os.path.abspath(folder)):
        folders.sort()
        for name in sorted(filter(is_audio, names)):
            files.setdefault(os.path.splitext(name)[0], os.path.join(place, name))
    return files
