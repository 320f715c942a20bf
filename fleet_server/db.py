"""The database: one write transaction at a time, and what must happen only once it is committed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from fleet_server.errors import FleetError, StartError, StorageFull

__all__ = ["Database", "Session", "on_commit", "raw_connection"]

_MIGRATIONS: Final = Path(__file__).with_name("migrations")
_BUSY_TIMEOUT_MS: Final = 15_000
_AFTER_COMMIT: Final = "after_commit"
_READING: Final = "edgefleet_reading"


class Database:
    """One database. `session()` writes, `reading()` only reads; neither may be nested inside `session()`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._is_sqlite = url.startswith("sqlite")
        arguments = {"check_same_thread": False, "timeout": _BUSY_TIMEOUT_MS / 1000} if self._is_sqlite else {}
        self._engine = create_engine(url, connect_args=arguments, pool_size=20, max_overflow=40)
        # SQLite's busy handler sleeps and polls; waiting here is fair and costs nothing.
        self._writing = threading.RLock()
        if self._is_sqlite:
            _prepare_sqlite(self._engine)

    def upgrade(self) -> None:
        """Bring the tables to this version's shape. Raises: StartError when the database cannot be used."""
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        try:
            with self._engine.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except Exception as error:
            raise StartError(
                "open the database",
                f"its tables cannot be brought up to date ({error})",
                "check the file, or restore it",
            ) from error

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction that may write: committed at the end of the block, rolled back by any exception.

        Raises:
            StorageFull: the disk is full; nothing was written.
        """
        with self._writing, Session(self._engine, expire_on_commit=False) as session:
            try:
                yield session
                session.commit()
            except OperationalError as error:
                session.rollback()
                raise _explained(error) from error
            except BaseException:
                session.rollback()
                raise
            actions: list[Callable[[], None]] = session.info.pop(_AFTER_COMMIT, [])
        for action in actions:
            action()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that sees one consistent state and writes nothing."""
        with Session(self._engine.execution_options(**{_READING: True}), expire_on_commit=False) as session:
            try:
                yield session
            finally:
                session.rollback()

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy of a SQLite database while it is in use. Raises: FleetError for another kind."""
        if not self._is_sqlite:
            raise FleetError("copy the database", "it is not SQLite", "use the database's own backup tool")
        with self.reading() as session:
            target = sqlite3.connect(path)
            try:
                raw_connection(session).backup(target)
            finally:
                target.close()

    def close(self) -> None:
        """Give every connection back."""
        self._engine.dispose()


def on_commit(session: Session, action: Callable[[], None]) -> None:
    """Run `action` after the session's transaction is committed, and never if it is not."""
    session.info.setdefault(_AFTER_COMMIT, []).append(action)


def raw_connection(session: Session) -> sqlite3.Connection:
    """The driver's own connection inside the session's transaction, for rows by the thousand."""
    connection = session.connection().connection.driver_connection
    if not isinstance(connection, sqlite3.Connection):
        raise FleetError("write rows in bulk", "the database is not SQLite")
    return connection


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        # The driver's own idea of transactions opens them late, and a late writer gets SQLITE_BUSY at once.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        # An acknowledgement promises that the row survives a power cut.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def _began(connection: Connection) -> None:
        reading = connection.get_execution_options().get(_READING, False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _explained(error: OperationalError) -> Exception:
    if "full" in str(error.orig):
        return StorageFull("store this", "the server's disk is full", "free space on it and try again")
    return error
