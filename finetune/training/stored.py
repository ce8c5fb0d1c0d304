"""Files that one of several training processes writes and all of them open."""

import fcntl
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)

Content = TypeVar("Content")


def open_or_build(
    path: Path, opened: Callable[[Path], Content | None], build: Callable[[Path], object]
) -> Content | None:
    """Opens a file, and writes it first if it is missing or outdated. If several processes need it, one writes it.

    The others wait; if the writing process fails or is killed, the next one writes it. The file is complete or absent.

    Args:
        path: the file.
        opened: opens it; None if it is missing, damaged or of other content.
        build: writes the file to a path beside `path`.

    Returns:
        The content; None if the file cannot be written, such as on a full disk.
    """
    if (content := opened(path)) is not None:
        return content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f".{path.name}.lock").open("a") as lock:
            with suppress(OSError):  # a file system without locks: each process writes the same file
                fcntl.flock(lock, fcntl.LOCK_EX)
            if (content := opened(path)) is None:
                build(temporary)
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(temporary, path)
                content = opened(path)
            return content
    except OSError as error:
        log.info("%s: not written (%s); every process keeps its content in memory", path, error.strerror or error)
        return None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
