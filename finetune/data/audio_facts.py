"""Remembers what `inspect_audio` found in a file, by the content of the file, so that no audio is decoded twice.

The cache is one SQLite file in `$FINETUNE_CACHE`, or else in `$XDG_CACHE_HOME/finetune` or `~/.cache/finetune`;
`FINETUNE_CACHE=off` turns it off. Several processes can use it. The hash of a file is remembered too, by path, size,
time and inode. Remote files are not cached.
"""

import hashlib
import json
import logging
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from finetune.core.errors import DataError
from finetune.core.files import cache_home
from finetune.data.audio import AudioInfo, inspect_audio
from finetune.data.audio_readers import TOLERANCE
from finetune.data.byte_range import file_of, is_url, parse_byte_range
from finetune.data.row_audio import Inspect

log = logging.getLogger(__name__)

MAX_BYTES = 2_000_000_000  # about 10 million clips; then the entries that were not used for the longest time go
MAX_BUFFERED, MAX_SECONDS = 512, 5.0  # new entries that a process keeps before it writes them, and for how long
BUSY_SECONDS = 60  # that a process waits for another one to write
SETTLED = 2e9  # nanoseconds after which a change of a file surely changes its time
PACKAGES = ("soundfile", "soxr", "numpy", "av")  # decoders: another version can give other samples
_IMPORT = re.compile(r"^\s*from finetune\.data\.(\w+) import", re.MULTILINE)
TABLES = ("files", "facts")  # hashes of files, and what was found in segments; `used` is a day since 1970
_COLUMNS = "(key BLOB PRIMARY KEY, value BLOB NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID"


def cache_folder() -> Path | None:
    """The folder of all caches of a user; None if they are turned off or it cannot be written."""
    stated = os.environ.get("FINETUNE_CACHE")
    if stated is not None and stated.casefold() in ("", "off", "0", "no", "false"):
        return None
    folder = Path(stated or cache_home() / "finetune").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.info("%s: cannot be written (%s), so facts about audio are not cached", folder, error.strerror)
        return None
    return folder


def cache_file() -> Path | None:
    """The file of the cache; None without a `cache_folder`."""
    folder = cache_folder()
    return folder and folder / "audio_facts.sqlite"


@dataclass(frozen=True)
class CachedInspect:
    """`inspect_audio` that remembers; it can be sent to worker processes.

    Attributes:
        path: the file of the cache.
        decode: decodes what is not in the cache.
    """

    path: Path
    decode: Inspect = inspect_audio

    def __call__(
        self, path: str, offset: float, duration: float | None, channel: int | None, max_duration: float
    ) -> AudioInfo:
        store = _store(self.path)
        before = _identity(path)
        content = store.content(path, before) if before else None
        if content is None:
            return self.decode(path, offset, duration, channel, max_duration)
        # A result that is far below the limit is the same for every limit.
        keys = [_key(content, offset, duration, channel, limit) for limit in (None, max_duration)]
        for key in keys:
            if (fact := store.get("facts", key)) and (key == keys[1] or _is_below(fact, max_duration)):
                return _replay(fact, path)
        fact = {}
        try:
            info = self.decode(path, offset, duration, channel, max_duration)
            fact = {"info": astuple(info)}
        except DataError as error:
            if type(error) is DataError and not isinstance(error.__cause__ or error.__context__, OSError):
                fact = {"error": str(error).replace(path, "\0")}
            raise
        finally:
            if fact and _identity(path) == before:
                store.put("facts", keys[0] if _is_below(fact, max_duration) else keys[1], json.dumps(fact).encode())
        return info

    def flush(self) -> None:
        """Writes the new entries of this thread."""
        _store(self.path).flush()


