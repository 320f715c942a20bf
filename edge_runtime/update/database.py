"""The device's one database: SQLite, every commit flushed; journal and outbox keep their tables in it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edge_runtime.contract import reasons
from edge_runtime.contract.errors import UpdateError
from edge_runtime.update.disk import Disk, disk_errors

LAYOUT: Final = 1
"""`PRAGMA user_version` of the file; a newer one is refused."""
_BUSY_TIMEOUT_S: Final = 10.0

Value = str | int | float | bytes | None


class StateDatabase:
    """One connection that several threads share.

    Args:
        path: the database file; its folder exists.

    Raises:
        UpdateError: it cannot be opened, is damaged, or was written by newer software.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        is_new = not path.exists()
        with _sqlite_errors(f"open {path}"):
            # No implicit transactions: every BEGIN and COMMIT is ours.
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise
        if is_new:
            with disk_errors(f"open {path}"):
                Disk().flush_folder(path.parent)

    def close(self) -> None:
        """Close the connection; safe to repeat."""
        with self._lock:
            self._connection.close()

    def migrate(self, part: str, versions: Sequence[Sequence[str]]) -> None:
        """Bring one part's tables to its newest version.

        Args:
            part: name of the part (`journal`, `outbox`).
            versions: for each version, in order, the statements that lead to it from the one before.

        Raises:
            UpdateError: newer software wrote this part.
        """
        with self.transaction() as connection:
            row = connection.execute("SELECT version FROM parts WHERE part = ?", (part,)).fetchone()
            present = 0 if row is None else int(row[0])
            if present > len(versions):
                raise _too_new(self._path)
            for statements in versions[present:]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute("INSERT OR REPLACE INTO parts (part, version) VALUES (?, ?)", (part, len(versions)))

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and on disk when it ends without an error. May be nested; the outermost commits.

        Raises:
            UpdateError: code `disk_full` or `internal`; nothing was changed.
        """
        with self._lock, _sqlite_errors(f"write {self._path}"):
            if self._connection.in_transaction:
                yield self._connection
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def rows(self, query: str, parameters: Sequence[Value] = ()) -> list[tuple[Value, ...]]:
        """The answer to a query. Raises: UpdateError."""
        with self._lock, _sqlite_errors(f"read {self._path}"):
            return list(self._connection.execute(query, parameters))

    def get(self, key: str) -> str | None:
        """A kept value (version floors, time floor, …); None when there is none. Raises: UpdateError."""
        rows = self.rows("SELECT value FROM keep WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def put(self, key: str, value: str) -> None:
        """Keep a value; it is on disk when this returns. Raises: UpdateError."""
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO keep (key, value) VALUES (?, ?)", (key, value))

    def _roll_back(self) -> None:
        # A failed COMMIT may have ended the transaction already.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _prepare(self) -> None:
        with _sqlite_errors(f"open {self._path}"):
            self._connection.execute("PRAGMA journal_mode = WAL")
            # NORMAL would lose every commit since the last checkpoint when the power goes.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA journal_size_limit = 4194304")
            layout = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        if layout > LAYOUT:
            raise _too_new(self._path)
        if layout == LAYOUT:
            return
        with self.transaction() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS parts (part TEXT PRIMARY KEY, version INTEGER NOT NULL)")
            connection.execute("CREATE TABLE IF NOT EXISTS keep (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
            connection.execute(f"PRAGMA user_version = {LAYOUT}")


def _too_new(path: Path) -> UpdateError:
    return UpdateError(f"open {path}", "newer software wrote it", "install that version of edgefleet again")


@contextmanager
def _sqlite_errors(cannot: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        # sqlite_errorcode is younger than Python 3.10; the text is SQLite's own and stable.
        code = reasons.DISK_FULL if "disk is full" in str(error) else reasons.INTERNAL
        raise UpdateError(cannot, str(error), "check the device's disk", code=code) from error
