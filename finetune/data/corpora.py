"""Reads corpora in many formats to rows with the manifest's keys and a position (file:line) for each row.

Formats: JSON Lines, a JSON list, CSV and TSV with any delimiter, a folder of audio files with a metadata.csv or with a
.txt file of the same name for each, and Hugging Face datasets (`hub`). This module checks only the format; `audit`
checks the content of each row.
"""

import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune.core.errors import DataError
from finetune.data.audio_suffixes import AUDIO_SUFFIXES
from finetune.data.columns import is_file, to_manifest_keys
from finetune.data.corpus import Corpus, JoinedRows
from finetune.data.formats import hub
from finetune.data.formats.headerless import missing_header
from finetune.data.formats.registry import find_format
from finetune.data.formats.tables import JSON, TABLES, read_table, read_text
from finetune.data.problems import Finding
from finetune.data.row import Row
from finetune.data.source_paths import expand, is_pattern

_TIME = r"[\[(]?(?:\d+:)*\d+[.,:]\d+[\])]?"
CLOCK = re.compile(r"\s*[\[(]?(?:\d+:)+\d+(?:[.,]\d+)?[\])]?(?:\s|$)")  # a line such as "[00:12] words"
# Such as "0.0\t2.16\twords" and "00:01.5 --> 00:03.2".
TWO_TIMES = re.compile(rf"\s*{_TIME}\s*(?:\t|-->|-|–|\s)\s*{_TIME}(?:\s|$)")
METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")
SPLIT_FOLDERS = ("train", "training", "valid", "validation", "val", "dev", "test", "testing", "eval", "evaluation")


def read_corpus(
    source: str, media_dir: Path, load_dataset: Callable[..., Any] | None = None, audio_required: bool = True
) -> Corpus:
    """Reads the rows of a corpus.

    Args:
        source: a .jsonl, .json, .csv, .tsv or .parquet file, a folder of audio or of `save_to_disk`, or
            `hf:NAME[:CONFIG]:SPLIT`; or a glob or brace pattern (`source_paths`) of such files or folders, each of
            which is read by itself.
        media_dir: folder for audio that is embedded in a dataset and must become files.
        load_dataset: replaces `datasets.load_dataset` for `hf:` sources.
        audio_required: it is an error if no audio file exists; False where only texts are needed.

    Returns:
        At least one row. If `audio_filepath` is the name of a file, it is an absolute path. `offset` and `duration`
        are seconds; a row that cannot be used has a `fault`.

    Raises:
        DataError: the source is missing, empty or of another format; a column is missing (`columns.ALIASES` has the
            accepted names) or cannot be understood; no audio file exists.
    """
    if source.startswith("hf:"):
        return to_manifest_keys(hub.read_hub(source, media_dir, load_dataset), source, Path.cwd())
    if is_pattern(source):
        corpora = [read_corpus(name, media_dir, audio_required=audio_required) for name in expand(source)]
        return Corpus(JoinedRows(corpora))
    path = _existing(source)
    if known := find_format(path):
        folder = path if path.is_dir() else path.parent
        return to_manifest_keys(known.read(path, media_dir), source, folder, audio_required, known.exact)
    if path.is_dir() and hub.is_saved_dataset(path):
        return to_manifest_keys(hub.read_saved(path, media_dir), source, path)
    if path.is_dir():
        tables = [path / name for name in METADATA if (path / name).exists()]
        if not tables:
            _check_splits(path)
            return Corpus(_read_folder(path))
        path = tables[0]
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return to_manifest_keys(hub.read_parquet(path, media_dir), str(path), path.parent)
    if suffix in (*JSON, *TABLES):
        rows = read_table(path, missing_header(path) if suffix in TABLES else None)
        return to_manifest_keys(rows, str(path), path.parent, audio_required)
    raise DataError(
        f"{source}: unknown format {suffix or '(no suffix)'}; use a .jsonl, .json, .csv, .tsv or .parquet file, a "
        "folder of audio, or hf:NAME:SPLIT (unpack archives first)"
    )


