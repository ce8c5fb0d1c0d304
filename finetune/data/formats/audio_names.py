"""Finds the audio file of a recording by its name: beside its transcript, or in a usual folder."""

import os
from pathlib import Path

from finetune.data.audio_suffixes import AUDIO_SUFFIXES

FOLDERS = ("", "audio", "wav", "wavs", "sph", "flac", "mp3", "clips", "media", "video", "videos", "..")
BESIDE = ("audio", "wav", "wavs", "sph", "flac", "mp3", "clips", "media", "video", "videos")  # beside the folder


def is_audio(name: str) -> bool:
    """Whether a file name has the suffix of an audio or video file."""
    return os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES


class AudioNames:
    """The audio files of folders by their names without suffix. A folder is listed once."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, str]] = {}

    def find(self, name: str, folder: Path) -> Path | None:
        """The audio of a recording whose transcript lies in a folder.

        Args:
            name: the name of the recording, with or without a suffix of audio.
            folder: where its transcript lies.
        """
        stem = os.path.splitext(name)[0] if is_audio(name) else name
        places = [folder / inner for inner in FOLDERS] + [folder.parent / inner for inner in BESIDE]
        for place in places:
            names = self._listed(place)
            if file_name := names.get(name) or names.get(stem):
                return Path(os.path.normpath(place)) / file_name
        return None

    def _listed(self, folder: Path) -> dict[str, str]:
        """The names of the audio files, by their complete names and by their stems; of several, the preferred one."""
        if folder not in self._folders:
            try:
                names = [name for name in os.listdir(folder) if is_audio(name) and not name.startswith("._")]
            except OSError:
                names = []
            names.sort(key=lambda name: (AUDIO_SUFFIXES.index(os.path.splitext(name)[1].lower()), name), reverse=True)
            self._folders[folder] = {os.path.splitext(name)[0]: name for name in names} | {name: name for name in names}
        return self._folders[folder]
