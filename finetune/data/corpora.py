"""Corpora as people have them -> rows with the manifest's keys, and for each row where it stands.

Read here: JSON Lines (and a JSON list), CSV and TSV of any delimiter, a folder of audio with same-named .txt
files or a metadata.csv, and through `hub` Hugging Face datasets. Nothing is judged here but the form;
`audit` looks at each row.
"""

import csv
import difflib
import io
import json
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from finetune.core.errors import DataError
from finetune.core.files import parse_jsonl
from finetune.data import hub
from finetune.data.hub import Row

ALIASES = {  # in order of preference; all in lower case with underscores
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
AUDIO_SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".w64", ".caf"}
AUDIO_FOLDERS = ("", "clips", "wavs", "audio")  # where Common Voice, LJSpeech and others keep the files of a table


def read_corpus(source: str, media_dir: Path) -> list[Row]:
    """Read a corpus.

    Args:
        source: a .jsonl, .json, .csv, .tsv or .parquet file, a folder of audio or of `save_to_disk`, or
            `hf:NAME[:CONFIG]:SPLIT`.
        media_dir: where audio that lies inside a dataset is written as files.

    Returns:
        At least one row; `audio_filepath` is an absolute path wherever the file was found.

    Raises:
        DataError: the source is missing, empty or of another format; a column is missing (ALIASES has their names);
            none of its audio files exists.
    """
    if source.startswith("hf:"):
        return _located(_named(hub.read_hub(source, media_dir), source), source, Path.cwd())
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError(f"{source}: no such file or folder{_neighbours(path)}")
    if path.is_dir() and hub.is_saved_dataset(path):
        return _located(_named(hub.read_saved(path, media_dir), source), source, path)
    if path.is_dir():
        tables = [path / name for name in ("metadata.csv", "metadata.tsv", "metadata.jsonl") if (path / name).exists()]
        if not tables:
            return _read_folder(path)
        path = tables[0]
    suffix = path.suffix.lower()
    rows: Iterable[Row]
    if suffix == ".parquet":
        rows = hub.read_parquet(path, media_dir)
    elif suffix in (*JSON, *TABLES):
        rows = read_table(path)
    else:
        raise DataError(
            f"{source}: a corpus is a .jsonl, .json, .csv, .tsv or .parquet file, a folder of audio, or "
            f"hf:NAME:SPLIT; not {suffix or 'a file without suffix'} (unpack archives first)"
        )
    return _located(_named(rows, str(path)), str(path), path.parent)


def count_rows(source: str) -> tuple[int, int] | None:
    """How many rows `read_corpus` will find, and how many of them name audio that is not there.

    None of a dataset, which is opened when it is wanted in earnest.

    Raises:
        DataError: as `read_corpus`; a name that no file can have.
    """
    if source.startswith("hf:"):
        return None
    try:
        path = Path(source).expanduser()
        if path.exists() and (path.suffix.lower() == ".parquet" or hub.is_saved_dataset(path)):
            return None
    except (OSError, RuntimeError) as error:  # too long; the home of nobody
        raise DataError(f"{source}: cannot be looked for ({error})") from error
    audio = [row.values.get("audio_filepath") for row in read_corpus(source, path)]
    return len(audio), sum(not (isinstance(name, str) and _is_there(Path(name))) for name in audio)


def read_table(path: Path) -> list[Row]:
    """The rows of a .jsonl, .json, .csv or .tsv file as they stand there, with its own names of columns.

    Raises:
        DataError: the file cannot be read, or is none of these.
    """
    suffix = path.suffix.lower()
    if suffix in TABLES:
        return _read_table(path, TABLES[suffix])
    if suffix in JSON:
        return _read_json(path)
    raise DataError(f"{path}: a table is a .jsonl, .json, .csv or .tsv file, not {suffix or 'a file without suffix'}")


def _read_json(path: Path) -> list[Row]:
    text = decoded(path)
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
    text = decoded(path)
    if hint := re.match(r"sep=(.)\r?\n", text):  # Excel's own first line
        delimiters, text = hint[1], text[hint.end() :]
    header_line = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = max(delimiters, key=re.sub(r'"[^"]*"', "", header_line).count)
    table = _cells(text, delimiter, path)
    if not table:
        return []
    header, first = [name.strip() for name in table[0][1]], 2 if hint else 1
    if doubled := sorted({name for name in header if name and header.count(name) > 1}):
        raise DataError(f"{path}:{first}: the column names {doubled} occur more than once")
    rows = []
    for line, cells in table[1:]:
        where = f"{path}:{line + first - 1}"
        if any(cell.strip() for cell in cells[len(header) :]):
            raise DataError(
                f"{where}: {len(cells)} cells where the header has {len(header)}; a text that holds "
                f"{delimiter!r} must stand in quotes"
            )
        cells += [""] * (len(header) - len(cells))
        rows.append(Row(where, {name: cell for name, cell in zip(header, cells, strict=False) if name}))
    return rows


