"""The state of an audio file, by which a change is noticed without reading it."""

import os

from finetune.data.byte_range import is_url, parse_byte_range

FileState = list[int]  # size in bytes, time of change in nanoseconds


def local_file(path: str) -> str:
    """The file that has the audio: for a member of an archive, the archive."""
    member = parse_byte_range(path)
    return member.file if member else path


def file_state(path: str) -> FileState | None:
    """Size and time of the file of an `audio_filepath`; None if it cannot be read, or is remote."""
    name = local_file(path)
    if is_url(name):
        return None
    try:
        status = os.stat(name)
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]
