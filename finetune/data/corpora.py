"""Reads corpora in many formats to rows with the manifest's keys and a position (file:line) for each row.

Formats: JSON Lines, a JSON list, CSV and TSV with any delimiter, a folder of audio files with a metadata.csv or with a
.txt file of the same name for each, and Hugging Face datasets (`hub`). This module checks only the format; `audit`
checks the content of each row.
"""

import csv
import difflib
import io
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune.core.errors import DataError
from finetune.core.files import parse_jsonl, read_bytes
from finetune.data import hub
from finetune.data.hub import Row

ALIASES = {  # column names for each key, the preferred one first; lower case with underscores
    "audio_filepath": (
        "audio_filepath",
        "audio_file",
        "audio_path",
        "path",
        "file",
        "file_name",
        "filename",
        "audio",
        "wav",
        "wav_path",
        "wav_file",
    ),
    "text": ("text", "sentence", "transcript", "transcription", "normalized_text", "reference", "label"),
    "id": ("id", "utterance_id", "utt_id", "segment_id"),
    "offset": ("offset",),
    "duration": ("duration", "length", "seconds", "duration_seconds"),
    "language": ("language", "lang", "locale"),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "keywords": ("keywords", "hotwords"),
}
JSON = (".jsonl", ".json")
TABLES = {".csv": ",;\t|", ".tsv": "\t"}
AUDIO_SUFFIXES = {
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".w64", ".caf"),
    *(".m4a", ".mp4", ".aac", ".wma", ".webm", ".mkv", ".mov", ".amr", ".3gp"),
}
AUDIO_FOLDERS = ("", "clips", "wavs", "audio")  # Common Voice, LJSpeech and others keep the audio of a table there


def read_corpus(source: str, media_dir: Path, load_dataset: Callable[..., Any] | None = None) -> list[Row]:
    """Reads the rows of a corpus.

    Args:
        source: a .jsonl, .json, .csv, .tsv or .parquet file, a folder of audio or of `save_to_disk`, or
            `hf:NAME[:CONFIG]:SPLIT`.
        media_dir: folder for audio that is embedded in a dataset and must become files.
        load_dataset: replaces `datasets.load_dataset` for `hf:` sources.

    Returns:
        At least one row. If `audio_filepath` is the name of a file, it is an absolute path.

    Raises:
        DataError: the source is missing, empty or of another format; a column is missing (ALIASES has the accepted
            names); no audio file exists.
    """
    if source.startswith("hf:"):
        return _to_manifest_keys(hub.read_hub(source, media_dir, load_dataset), source, Path.cwd())
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError(f"{source}: no such file or folder{_suggestion(path)}")
    if path.is_dir() and hub.is_saved_dataset(path):
        return _to_manifest_keys(hub.read_saved(path, media_dir), source, path)
    if path.is_dir():
        tables = [path / name for name in ("metadata.csv", "metadata.tsv", "metadata.jsonl") if (path / name).exists()]
        if not tables:
            return _read_folder(path)
        path = tables[0]
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _to_manifest_keys(hub.read_parquet(path, media_dir), str(path), path.parent)
    if suffix in (*JSON, *TABLES):
        return _to_manifest_keys(read_table(path), str(path), path.parent)
    raise DataError(
        f"{source}: unknown format {suffix or '(no suffix)'}; use a .jsonl, .json, .csv, .tsv or .parquet file, a "
        "folder of audio, or hf:NAME:SPLIT (unpack archives first)"
    )


def preview_rows(source: str) -> list[Row] | None:
    """The rows of a corpus that can be read without its audio; None for datasets, which are not opened.

    Raises:
        DataError: see `read_corpus`; or the source is not a valid file name.
    """
    if source.startswith("hf:"):
        hub.split_source(source)
        return None
    try:
        path = Path(source).expanduser()
        if path.exists() and (path.suffix.lower() == ".parquet" or hub.is_saved_dataset(path)):
            return None
    except (OSError, RuntimeError) as error:  # a name that is too long, or ~user of an unknown user
        raise DataError(f"{source}: not a valid path ({error})") from error
    return read_corpus(source, path)


