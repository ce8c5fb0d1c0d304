"""Finds the audio files of a corpus: relative paths, other folders, other spellings and names without a suffix."""

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import TypeGuard

from finetune.data.audio_suffixes import AUDIO_SUFFIXES
from finetune.data.byte_range import file_of, is_url, local_path, parse_byte_range

# Common Voice, LJSpeech and others keep the audio of a table there.
AUDIO_FOLDERS = ("", "clips", "wavs", "audio", "audios")
SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")  # tried for a name such as LJ001-0001
HAS_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}\s*$")
MOST_ENTRIES = 1_000  # of a folder in which a message looks for audio
ABSENT, UNKNOWN = 0, 255  # in place of the number of a candidate: no file, and not looked for (a URL, no name)


class AudioFinder:
    """Finds the files that the names of a corpus mean.

    A file is found among candidates: spellings of the name, below each of the folders. The number of its candidate fits
    into a byte, which is kept for each row, so that a file is looked for once.

    Args:
        folder: where relative paths start, before the current directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folders = tuple(map(str, audio_folders(folder)))
        self._archives = dict[str, int]()  # by archive, the number of its candidate

    def find(self, name: str) -> int:
        """The number of the first candidate that is a file or the archive of a member, from 1; ABSENT if none is."""
        if (member := parse_byte_range(name)) is None:
            return self._find(local_path(name))
        file = local_path(member.file)
        if file not in self._archives:
            self._archives[file] = self._find(file)
        return self._archives[file]

    def _find(self, name: str) -> int:
        paths = candidates(name, self._folders)
        return next((number for number, path in enumerate(paths, 1) if is_file(path)), ABSENT)

    def path(self, name: str, number: int) -> str:
        """The absolute path of a candidate; of the first one if the file is absent."""
        member, file = parse_byte_range(name), file_of(name)
        path = os.path.abspath(next(islice(candidates(file, self._folders), max(0, number - 1), None)))
        return str(replace(member, file=path)) if member else path

    def tried(self, name: str) -> list[str]:
        """Paths that were tried for a name, for a message."""
        name = file_of(name)
        paths = [os.path.join(folder, expanded(name)) for folder in (self._folders[0], self._folders[-1])]
        return list(dict.fromkeys(path if len(path) <= 200 else f"{path[:197]}..." for path in paths))


def audio_folders(folder: Path) -> list[Path]:
    """The folders where the audio of a table can lie, the preferred one first."""
    return [*(folder / name for name in AUDIO_FOLDERS), Path.cwd()]


def find_audio(name: str, folders: Sequence[Path]) -> Path | None:
    """The file with a name from a corpus, below one of the folders; with another suffix if it has none."""
    return next((Path(path) for path in candidates(name, tuple(map(str, folders))) if is_file(path)), None)


def candidates(name: str, folders: Sequence[str]) -> Iterator[str]:
    """The paths where the file of a name can be, the preferred one first. With six folders fewer than UNKNOWN."""
    spellings = dict.fromkeys((name, name.strip()))
    if not name.isascii():
        spellings |= dict.fromkeys(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    if "\\" in name:
        spellings[name.replace("\\", "/")] = None
    for suffix in ("",) if HAS_SUFFIX.search(name) else ("", *SUFFIXES):
        for spelling in spellings:
            for folder in folders:
                yield os.path.join(folder, expanded(spelling) + suffix)


def elsewhere(name: str, folder: Path) -> str:
    """A file with a name, or its last part, also with another suffix, in the folder of the table, or in one below or
    beside it, for a message; else ""."""
    name = name.removeprefix(f"{folder}/").replace("\\", "/").lstrip("/")
    places = [folder, *(place for parent in (folder, folder.absolute().parent) for place in _folders_in(parent))]
    names = [part for part in dict.fromkeys((name, name.rpartition("/")[2])) if part]
    stem = os.path.splitext(names[-1])[0] if names else ""
    names += [f"{stem}{suffix}" for each in AUDIO_SUFFIXES for suffix in (each, each.upper()) if stem]
    return next((os.path.relpath(place / part) for part in names for place in places if is_file(place / part)), "")


def _folders_in(parent: Path) -> list[Path]:
    """The folders in a folder, of its first entries."""
    try:
        return sorted(Path(entry.path) for entry in islice(os.scandir(parent), MOST_ENTRIES) if entry.is_dir())
    except OSError:
        return []


def is_searched(name: object) -> TypeGuard[str]:
    """Whether a name can be that of a local file: not a URL, and not empty."""
    return isinstance(name, str) and not is_url(local_path(name)) and bool(name.strip())


def has_audio(path: str) -> bool:
    """Whether the audio of a path exists, as far as can be told without a connection."""
    return is_url(path) or is_file(path)


def expanded(name: str) -> str:
    """The name with the home folder for ~; unchanged if there is no such user."""
    return os.path.expanduser(name)


def is_file(path: str | Path) -> bool:
    """Whether a file exists; False for a name that cannot be one."""
    try:
        return S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):  # a name that is too long or has a NUL
        return False
