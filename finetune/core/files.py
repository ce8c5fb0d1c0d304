"""Read and write JSON, JSON Lines and text; hash a file; replace a file or a folder atomically."""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.core.errors import DataError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, a quota, a limit for each file
SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # the message of numpy's tofile
MAX_LIST_BYTES = 10_000_000  # of a list of terms, keywords or files
MAX_BAD_LINES = 3  # lines that an error message lists
_DECODE = json.JSONDecoder().raw_decode


def read_bytes(path: str | Path, limit: int | None = None) -> bytes:
    """The content of a regular file. A pipe or a device is refused, because reading it might never end.

    Args:
        path: the file; a pipe of the shell (`<(command)`) is read too.
        limit: largest size in bytes.

    Raises:
        OSError: the file cannot be read, is not a regular file or is larger than `limit`; `strerror` has the reason.
    """
    with open(open_regular(path), "rb") as file:
        content = file.read(-1 if limit is None else limit + 1)
    if limit is not None and len(content) > limit:
        raise OSError(errno.EINVAL, f"larger than {limit / 1e6:g} MB", str(path))
    return content


def read_lines(path: str | Path) -> list[str]:
    """The non-empty lines of a list of file names in UTF-8, without outer spaces. Raises DataError."""
    return [line.strip() for line in _read_list(path).split("\n") if line.strip()]


def numbered_lines(path: str | Path) -> list[tuple[int, str]]:
    """The non-empty lines of a text in UTF-8, without outer spaces, with their numbers from 1. Raises DataError."""
    return [(number, line.strip()) for number, line in enumerate(_read_list(path).splitlines(), 1) if line.strip()]


def _read_list(path: str | Path) -> str:
    try:
        return read_bytes(path, MAX_LIST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason}); save the file as UTF-8") from error


def open_regular(path: str | Path) -> int:
    """A file descriptor of a regular file, or of a pipe of the shell (`<(command)`), for reading.

    Raises:
        OSError: the file cannot be opened or is neither; `strerror` has the reason.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except ValueError as error:
        raise OSError(errno.EINVAL, "the name has a null byte", str(path)) from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode) and str(path).startswith("/dev/fd/"):
        os.set_blocking(descriptor, True)
    elif not stat.S_ISREG(mode):
        os.close(descriptor)
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, os.strerror(code) if code == errno.EISDIR else "not a regular file", str(path))
    return descriptor


def read_json(path: Path) -> Any:
    """The content of a JSON file in UTF-8.

    Raises:
        OSError: see `read_bytes`.
        ValueError: not JSON.
    """
    try:
        return json.loads(read_bytes(path).decode("utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as indented JSON, atomically."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, such as a file name that is not UTF-8
        text = json.dumps(content, indent=2)
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically: a temporary file, then a rename. Creates missing parent folders."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically: a temporary file, then a rename. Creates missing parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Writes lines atomically, one at a time. Creates missing parent folders."""
    with replaced_file(path) as temporary, open(temporary, "wb") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """A name of this process beside `path`, which the block writes to; the file then replaces `path`.

    After an error it is deleted. Creates missing parent folders.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """Creates a folder before long work, so that a wrong path fails at once. After an error an empty one is removed.

    Raises:
        DataError: the folder cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error
    try:
        yield
    except BaseException:
        with suppress(OSError):  # it has files
            folder.rmdir()
        raise


