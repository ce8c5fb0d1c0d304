"""The state of audio files: whether they exist, and what changes if they are written again, without reading them.

The state of a member of an archive is that of the archive.
"""

import hashlib
import logging
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from finetune.core.errors import DataError
from finetune.data.audio_source import local_status
from finetune.data.byte_range import file_of, is_url, local_path, parse_byte_range
from finetune.data.remote import remote_state

log = logging.getLogger(__name__)

REQUESTS = 16  # remote files that are asked for at a time

FileState = list[int]  # size in bytes, time of change in nanoseconds; a hash of the version if it is remote


def file_state(path: str) -> FileState | None:
    """Size and time of the file of an `audio_filepath`; None if it cannot be read, or is remote."""
    name = file_of(path)
    if is_url(name):
        return None
    try:
        status = os.stat(name)
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


def remote_states(urls: Collection[str]) -> dict[str, FileState | None]:
    """The states of remote files and archives; None if one cannot be reached, which is logged."""
    if not urls:
        return {}
    with ThreadPoolExecutor(REQUESTS) as pool:
        return dict(zip(urls, pool.map(_remote_state, urls), strict=True))


def has_bytes(path: str) -> bool:
    """Whether a file exists, and an archive has the bytes of a member. A single remote file is not asked for."""
    member = parse_byte_range(path)
    if member is None:
        return is_url(local_path(path)) or _local_size(local_path(path)) is not None
    size = _archive_size(file_of(path))
    return size is not None and member.start + member.length <= size


def _remote_state(url: str) -> FileState | None:
    try:
        state = remote_state(url)
    except DataError as error:
        log.warning("%s", error)
        return None
    version = hashlib.blake2b(state.version.encode(), digest_size=8).digest()
    return [state.size or 0, int.from_bytes(version) >> 1]


@lru_cache(1 << 12)
def _archive_size(file: str) -> int | None:
    """The size of an archive; None if it cannot be read."""
    if not is_url(file):
        return _local_size(file)
    state = _remote_state(file)
    return None if state is None else state[0]


def _local_size(file: str) -> int | None:
    try:
        return local_status(file, file).st_size
    except DataError:
        return None
