"""Renames the columns of a corpus to the manifest's keys, and makes the paths of its audio absolute."""

import difflib
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from finetune.core.errors import DataError
from finetune.data.cells import shown
from finetune.data.channels import check_numbering
from finetune.data.corpus import Corpus
from finetune.data.manifest import ALWAYS_WRITTEN, VERSION_KEY, check_version
from finetune.data.row import Row
from finetune.data.segment_times import segments
from finetune.data.time_names import words_of

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
    "text": ("text", "sentence", "transcript", "transcription", "normalized_text", "reference", "label", "txt"),
    "id": ("id", "utterance_id", "utt_id", "segment_id"),
    "language": ("language", "lang", "locale"),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "keywords": ("keywords", "hotwords"),
    "accent": ("accent", "accents"),
    "channel": (
        "channel",
        "channel_id",
        "ch",
        "chan",
        "channel_index",
        "channel_idx",
        "channel_number",
        "channel_num",
        "audio_channel",
        "channel_selector",
    ),
}
CHANNEL = {"channel", "chan", "ch"}  # a column named with one of these words and some of the next ones
OF_A_CHANNEL = {"speaker", "segment", "utterance", "audio", "wav", "call", "index", "idx", "id", "no", "nr", "number"}
PATH_KEYS = ("path", "filepath", "file", "file_name", "filename")  # of an object in the audio column
NO_TIMES = {*PATH_KEYS, "bytes", "array", "sampling_rate"}
AUDIO_FOLDERS = ("", "clips", "wavs", "audio")  # Common Voice, LJSpeech and others keep the audio of a table there
SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")  # tried for a name such as LJ001-0001
HAS_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}\s*$")


def to_manifest_keys(
    rows: Iterable[Row], source: str, folder: Path, audio_required: bool = True, exact: bool = False
) -> Corpus:
    """Rows with the manifest's keys, absolute audio paths, and segments as offset and duration in seconds.

    Args:
        rows: rows with the columns of the source.
        source: the source, for messages.
        folder: where relative paths start, before the current directory.
        audio_required: it is an error if no audio file exists.
        exact: the rows have the manifest's keys, and their other columns have no meaning.

    Raises:
        DataError: there are no rows; a column is missing or cannot be understood; no audio file exists.
    """
    rows = list(rows)
    if not rows:
        raise DataError(f"{source}: the corpus has no rows")
    for row in rows:
        check_version(row.values, row.where)
    if exact or all(
        {VERSION_KEY, *ALWAYS_WRITTEN} <= row.values.keys() for row in rows
    ):  # a manifest of this toolkit: its other columns have no meaning
        return Corpus(_resolve_paths(rows, source, folder, audio_required))
    rows = _resolve_paths(_rename_columns(rows, source), source, folder, audio_required)
    check_numbering(rows, source)
    return Corpus(segments(rows, source))


def known_columns(names: Iterable[str]) -> dict[str, str]:
    """The key of each column whose name is one of ALIASES. If several columns fit a key, the preferred one has it."""
    normalized = _normalized(names)
    found = {}
    for key, aliases in ALIASES.items():
        if name := next((normalized[alias] for alias in aliases if alias in normalized), None):
            found[name] = key
    return found


def _normalized(names: Iterable[str]) -> dict[str, str]:
    """The names by their forms in lower case with underscores: `fileName` is `filename` and `file_name`."""
    names = list(names)[::-1]
    split = {name: re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name) for name in names}
    return {
        re.sub(r"[^a-z0-9]+", "_", form.lower()).strip("_"): name
        for forms in (split.items(), ((name, name) for name in names))
        for name, form in forms
    }


