"""Names the files in a folder of audio that probably have its transcripts, but are not read there."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from finetune.data.formats.audio_names import is_audio
from finetune.data.formats.folders import SPLIT_FOLDERS
from finetune.data.formats.tables import JSON, TABLES

TIMED = (
    ".ass",
    ".ssa",
    ".ttml",
    ".dfxp",
    ".sbv",
    ".sub",
    ".smi",
    ".scc",
    ".lrc",
    ".trs",
    ".cha",
    ".exb",
    ".json",
    ".tsv",
)
DOCUMENTS = (".docx", ".doc", ".odt", ".pdf", ".rtf", ".html", ".htm", ".md")
SPREADSHEETS = (".xlsx", ".xls", ".ods")
TEXTS = (".txt", ".text", ".lst", ".yaml", ".yml", ".xml", ".nlp", ".csv", ".trn", ".trans")
KINDS = (*TIMED, *DOCUMENTS, *SPREADSHEETS, *TEXTS)
NO_TEXTS = ("readme", "license", "licence", "changelog", "copying", "notice")  # how the names of other files begin

OF_TEXTS = {"transcript", "transcripts", "transcriptions", "trans", "text", "texts", "txt", "content", "validated"}


def most_probable(paths: Iterable[Path]) -> list[Path]:
    """Relative paths; the most probable file of transcripts (of a split, or with a word for texts) is the first."""

    def rank(path: Path) -> int:
        words = {*re.split(r"[\W\d_]+", path.with_suffix("").as_posix().lower())}
        return 0 if words & {*SPLIT_FOLDERS} else 1 if words & OF_TEXTS else 2

    return sorted(paths, key=rank)


def cure(name: str) -> str:
    """What to do with a transcript of a kind that is not read."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix == ".json":
        return "export it as SRT or WebVTT (.srt, .vtt), or write one table (.jsonl) with audio_filepath and text"
    if suffix in TIMED:
        return "export it as SRT or WebVTT (.srt, .vtt)"
    if suffix in DOCUMENTS:
        return "save it as UTF-8 text (.txt)"
    if suffix in SPREADSHEETS:
        return "save it as CSV UTF-8 (.csv)"
    return "write its texts as a table with the columns audio_filepath and text"


def unread_beside(names: frozenset[str], stem: str) -> str:
    """A file of the name of an audio file with a transcript of a kind that is not read; "" if there is none."""
    return next((f"{stem}{suffix}" for suffix in KINDS if f"{stem}{suffix}" in names), "")


def unread_in(folder: Path) -> str:
    """The file in a folder that probably has its transcripts, and what to do, for the end of a message; else ""."""
    stems, others = set[str](), list[Path]()
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if is_audio(name):
                stems.add(os.path.splitext(name)[0])
            elif not name.startswith((".", "~$")) and not name.lower().startswith(NO_TEXTS):
                others.append(Path(place, name).relative_to(folder))
    known = most_probable(path for path in others if path.suffix.lower() in KINDS)
    if same := next((path for path in known if path.stem in stems), None):
        if same.suffix.lower() == ".txt":
            return f". {same} has the name of an audio file, but lies in another folder: put both into one folder"
        return f". {same} is not read: {cure(same.name)}"
    tables = (path for path in others if path.suffix.lower() in (*JSON, *TABLES) and path.parent.parts)
    if table := next(iter(most_probable(tables)), None):
        return f". If the table {table} has the transcripts, give {folder / table}"
    return f". If {known[0]} has the transcripts: {cure(known[0].name)}" if known else ""