def check_output_file(path: Path) -> None:
    """Checks before long work that a result can be written; creates its folder. Raises DataError if it cannot."""
    if str(path) == "-":
        raise DataError("-: results are not written to standard output; name a file")
    with output_folder(path.parent):
        if path.is_dir():
            raise DataError(f"{path}: a folder; name a file")


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file in UTF-8, with or without a byte-order mark. Blank lines are skipped.

    Raises:
        OSError: the file cannot be read.
        DataError: a line is not a JSON object.
    """
    return [row for _, row in parse_jsonl(read_bytes(path).decode("utf-8-sig").split("\n"), path)]


def stream_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """`read_jsonl` for a regular file of any size, each object with its position `path:line`.

    Only one line is in memory.

    Raises:
        OSError, DataError: see `read_jsonl`; a DataError comes after the last good line.
        UnicodeDecodeError: the file is not UTF-8.
    """
    with open(open_regular(path), encoding="utf-8-sig", newline="\n") as lines:
        yield from parse_jsonl(lines, path)


def parse_jsonl(lines: Iterable[str], path: str | Path, first: int = 1) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of lines of JSON, each with its position `path:line`. Blank lines are skipped.

    Args:
        lines: lines that end at a line feed only, because other separators can be inside a string.
        path: the file, for the positions.
        first: number of the first line.

    Raises:
        DataError: lines are not JSON objects; after the last good line. The message lists the first three.
    """
    errors, count, path = list[str](), 0, str(path)
    for number, line in enumerate(lines, first):
        if not line.strip():
            continue
        position = f"{path}:{number}"
        try:
            row = _parse(line)
            key = repeated_key(line, row) if isinstance(row, dict) else ""
        except (ValueError, RecursionError) as error:
            row, key, reason = None, "", f"not JSON ({error})"
        else:
            reason = f"the key {key!r} is there twice, with different values" if key else "not a JSON object"
        if isinstance(row, dict) and not key:
            yield position, row
        else:
            errors += [f"{position}: {reason}"] if count < MAX_BAD_LINES else []
            count += 1
    if errors:
        more = [f"... and {count - MAX_BAD_LINES} more lines"] if count > MAX_BAD_LINES else []
        raise DataError("\n".join([*errors, *more, "Write one JSON object on each line, each key once."]))


def _parse(line: str) -> Any:
    """`json.loads`, faster for a line that starts with an object."""
    try:
        value, end = _DECODE(line)
    except ValueError:
        return json.loads(line)
    return json.loads(line) if line[end:].strip() else value


def repeated_key(text: str, value: Mapping[str, Any]) -> str:
    """A key that an object of a JSON text has twice with different values, of which a parser keeps the last one; or "".

    Args:
        text: the JSON text.
        value: the object that it is.
    """
    if all(text.count(f'"{key}"') < 2 for key in value):
        return ""
    repeated = list[str]()

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        repeated.extend(key for key, item in pairs if item != content[key] and item == item)
        return content

    json.loads(text, object_pairs_hook=check)
    return next(iter(repeated), "")


def cache_home(environment: Mapping[str, str] = os.environ, home: Callable[[], Path] = Path.home) -> Path:
    """The folder of the user's caches; one of temporary files for a user without a home, as in some containers."""
    if stated := environment.get("XDG_CACHE_HOME"):
        return Path(stated)
    try:
        return home() / ".cache"
    except RuntimeError:
        return Path(tempfile.gettempdir(), f"cache-{os.getuid()}")


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def backup_folder(folder: Path) -> Path:
    """The folder to which `replace_folder` moves the previous version of `folder` while it works."""
    return folder.with_name(folder.name + ".old")


@dataclass(frozen=True)
class FileOperations:
    """The operations of `replace_folder`. Tests replace them to simulate a kill or a full disk."""

    fsync: Callable[[int], object] = os.fsync
    replace: Callable[[Path, Path], object] = os.replace
    rmtree: Callable[..., object] = shutil.rmtree


OPERATIONS = FileOperations()


def replace_folder(staged: Path, target: Path, files: FileOperations = OPERATIONS, keep_previous: bool = False) -> None:
    """Moves a complete folder to `target`. After a kill, the old or the new version is complete.

    The old version is deleted, or stays in `backup_folder(target)` with `keep_previous`.
    """
    for path in staged.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:  # without fsync, a power cut can leave the new name with unwritten content
                files.fsync(handle.fileno())
    previous = backup_folder(target)
    if target.exists():  # if not, a kill came between the two renames, and `previous` is the only version
        files.rmtree(previous, ignore_errors=True)
        files.replace(target, previous)
    files.replace(staged, target)
    if not keep_previous:
        files.rmtree(previous, ignore_errors=True)


def is_disk_full(error: Exception) -> bool:
    """Whether an error means that the disk is full; safetensors and numpy give the system's error only as text."""
    text = str(error)
    return (
        getattr(error, "errno", None) in DISK_FULL
        or any(os.strerror(code) in text for code in DISK_FULL)
        or (isinstance(error, OSError) and SHORT_WRITE.fullmatch(text) is not None)
    )