def _rename_columns(rows: list[Row], source: str) -> list[Row]:
    """Renames the columns to the manifest's keys. Columns that match no key keep their names."""
    columns = dict.fromkeys(name for row in rows for name in row.values)
    names = known_columns(columns)
    normalized = _normalized(columns)
    for key in ("audio_filepath", "text"):
        if key not in names.values():
            similar = [
                normalized[name]
                for alias in ALIASES[key]
                for name in difflib.get_close_matches(alias, normalized, 1, 0.75)
            ]
            hint = f"; did you mean {similar[0]!r}?" if similar else "."
            raise DataError(
                f"{source}: no column for {key}; the columns are {', '.join(map(shown, columns))}{hint} "
                f"Use one of the names {', '.join(ALIASES[key])}"
            )
    if "channel" not in names.values():
        words = {name: {*words_of(name)} for name in columns}
        similar = [name for name, found in words.items() if found & CHANNEL and found <= CHANNEL | OF_A_CHANNEL]
        names |= {name: "channel" for name in similar[:1]}
    if "channel" not in names.values() and "channels" in normalized:  # often the number of channels of the file
        name = normalized["channels"]
        if any(isinstance(row.values.get(name), list | tuple) for row in rows):
            names[name] = "channel"
    for name in columns:  # a column has the name of a key, but another column was chosen for this key
        if name not in names and name in names.values():
            names[name] = f"{name}_original"
    return [replace(row, values={names.get(name, name): value for name, value in row.values.items()}) for row in rows]


def _resolve_paths(rows: Sequence[Row], source: str, folder: Path, audio_required: bool) -> list[Row]:
    """Makes audio paths absolute. Relative paths start at `folder`, or else at the current directory."""
    bases = audio_folders(folder)
    resolved, num_files, tried = [], 0, list[str]()
    for row in rows:
        name, inner = row.values.get("audio_filepath"), dict[str, object]()
        if isinstance(name, dict):  # it can have the times or the channel of a segment
            rest = {str(key): value for key, value in name.items() if key not in NO_TIMES}
            inner = {key: rest.pop(key) for key in ("channel",) if key in rest} | ({"audio": rest} if rest else {})
            name = next((name[key] for key in PATH_KEYS if isinstance(name.get(key), str)), None)
        if isinstance(name, str) and name.strip() and "://" not in name:
            path = find_audio(name, bases)
            num_files += path is not None
            first = [os.path.join(base, expanded(name)) for base in (bases[0], bases[-1])]
            tried = tried or list(dict.fromkeys(map(_shortened, first)))
            name = os.path.abspath(path or first[0])
        elif name is not None and not isinstance(name, str):
            tried, name = tried or [shown(name)], None
        resolved.append(replace(row, values=inner | row.values | {"audio_filepath": name}))
    if not num_files and audio_required and rows[0].fault:
        raise DataError(f"{rows[0].where}: {rows[0].fault.detail}")
    if not num_files and audio_required:
        names = " and ".join(tried) or shown(rows[0].values.get("audio_filepath"))
        raise DataError(
            f"{source}: 0 of {len(rows)} audio files exist; tried {names} for {rows[0].where}; correct the paths"
        )
    return resolved


def audio_folders(folder: Path) -> list[Path]:
    """The folders where the audio of a table can lie, the preferred one first."""
    return [*(folder / name for name in AUDIO_FOLDERS), Path.cwd()]


def find_audio(name: str, bases: Sequence[Path]) -> Path | None:
    """The file with a name from a corpus, below one of the folders; with another suffix if it has none."""
    spellings = dict.fromkeys(
        (
            name,
            name.strip(),
            unicodedata.normalize("NFC", name),
            unicodedata.normalize("NFD", name),
            name.replace("\\", "/"),
        )
    )
    for suffix in ("",) if HAS_SUFFIX.search(name) else ("", *SUFFIXES):
        for spelling in spellings:
            for base in bases:
                if is_file(path := base / (expanded(spelling) + suffix)):
                    return path
    return None


def expanded(name: str) -> str:
    """The name with the home folder for ~; unchanged if there is no such user."""
    return os.path.expanduser(name)


def is_file(path: Path) -> bool:
    """Whether a file exists; False for a name that cannot be one."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long or has a NUL
        return False


def _shortened(path: str) -> str:
    return path if len(path) <= 200 else f"{path[:197]}..."
