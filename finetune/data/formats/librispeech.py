"""Reads the folders of LibriSpeech and of Multilingual LibriSpeech (MLS).

LibriSpeech: SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt with an id and its words in each line, and the audio beside it.
MLS: transcripts.txt with an id, a tab and the words in each line, and audio/SPEAKER/BOOK/ID.flac or .opus.
"""

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from finetune.core.errors import DataError
from finetune.data.audio_suffixes import AUDIO_SUFFIXES
from finetune.data.formats.folders import few_folders, is_known_folder, subfolders, subfolders_with
from finetune.data.formats.lines import text_lines
from finetune.data.key_tables import KeyTables
from finetune.data.problems import Finding
from finetune.data.row import Row

TRANSCRIPTS = ".trans.txt"
MLS_ID = re.compile(r"(?P<speaker>[^\W_]+)_(?P<book>[^\W_]+)_\d+")
MLS_SUFFIXES = (".flac", ".opus", ".ogg", ".wav", ".mp3")


def is_librispeech(path: Path) -> bool:
    """Whether a folder has speakers with chapters with a transcript, or subfolders that have them."""
    return bool(_has_chapters(path) or _subsets(path)) and not is_known_folder(path)


def _has_chapters(folder: Path) -> bool:
    chapters = (chapter for speaker in few_folders(folder) for chapter in few_folders(speaker))
    return any(map(_transcripts, islice(chapters, 200)))


def _subsets(folder: Path) -> list[Path]:
    return sorted(subset for subset in few_folders(folder) if _has_chapters(subset))


def _transcripts(chapter: Path) -> list[str]:
    """The names of the files with transcripts of a chapter."""
    return sorted(name for name in os.listdir(chapter) if name.endswith(TRANSCRIPTS))


def read_librispeech(folder: Path, media_dir: Path) -> Iterator[Row]:
    """One row for each line of a transcript, and a fault for each audio file without one. Speakers are sorted by name.

    Raises:
        DataError: the folder has several subsets such as train-clean-100; a transcript cannot be read.
    """
    if not _has_chapters(folder):
        subsets = _subsets(folder)
        names = ", ".join(path.name for path in subsets[:10])
        raise DataError(f"{folder}: the corpora are its subfolders {names}; give one of them, such as {subsets[0]}")
    for speaker in subfolders(folder):
        for chapter in subfolders(speaker):
            yield from _chapter_rows(chapter, speaker.name)


def _chapter_rows(chapter: Path, speaker: str) -> Iterator[Row]:
    names = sorted(os.listdir(chapter))
    audio = {
        stem: name for name in names for stem, suffix in (os.path.splitext(name),) if suffix.lower() in AUDIO_SUFFIXES
    }
    used = set[str]()
    for name in _transcripts(chapter):
        for number, line in text_lines(chapter / name):
            key, _, text = line.strip().partition(" ")
            if not key:
                continue
            used.add(key)
            where = f"{chapter / name}:{number}"
            fault = None if text.strip() else Finding("empty transcript", "the line has an id and no words")
            yield Row(where, _values(chapter, audio.get(key, f"{key}.flac"), key, text, speaker), fault)
    expected = f"{speaker}-{chapter.name}{TRANSCRIPTS}"
    detail = f"no line of {expected} has this id" if _transcripts(chapter) else f"{expected} is missing"
    for stem, name in audio.items():
        if stem not in used:
            yield Row(
                str(chapter / name), _values(chapter, name, stem, None, speaker), Finding("empty transcript", detail)
            )


def _values(chapter: Path, name: str, key: str, text: str | None, speaker: str) -> dict[str, object]:
    path = os.path.abspath(chapter / name)  # so that a message about a missing file names the place
    return {"id": key, "audio_filepath": path, "text": text or None, "speaker": speaker, "chapter": chapter.name}


def is_mls(path: Path) -> bool:
    """Whether a folder is a split of MLS, or has splits of it as subfolders."""
    return path.is_dir() and bool(_is_mls_split(path) or _mls_splits(path)) and not is_known_folder(path)


def _is_mls_split(folder: Path) -> bool:
    transcripts = folder / "transcripts.txt"
    if not transcripts.is_file():
        return (folder / "audio").is_dir() and (folder / "segments.txt").is_file()
    try:
        first = next((line for _, line in text_lines(transcripts) if line.strip()), "")
    except DataError:
        return False
    return MLS_ID.fullmatch(first.partition("\t")[0]) is not None and "\t" in first


def _mls_splits(folder: Path) -> list[Path]:
    return [split for split in subfolders_with(folder, "transcripts.txt") if _is_mls_split(split)]


def read_mls(folder: Path, media_dir: Path) -> Iterator[Row]:
    """One row for each line of transcripts.txt, and a fault for each audio file without a line.

    Raises:
        DataError: a file or folder is missing; the folder has several splits.
    """
    if not _is_mls_split(folder):
        splits = _mls_splits(folder)
        names = ", ".join(path.name for path in splits)
        raise DataError(f"{folder}: the corpora are its subfolders {names}; give one of them, such as {splits[0]}")
    for name, exists in (("transcripts.txt", os.path.isfile), ("audio", os.path.isdir)):
        if not exists(folder / name):
            raise DataError(f"{folder / name} is missing; a split of MLS has transcripts.txt and the folder audio")
    tables = KeyTables()
    try:
        tables.load_list("ids", ((line.partition("\t")[0], number, "") for number, line in _lines(folder)))
        suffix = MLS_SUFFIXES[0]
        for number, line in _lines(folder):
            key, _, text = line.partition("\t")
            where = f"{folder / 'transcripts.txt'}:{number}"
            if (match := MLS_ID.fullmatch(key)) is None:
                detail = "the line does not start with an id such as 10_20_000001 and a tab"
                yield Row(where, {"audio_filepath": None, "text": text or None}, Finding("missing audio", detail))
                continue
            book = folder / "audio" / match["speaker"] / match["book"]
            suffix = next((each for each in (suffix, *MLS_SUFFIXES) if os.path.isfile(book / f"{key}{each}")), suffix)
            fault = None if text.strip() else Finding("empty transcript", "the line has an id and no words")
            yield Row(where, _mls_values(book / f"{key}{suffix}", text, match["speaker"]), fault)
        for path in _mls_audio(folder / "audio"):
            if tables.value("ids", path.stem) is None:
                detail = "transcripts.txt has no line with this id"
                values = _mls_values(path, None, path.parent.parent.name)
                yield Row(str(path), values, Finding("empty transcript", detail))
    finally:
        tables.close()


def _lines(folder: Path) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in text_lines(folder / "transcripts.txt") if line.strip())


def _mls_values(path: Path, text: str | None, speaker: str) -> dict[str, object]:
    values = {"id": path.stem, "audio_filepath": os.path.abspath(path), "text": text or None, "speaker": speaker}
    return {**values, "book": path.parent.name}


def _mls_audio(folder: Path) -> Iterator[Path]:
    for speaker in subfolders(folder):
        for book in subfolders(speaker):
            yield from (book / name for name in sorted(os.listdir(book)) if Path(name).suffix.lower() in MLS_SUFFIXES)
