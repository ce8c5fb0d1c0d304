"""Makes the paths of audio absolute in a corpus of several files, whose paths start in different folders."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from finetune.data.audio_paths import audio_folders, find_audio
from finetune.data.columns import known_columns
from finetune.data.row import Row


def with_paths(rows: Iterable[Row], folder: Path) -> Iterator[Row]:
    """The rows of one file in a folder, with the absolute path of each audio file that exists."""
    bases, names = audio_folders(folder), dict[str, str]()
    for row in rows:
        names = names or {key: name for name, key in known_columns(row.values).items()}
        column = names.get("audio_filepath", "")
        name = row.values.get(column)
        is_relative = isinstance(name, str) and name.strip() and not os.path.isabs(name)
        audio = find_audio(str(name), bases) if is_relative else None
        yield replace(row, values=row.values | {column: str(audio)}) if audio else row
