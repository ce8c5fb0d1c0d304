"""A hash of the files of a corpus, by which a change is noticed.

A file counts with its content, a file of more than a gigabyte and the files of a folder or pattern with their names,
sizes and times.
"""

import hashlib
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from finetune.core.errors import DataError
from finetune.core.files import sha256_file
from finetune.data.source_paths import expand, is_pattern

MAX_HASHED = 1 << 30  # bytes


def corpus_state(source: str, skip: Path) -> str:
    """The state of a corpus; "" for a data set of the hub, and for what does not exist.

    Args:
        source: as in `data.train`.
        skip: a folder that is no part of a corpus, even if it lies in one: that of the run directories.
    """
    if source.startswith("hf:"):
        return ""
    try:
        names = expand(source) if is_pattern(source) else [os.path.expanduser(source)]
        if len(names) == 1 and os.path.isfile(names[0]) and os.path.getsize(names[0]) <= MAX_HASHED:
            return sha256_file(names[0])
        lines = chain.from_iterable(_lines(Path(name), os.path.abspath(skip)) for name in names)
        return _hash(lines) if any(map(os.path.exists, names)) else ""
    except (OSError, RuntimeError, ValueError, DataError):  # reported where the corpus is read
        return ""


def _lines(path: Path, skip: str) -> Iterator[str]:
    """Name, size and time of a file, or of each file in a folder and its subfolders, in order, except hidden files."""
    if path.is_file():
        yield _line(path.name, path)
    for parent, folders, names in os.walk(path):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and os.path.abspath(os.path.join(parent, name)) != skip
        )
        for name in sorted(names):
            if not name.startswith("."):
                yield _line(os.path.relpath(os.path.join(parent, name), path), os.path.join(parent, name))


def _line(name: str, path: str | Path) -> str:
    status = os.stat(path) if os.path.exists(path) else os.lstat(path)  # a link to a missing file
    return f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"


def _hash(lines: Iterator[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