def _cells(text: str, delimiter: str, path: Path) -> list[tuple[int, list[str]]]:
    """The table's non-empty rows, each with the number of its first line."""
    # Texts between tabs or bars often hold quotation marks that quote nothing (Common Voice, LJSpeech): where
    # quoting does not come out even, or would join lines, the marks are taken as plain characters.
    unquoted = delimiter in "\t|"
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE) if unquoted else (csv.QUOTE_MINIMAL,):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
        table, line, fault = list[tuple[int, list[str]]](), 1, ""
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    table.append((line, cells))
                line = reader.line_num + 1
        except csv.Error as error:
            fault = f"{path}:{line}: not a well-formed table row: {error}"
        if not fault and not (unquoted and any("\n" in cell for _, cells in table for cell in cells)):
            return table
    raise DataError(f"{fault}; a text that holds {delimiter!r} or a quote must stand in quotes, quotes inside doubled")


def _read_folder(folder: Path) -> list[Row]:
    """Audio files with a same-named .txt each; either without the other becomes a row for the audit to report."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    texts = {path.with_suffix(""): path for path in sorted(folder.rglob("*.txt"))}
    if not files:
        raise DataError(f"{folder}: no audio files in this folder (looked for {', '.join(sorted(AUDIO_SUFFIXES))})")
    if not any(path.with_suffix("") in texts for path in files):
        raise DataError(
            f"{folder}: {len(files)} audio files, but none has its transcript beside it: expected such as "
            f"{files[0].with_suffix('.txt')}, or a metadata.csv with the columns file_name and text"
        )
    rows = []
    for path in files:
        script = texts.get(path.with_suffix(""))
        text = decoded(script) if script else None
        rows.append(Row(str(script or path), {"audio_filepath": os.path.abspath(path), "text": text}))
    audible = {path.with_suffix("") for path in files}
    return rows + [
        Row(str(script), {"audio_filepath": os.path.abspath(stem.with_suffix(".wav")), "text": None})
        for stem, script in texts.items()
        if stem not in audible
    ]


def decoded(path: Path) -> str:
    """A text file's content, whichever UTF it is in.

    Raises:
        DataError: it cannot be read, or is no text in UTF-8 or UTF-16.
    """
    try:
        data = path.read_bytes()
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return data.decode("utf-16")
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not UTF-8 text ({error.reason}); save the file as UTF-8") from error
    if "\0" in text:
        raise DataError(f"{path}: a binary file, not text")
    return text


def _named(rows: Iterable[Row], source: str) -> list[Row]:
    """Rename the columns to the manifest's keys; columns without a meaning here keep their names."""
    rows = list(rows)
    if not rows:
        raise DataError(f"{source}: holds no rows")
    seen = dict.fromkeys(name for row in rows for name in row.values)
    names = {}
    plain = {re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"): name for name in reversed(seen)}
    for key, aliases in ALIASES.items():
        if name := next((plain[alias] for alias in aliases if alias in plain), None):
            names[name] = key
        elif key in ("audio_filepath", "text"):
            near = [plain[name] for alias in aliases for name in difflib.get_close_matches(alias, plain, 1, 0.75)]
            guess = f"; is it {near[0]!r}?" if near else "."
            raise DataError(
                f"{source}: no column for {key}; the columns are {', '.join(map(repr, seen))}{guess} "
                f"Name it one of {', '.join(aliases)}"
            )
    for name in seen:  # a column that bears a key's name while another was chosen for that key
        if name not in names and name in names.values():
            names[name] = f"{name}_original"
    return [replace(row, values={names.get(name, name): value for name, value in row.values.items()}) for row in rows]


def _located(rows: list[Row], source: str, folder: Path) -> list[Row]:
    """Make audio paths absolute: relative ones are looked for from `folder`, then from the current one."""
    bases = [folder / name for name in AUDIO_FOLDERS] + [Path.cwd()]
    located, found, tried = [], 0, list[Path]()
    for row in rows:
        given = row.values.get("audio_filepath")
        if isinstance(given, str) and given.strip() and "://" not in given:
            spelled = dict.fromkeys(
                (
                    given,
                    given.strip(),
                    unicodedata.normalize("NFC", given),
                    unicodedata.normalize("NFD", given),
                    given.replace("\\", "/"),
                )
            )
            paths = [base / Path(name).expanduser() for name in spelled for base in bases]
            path = next((path for path in paths if _is_there(path)), None)
            found += path is not None
            tried = tried or list(dict.fromkeys((paths[0], paths[len(bases) - 1])))
            row = replace(row, values=row.values | {"audio_filepath": os.path.abspath(path or paths[0])})
        located.append(row)
    if not found:
        names = " and ".join(map(str, tried)) or repr(rows[0].values.get("audio_filepath"))
        raise DataError(f"{source}: 0 of {len(rows)} audio files found; tried {names} for {rows[0].where}")
    return located


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False


def _neighbours(path: Path) -> str:
    """A guess at what was meant, for the end of a message."""
    if not path.parent.is_dir():
        known = "" if path.is_absolute() else "; for a Hugging Face dataset write hf:NAME:SPLIT"
        return f"; nor is there a folder {path.parent}{known}"
    near = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], 1)
    return f"; did you mean {path.parent / near[0]}?" if near else f" (looked in {path.parent.absolute()})"