def has_audio_file(row: Row) -> bool:
    name = row.values.get("audio_filepath")
    return isinstance(name, str) and _exists(Path(name))


def read_table(path: Path) -> list[Row]:
    """The rows of a .jsonl, .json, .csv or .tsv file, with the column names of the file.

    Raises:
        DataError: the file cannot be read or has another format.
    """
    suffix = path.suffix.lower()
    if suffix in TABLES:
        return _read_table(path, TABLES[suffix])
    if suffix in JSON:
        return _read_json(path)
    raise DataError(f"{path}: unknown format {suffix or '(no suffix)'}; use .jsonl, .json, .csv or .tsv")


def _read_json(path: Path) -> list[Row]:
    text = read_text(path)
    if not text.lstrip().startswith("["):
        return [Row(where, values) for where, values in parse_jsonl(text, path)]
    try:
        rows = [Row(f"{path}: item {number}", values) for number, values in enumerate(json.loads(text), 1)]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: neither JSON Lines nor a JSON list ({error})") from error
    for row in rows:
        if not isinstance(row.values, dict):
            raise DataError(f"{row.where}: not a JSON object with keys such as audio_filepath and text")
    return rows


def _read_table(path: Path, delimiters: str) -> list[Row]:
    text = read_text(path)
    if hint := re.match(r"sep=(.)\r?\n", text):  # the first line that Excel writes
        delimiters, text = hint[1], text[hint.end() :]
    header_line = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = max(delimiters, key=re.sub(r'"[^"]*"', "", header_line).count)
    table = _cells(text, delimiter, path)
    if not table:
        return []
    header, first = [name.strip() for name in table[0][1]], 2 if hint else 1
    if duplicates := sorted({name for name in header if name and header.count(name) > 1}):
        raise DataError(f"{path}:{first}: the column names {duplicates} occur more than once; rename them")
    rows = []
    for line, cells in table[1:]:
        where = f"{path}:{line + first - 1}"
        if any(cell.strip() for cell in cells[len(header) :]):
            raise DataError(
                f"{where}: {len(cells)} cells, but the header has {len(header)}; put a text with "
                f"{delimiter!r} in quotes"
            )
        cells += [""] * (len(header) - len(cells))
        rows.append(Row(where, {name: cell for name, cell in zip(header, cells, strict=False) if name}))
    return rows


def _cells(text: str, delimiter: str, path: Path) -> list[tuple[int, list[str]]]:
    """The non-empty rows of a table, each with the number of its first line."""
    # Tables with tabs or bars often have texts with plain quotation marks (Common Voice, LJSpeech). If the quotes do
    # not match or would merge lines, they count as plain characters.
    unquoted = delimiter in "\t|"
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE) if unquoted else (csv.QUOTE_MINIMAL,):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
        table, line, problem = list[tuple[int, list[str]]](), 1, ""
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    table.append((line, cells))
                line = reader.line_num + 1
        except csv.Error as error:
            problem = f"{path}:{line}: not a well-formed table row: {error}"
        if not problem and not (unquoted and any("\n" in cell for _, cells in table for cell in cells)):
            return table
    raise DataError(f"{problem}; put a text with {delimiter!r} or a quote in quotes, and double the quotes inside it")


