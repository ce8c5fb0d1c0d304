"""Tables of lines with keys on disk, to join the files of a corpus by their ids in little memory."""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

CACHE_MB = 64


class KeyTables:
    """A temporary SQLite database; its file is deleted when it is closed or the process ends.

    Each table has the columns `key`, `line`, `value` and `other`: the line of another value of the same key, if any.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_MB << 10}"):
            self._database.execute(f"PRAGMA {setting}")

    def load(self, table: str, rows: Iterable[tuple[str, int, str]]) -> None:
        """Makes a table of (key, line, value). Of several values of a key the first is kept."""
        self._database.execute(
            f"CREATE TABLE {table} (key TEXT PRIMARY KEY, line INTEGER, value TEXT, other INTEGER) WITHOUT ROWID"
        )
        self._insert(
            f"INSERT INTO {table} VALUES (?, ?, ?, NULL) ON CONFLICT (key) DO UPDATE SET other = excluded.line "
            "WHERE other IS NULL AND value <> excluded.value",
            rows,
        )

    def load_list(self, table: str, rows: Iterable[tuple[str, int, str]]) -> None:
        """Makes a table of (key, line, value) that keeps all lines, also those of the same key."""
        self._database.execute(f"CREATE TABLE {table} (line INTEGER PRIMARY KEY, key TEXT, value TEXT)")
        self._insert(f"INSERT INTO {table} (key, line, value) VALUES (?, ?, ?)", rows)
        self._database.execute(f"CREATE INDEX {table}_key ON {table} (key)")

    def _insert(self, statement: str, rows: Iterable[tuple[str, int, str]]) -> None:
        self._database.execute("BEGIN")
        self._database.executemany(statement, rows)
        self._database.execute("COMMIT")

    def query(self, statement: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """The rows of a SELECT statement, read as they are used."""
        return self._database.execute(statement, values)

    def value(self, table: str, key: str) -> str | None:
        """The value of a key; None if the table does not have it."""
        row = self._database.execute(f"SELECT value FROM {table} WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def close(self) -> None:
        self._database.close()