def preview_rows(source: str) -> Corpus | None:
    """The rows of a corpus that can be read without its audio; None for datasets, which are not opened.

    Raises:
        DataError: see `read_corpus`.
    """
    if source.startswith("hf:"):
        hub.split_source(source)
        return None
    if is_pattern(source):
        corpora = [preview_rows(name) for name in expand(source)]
        opened = [corpus for corpus in corpora if corpus is not None]
        return Corpus(JoinedRows(opened)) if len(opened) == len(corpora) else None
    path = _existing(source)
    if path.suffix.lower() == ".parquet" or hub.is_saved_dataset(path):
        return None
    return read_corpus(source, path)


def _existing(source: str) -> Path:
    """The path of a source. Raises DataError if it does not exist or is not a valid path."""
    try:
        path = Path(source).expanduser()
        if path.exists():
            return path
        raise DataError(f"{source}: no such file or folder{_suggestion(path)}")
    except (OSError, RuntimeError, ValueError) as error:  # a name that is too long, ~user of an unknown user, a NUL
        raise DataError(f"{source}: not a valid path ({error})") from error


def has_audio_file(row: Row) -> bool:
    name = row.values.get("audio_filepath")
    return isinstance(name, str) and is_file(Path(name))


def _check_splits(folder: Path) -> None:
    """Raises DataError if a folder of audio has corpora in its subfolders, such as train and test of an audiofolder."""
    tables = [table for name in METADATA for level in ("*", "*/*") for table in folder.glob(f"{level}/{name}")]
    corpora = sorted({table.parent for table in tables})
    if not corpora:
        splits = [path for path in folder.iterdir() if path.is_dir() and path.name.lower() in SPLIT_FOLDERS]
        corpora = sorted(splits) if len(splits) > 1 else []
    if corpora:
        names = ", ".join(str(path.relative_to(folder)) for path in corpora[:10])
        raise DataError(f"{folder}: the corpora are its subfolders {names}; give one of them, such as {corpora[0]}")


def _tables(folder: Path) -> list[str]:
    """The names of the files in a folder that can be a corpus."""
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() in (*JSON, *TABLES, ".parquet"))


def has_times(text: str) -> bool:
    """Whether the lines of a transcript have times, as in subtitles and label files."""
    lines = [line for line in text.splitlines() if line.strip()]
    return any(map(TWO_TIMES.match, lines)) or (len(lines) > 1 and all(map(CLOCK.match, lines)))


def _read_folder(folder: Path) -> list[Row]:
    """Audio files, each with a .txt file of the same name. If one of the two is missing, `audit` reports the row."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    texts = {path.with_suffix(""): path for path in sorted(folder.rglob("*.txt"))}
    paired = any(path.with_suffix("") in texts for path in files)
    if not paired and (tables := _tables(folder)):
        raise DataError(
            f"{folder}: the folder has the tables {', '.join(tables)}; give one of them, such as {folder / tables[0]}"
        )
    if not files:
        raise DataError(f"{folder}: no audio files in this folder (suffixes: {', '.join(sorted(AUDIO_SUFFIXES))})")
    if not paired:
        raise DataError(
            f"{folder}: {len(files)} audio files, but none has a transcript; add files such as "
            f"{files[0].with_suffix('.txt')}, or a metadata.csv with the columns file_name and text"
        )
    rows = []
    for path in files:
        transcript = texts.get(path.with_suffix(""))
        text = read_text(transcript) if transcript else None
        fault = None
        if text and has_times(text):
            fault = Finding("times in transcript", f"a label or subtitle file: {text[:60]!r}")
        rows.append(Row(str(transcript or path), {"audio_filepath": os.path.abspath(path), "text": text}, fault))
    stems = {path.with_suffix("") for path in files}
    return rows + [
        Row(str(transcript), {"audio_filepath": os.path.abspath(stem.with_suffix(".wav")), "text": None})
        for stem, transcript in texts.items()
        if stem not in stems
    ]


def _suggestion(path: Path) -> str:
    """A suggestion for a path that does not exist, for the end of an error message."""
    if not path.parent.is_dir():
        hint = "" if path.is_absolute() else "; for a Hugging Face dataset write hf:NAME:SPLIT"
        place = "" if path.is_absolute() else f" in {Path.cwd()}"
        return f"; the folder {path.parent} does not exist{place}{hint}"
    similar = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], 1)
    return f"; did you mean {path.parent / similar[0]}?" if similar else f" in {path.parent.absolute()}"