def _read_folder(folder: Path) -> list[Row]:
    """Audio files, each with a .txt file of the same name. If one of the two is missing, `audit` reports the row."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    texts = {path.with_suffix(""): path for path in sorted(folder.rglob("*.txt"))}
    if not files:
        raise DataError(f"{folder}: no audio files in this folder (suffixes: {', '.join(sorted(AUDIO_SUFFIXES))})")
    if not any(path.with_suffix("") in texts for path in files):
        raise DataError(
            f"{folder}: {len(files)} audio files, but none has a transcript; add files such as "
            f"{files[0].with_suffix('.txt')}, or a metadata.csv with the columns file_name and text"
        )
    rows = []
    for path in files:
        transcript = texts.get(path.with_suffix(""))
        text = read_text(transcript) if transcript else None
        rows.append(Row(str(transcript or path), {"audio_filepath": os.path.abspath(path), "text": text}))
    stems = {path.with_suffix("") for path in files}
    return rows + [
        Row(str(transcript), {"audio_filepath": os.path.abspath(stem.with_suffix(".wav")), "text": None})
        for stem, transcript in texts.items()
        if stem not in stems
    ]


def read_text(path: Path) -> str:
    """The content of a text file in UTF-8 or UTF-16.

    Raises:
        DataError: the file cannot be read, or is not text in UTF-8 or UTF-16.
    """
    try:
        data = read_bytes(path)
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return data.decode("utf-16")
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not UTF-8 text ({error.reason}); save the file as UTF-8") from error
    if "\0" in text:
        raise DataError(f"{path}: a binary file, not text; export it as UTF-8 text")
    return text


def _to_manifest_keys(rows: Iterable[Row], source: str, folder: Path) -> list[Row]:
    """Rows with the manifest's keys and absolute audio paths."""
    return _resolve_paths(_rename_columns(rows, source), source, folder)


def _rename_columns(rows: Iterable[Row], source: str) -> list[Row]:
    """Renames the columns to the manifest's keys. Columns that match no key keep their names."""
    rows = list(rows)
    if not rows:
        raise DataError(f"{source}: the corpus has no rows")
    columns = dict.fromkeys(name for row in rows for name in row.values)
    names = {}
    normalized = {re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"): name for name in reversed(columns)}
    for key, aliases in ALIASES.items():
        if name := next((normalized[alias] for alias in aliases if alias in normalized), None):
            names[name] = key
        elif key in ("audio_filepath", "text"):
            similar = [
                normalized[name] for alias in aliases for name in difflib.get_close_matches(alias, normalized, 1, 0.75)
            ]
            hint = f"; did you mean {similar[0]!r}?" if similar else "."
            raise DataError(
                f"{source}: no column for {key}; the columns are {', '.join(map(repr, columns))}{hint} "
                f"Use one of the names {', '.join(aliases)}"
            )
    for name in columns:  # a column has the name of a key, but another column was chosen for this key
        if name not in names and name in names.values():
            names[name] = f"{name}_original"
    return [replace(row, values={names.get(name, name): value for name, value in row.values.items()}) for row in rows]


def _resolve_paths(rows: list[Row], source: str, folder: Path) -> list[Row]:
    """Makes audio paths absolute. Relative paths start at `folder`, or else at the current directory."""
    bases = [folder / name for name in AUDIO_FOLDERS] + [Path.cwd()]
    resolved, num_files, tried = [], 0, list[Path]()
    for row in rows:
        name = row.values.get("audio_filepath")
        if isinstance(name, str) and name.strip() and "://" not in name:
            spellings = dict.fromkeys(
                (
                    name,
                    name.strip(),
                    unicodedata.normalize("NFC", name),
                    unicodedata.normalize("NFD", name),
                    name.replace("\\", "/"),
                )
            )
            paths = [base / Path(spelling).expanduser() for spelling in spellings for base in bases]
            path = next((path for path in paths if _exists(path)), None)
            num_files += path is not None
            tried = tried or list(dict.fromkeys((paths[0], paths[len(bases) - 1])))
            row = replace(row, values=row.values | {"audio_filepath": os.path.abspath(path or paths[0])})
        resolved.append(row)
    if not num_files:
        names = " and ".join(map(str, tried)) or repr(rows[0].values.get("audio_filepath"))
        raise DataError(
            f"{source}: 0 of {len(rows)} audio files exist; tried {names} for {rows[0].where}; correct the paths"
        )
    return resolved


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False


def _suggestion(path: Path) -> str:
    """A suggestion for a path that does not exist, for the end of an error message."""
    if not path.parent.is_dir():
        hint = "" if path.is_absolute() else "; for a Hugging Face dataset write hf:NAME:SPLIT"
        place = "" if path.is_absolute() else f" in {Path.cwd()}"
        return f"; the folder {path.parent} does not exist{place}{hint}"
    similar = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], 1)
    return f"; did you mean {path.parent / similar[0]}?" if similar else f" in {path.parent.absolute()}"
