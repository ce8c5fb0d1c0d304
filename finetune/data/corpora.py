"""Reads corpora of every format to rows with the manifest's keys and a position (file:line) for each row.

`formats/registry.py` finds the other formats by their content. This module checks only the format; `audit` checks the
content of each row.
"""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune.core.errors import DataError
from finetune.data.audio_state import has_bytes
from finetune.data.audio_suffixes import AUDIO_SUFFIXES
from finetune.data.byte_range import is_url
from finetune.data.conversion import to_manifest_keys
from finetune.data.corpus import Corpus, joined
from finetune.data.formats import hub
from finetune.data.formats.audio_by_id import with_audio_of_ids
from finetune.data.formats.headerless import missing_header
from finetune.data.formats.registry import find_format, read_url
from finetune.data.formats.tables import JSON, TABLES, read_table
from finetune.data.formats.unread_files import SPREADSHEETS
from finetune.data.row import Row
from finetune.data.source_paths import expand, is_pattern

COMPRESSED = (".zip", ".tgz", ".tbz2", ".txz", ".bz2", ".xz", ".zst", ".7z", ".rar")
MADE_BY_SCRIPTS = {  # folders of the recipes in recipes/ that are not in the repository
    "data/ivr-en": "scripts/fetch_ivr",
    "data/prompts-es": "scripts/fetch_prompts es",
    "data/prompts-fr": "scripts/fetch_prompts fr",
    "data/prompts-it": "scripts/fetch_prompts it",
    "data/terms-from-text": "scripts/make_term_clips",
    "data/keyword-clips": "scripts/make_keyword_clips.py",
}


def read_corpus(
    source: str,
    media_dir: Path,
    load_dataset: Callable[..., Any] | None = None,
    audio_required: bool = True,
    text_required: bool = True,
) -> Corpus:
    """Reads the rows of a corpus.

    Args:
        source: a .jsonl, .json, .csv, .tsv or .parquet file, a folder of audio or of `save_to_disk`, or
            `hf:NAME[:CONFIG]:SPLIT`, or the URL of a tar, Shar or Parquet shard; or a glob or brace pattern
            (`source_paths`) of such files or folders, each of which is read by itself.
        media_dir: folder for audio that is embedded in a dataset and must become files.
        load_dataset: replaces `datasets.load_dataset` for `hf:` sources.
        audio_required: it is an error if no audio file exists; False where only texts are needed.
        text_required: it is an error if there is no column for the text; False for untranscribed audio.

    Returns:
        At least one row. If `audio_filepath` is the name of a file, it is an absolute path. `offset` and `duration`
        are seconds; a row that cannot be used has a `fault`.

    Raises:
        DataError: the source is missing, empty or of another format; a column is missing (`columns.ALIASES` has the
            accepted names) or cannot be understood; no audio file exists.
    """
    if source.startswith("hf:"):
        hub_rows = hub.read_hub(source, media_dir, load_dataset)
        return to_manifest_keys(hub_rows, source, Path.cwd(), text_required=text_required)
    if is_pattern(source):
        names = expand(source)
        return joined([read_corpus(name, media_dir, None, audio_required, text_required) for name in names])
    if is_url(source):
        remote_rows, exact = read_url(source, media_dir)
        return to_manifest_keys(remote_rows, source, Path.cwd(), audio_required, exact, text_required)
    path = _existing(source)
    if known := find_format(path):
        folder = path if path.is_dir() else path.parent
        return to_manifest_keys(known.read(path, media_dir), source, folder, audio_required, known.exact, text_required)
    suffix = path.suffix.lower()
    if suffix in (*JSON, *TABLES):
        rows = read_table(path, missing_header(path) if suffix in TABLES else None)
        with_audio = with_audio_of_ids(rows, path.parent)
        return to_manifest_keys(with_audio, str(path), path.parent, audio_required, text_required=text_required)
    if suffix in COMPRESSED or path.name.lower().endswith(".tar.gz"):
        raise DataError(
            f"{source}: a compressed archive; its clips cannot be read in place: unpack it, or make a plain .tar"
        )
    if suffix in SPREADSHEETS:
        raise DataError(f"{source}: a spreadsheet; save it as CSV UTF-8 (.csv)")
    if suffix in AUDIO_SUFFIXES:
        raise DataError(
            f"{source}: an audio file; give its transcript, such as {path.with_suffix('.srt')}, the folder of both, "
            "or a table with the columns audio_filepath and text"
        )
    raise DataError(
        f"{source}: unknown format {suffix or '(no suffix)'}; use a .jsonl, .json, .csv, .tsv or .parquet file, a "
        ".tar of clips and texts, a folder of audio, or hf:NAME:SPLIT"
    )


def preview_rows(source: str, text_required: bool = True) -> Corpus | None:
    """The rows of a corpus that can be read without its audio; None for datasets and URLs, which are not opened.

    Args:
        source, text_required: see `read_corpus`.

    Raises:
        DataError: see `read_corpus`.
    """
    if source.startswith("hf:"):
        hub.split_source(source)
        return None
    if is_pattern(source):
        corpora = [preview_rows(name, text_required) for name in expand(source)]
        opened = [corpus for corpus in corpora if corpus is not None]
        return joined(opened) if len(opened) == len(corpora) else None
    if is_url(source):
        return None
    path = _existing(source)
    if (known := find_format(path)) and not known.opened_by_check:
        return None
    if known and known.preview:
        folder = path if path.is_dir() else path.parent
        return to_manifest_keys(known.preview(path), source, folder, True, known.exact, text_required)
    return read_corpus(source, path, text_required=text_required)


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
    return isinstance(name, str) and has_bytes(name)


def _suggestion(path: Path) -> str:
    """A suggestion for a path that does not exist, for the end of an error message."""
    for folder, script in MADE_BY_SCRIPTS.items():
        if folder in (path.parent.as_posix(), path.as_posix()):
            return f"; run {script} first"
    if not path.parent.is_dir():
        hint = "" if path.is_absolute() else "; for a Hugging Face dataset write hf:NAME:SPLIT"
        place = "" if path.is_absolute() else f" in {Path.cwd()}"
        return f"; the folder {path.parent} does not exist{place}{hint}"
    similar = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], 1)
    return f"; did you mean {path.parent / similar[0]}?" if similar else f" in {path.parent.absolute()}"