def prune_cache(path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Removes the entries that were not used for the longest time, until the others fit into `max_bytes`."""
    with suppress(sqlite3.Error), _connected(path) as database:
        for _ in range(100):
            pages, free, size = (
                database.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
            if (pages - free) * size <= max_bytes:
                return
            for table in TABLES:
                database.execute(
                    f"DELETE FROM {table} WHERE key IN (SELECT key FROM {table} ORDER BY used "
                    f"LIMIT (SELECT count(*) / 4 + 1 FROM {table}))"
                )


def _is_below(fact: dict[str, Any], max_duration: float) -> bool:
    """Whether the segment was decoded, and is so short that it is decoded for this limit too."""
    info = fact.get("info")
    return info is not None and bool(info[3]) and 1.02 * info[0] + 2 * TOLERANCE < max_duration


def _replay(fact: dict[str, Any], path: str) -> AudioInfo:
    if "error" in fact:
        raise DataError(fact["error"].replace("\0", path))
    return AudioInfo(*fact["info"])


def _key(content: bytes, offset: float, duration: float | None, channel: int | None, limit: float | None) -> bytes:
    segment = repr((offset, duration, channel, limit, decoder_version()))
    return hashlib.blake2b(content + segment.encode(), digest_size=16).digest()


def decoder_sources() -> dict[str, str]:
    """The source of `audio` and of every module of this package that it needs, by name."""
    sources, pending = dict[str, str](), ["audio"]
    while pending:
        name = pending.pop()
        if name not in sources:
            sources[name] = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
            pending += _IMPORT.findall(sources[name])
    return sources


@cache
def decoder_version() -> str:
    """A hash of the code and the versions of the packages that decode audio."""
    digest = hashlib.blake2b(digest_size=16)
    for _, source in sorted(decoder_sources().items()):
        digest.update(source.encode())
    for package in PACKAGES:
        try:
            digest.update(f"{package} {metadata.version(package)}\n".encode())
        except metadata.PackageNotFoundError:
            digest.update(f"no {package}\n".encode())
    return digest.hexdigest()


def _identity(path: str) -> bytes | None:
    """The hash of path, size, time and inode of a file that is not remote; None if there is none."""
    name = file_of(path)
    try:
        status = None if is_url(name) else os.stat(name)
    except (OSError, ValueError):
        return None
    if status is None or not os.path.isfile(name):
        return None
    text = f"{os.path.abspath(name)}\0{path}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _content_hash(path: str) -> bytes | None:
    """The hash of the bytes of a file or of a member of an archive; None if it cannot be read."""
    member = parse_byte_range(path)
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(file_of(path), "rb") as file:
            rest = member.length if member else None
            file.seek(member.start if member else 0)
            while content := file.read(1 << 20 if rest is None else min(rest, 1 << 20)):
                digest.update(content)
                rest = None if rest is None else rest - len(content)
    except OSError:
        return None
    return digest.digest()


class _Store:
    """The cache file, as one thread sees it. Errors of the file turn it off, with a warning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._new: dict[str, dict[bytes, bytes]] = {table: {} for table in TABLES}
        self._used: dict[str, set[bytes]] = {table: set() for table in TABLES}
        self._last = (b"", b"")  # identity and content of the last file: a recording has many segments
        self._written, self._is_off = time.monotonic(), False
        self._day = int(time.time() // 86_400)

    def content(self, path: str, identity: bytes) -> bytes | None:
        """The hash of the content of a file."""
        if self._last[0] == identity:
            return self._last[1]
        known = self._read("files", identity)
        content = known or _content_hash(path)
        if content is None:
            return None
        self._last = (identity, content)
        with suppress(OSError):
            if known is None and time.time_ns() - os.stat(file_of(path)).st_mtime_ns > SETTLED:
                self.put("files", identity, content)
        return content

    def get(self, table: str, key: bytes) -> dict[str, Any] | None:
        value = self._read(table, key)
        try:
            return json.loads(value) if value else None
        except ValueError:
            return None

    def _read(self, table: str, key: bytes) -> bytes | None:
        if key in self._new[table]:
            return self._new[table][key]
        rows = self._run(lambda database: database.execute(f"SELECT value, used FROM {table} WHERE key = ?", (key,)))
        for value, used in rows or ():
            if used != self._day:
                self._used[table].add(key)
            return value if isinstance(value, bytes) else None
        return None

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._new[table][key] = value
        if len(self._new[table]) >= MAX_BUFFERED or time.monotonic() - self._written > MAX_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes new entries, and the day on which others were used."""
        new = [(table, [(key, value, self._day) for key, value in rows.items()]) for table, rows in self._new.items()]
        used = [(table, [(self._day, key) for key in keys]) for table, keys in self._used.items()]
        for table in TABLES:
            self._new[table].clear()
            self._used[table].clear()
        self._written = time.monotonic()
        if not any(rows for _, rows in (*new, *used)):
            return

        def write(database: sqlite3.Connection) -> list[Any]:
            database.execute("BEGIN IMMEDIATE")
            for table, entries in new:
                database.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)", entries)
            for table, days in used:
                database.executemany(f"UPDATE {table} SET used = ? WHERE key = ?", days)
            database.execute("COMMIT")
            return []

        self._run(write)

    def _run(self, work: Callable[[sqlite3.Connection], Any]) -> list[Any] | None:
        """Runs work on the database. A damaged file is made again; another error turns the cache off."""
        for attempt in range(2):
            if self._is_off:
                return None
            try:
                self._database = self._database or _connect(self._path)
                return list(work(self._database))
            except sqlite3.Error as error:
                if self._database:
                    self._database.close()
                self._database = None
                damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
                if damaged and attempt == 0:
                    log.warning("%s: damaged, so it is made again (%s)", self._path, error)
                    with suppress(OSError):
                        self._path.unlink(missing_ok=True)
                else:
                    log.warning("%s: not used, so audio is decoded again (%s)", self._path, error)
                    self._is_off = True
        return None


_local = threading.local()


def _store(path: Path) -> _Store:
    """The cache of this thread."""
    stores: dict[Path, _Store] = _local.__dict__.setdefault("stores", {})
    if path not in stores:
        stores[path] = _Store(path)
    return stores[path]


def _connect(path: Path) -> sqlite3.Connection:
    # The rollback journal, because the write-ahead log needs memory that all processes share, also over NFS.
    database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    database.execute("PRAGMA synchronous = OFF")  # after a power cut the cache may be made again
    for table in TABLES:
        database.execute(f"CREATE TABLE IF NOT EXISTS {table} {_COLUMNS}")
    return database


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    database = _connect(path)
    try:
        yield database
    finally:
        database.close()
