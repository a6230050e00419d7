"""The file queue's database: one connection, one writer at a time, SQLite's errors in our words."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sqlite3
import threading
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, TypeVarTuple

from pulpo_pool.errors import ConfigError, QueueCorrupt, QueueUnavailable
from pulpo_pool.queues import file_place as place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Durability: TypeAlias = Literal["full", "normal"]

APPLICATION_ID: Final = 0x50554C50  # "PULP", in the header of the file
SCHEMA_VERSION: Final = 1
OLDEST_SQLITE: Final = (3, 35, 0)  # RETURNING

_BUSY_TIMEOUT: Final = 20.0  # seconds; only adapters of one process ever wait this way
_LARGEST_RESTING_LOG: Final = 67_108_864  # bytes the write-ahead log keeps when it is empty
_HARMLESS: Final = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_INTERRUPT,
    )
)  # the connection is as good as before


def _read_statements() -> Mapping[str, str]:
    text = resources.files("pulpo_pool.queues").joinpath("file.sql").read_text("utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return MappingProxyType(dict(zip(parts[1::2], map(str.strip, parts[2::2]), strict=True)))


SQL: Final = _read_statements()


def check_sqlite(version: tuple[int, ...]) -> None:
    """Raise ConfigError if this SQLite is too old for us."""
    if version < OLDEST_SQLITE:
        raise ConfigError(
            f"file queue: Python is linked to SQLite {'.'.join(map(str, version))}, and "
            f"{'.'.join(map(str, OLDEST_SQLITE))} or newer is needed; use a newer Python or "
            "another broker"
        )


class WriterQueue:
    """A record lock on a file beside the database, on which the writers of all processes wait.

    SQLite's own wait sleeps and starves; the kernel wakes whoever is next. It is a courtesy:
    SQLite's locks alone keep the data right, so where this one cannot be had (the kernel sees a
    deadlock between processes with two queues each, or another adapter in this process let go
    of it) the writer goes on without.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def enter(self) -> None:
        """Wait until it is our turn."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.EDEADLK, errno.ENOLCK):
                raise

    def leave(self) -> None:
        """Let the next one in."""
        fcntl.lockf(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Forget the file."""
        os.close(self._file)


class FileStore:
    """Runs transactions, from any thread; opens the database when it must and again after harm."""

    def __init__(self, path: str, durability: Durability) -> None:
        check_sqlite(sqlite3.sqlite_version_info)
        self.path = place.absolute(path)
        place.refuse_network(self.path, place.mounted())
        self._publishing = durability.upper()
        self._synchronous = ""
        self._mutex = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._writers: WriterQueue | None = None
        self._identity: tuple[int, int] | None = None
        self._closed = False
        with self._mutex:
            self._open()

    def write(self, work: Callable[[sqlite3.Connection, *Ts], T], *arguments: *Ts) -> T:
        """Run `work` in one transaction and return its result; all of it happens or nothing.

        Raises QueueUnavailable (or QueueCorrupt), after which the store can be used again.
        """
        return self._transact("NORMAL", work, arguments)

    def publish(self, work: Callable[[sqlite3.Connection, *Ts], T], *arguments: *Ts) -> T:
        """Run `work` like `write`; when it returns, it has reached the disk."""
        return self._transact(self._publishing, work, arguments)

    def _transact(
        self,
        synchronous: str,
        work: Callable[[sqlite3.Connection, *Ts], T],
        arguments: tuple[*Ts],
    ) -> T:
        with self._mutex:
            connection = self._connection or self._open()
            writers = self._writers
            assert writers is not None
            try:
                if self._synchronous != synchronous:
                    self._synchronous = ""
                    connection.execute(f"PRAGMA synchronous = {synchronous}")
                    self._synchronous = synchronous
                writers.enter()
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    result = work(connection, *arguments)
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        self._roll_back(connection)
                    writers.leave()
            except (sqlite3.Error, OSError) as error:
                raise self._harm(error) from error
            return result

    def read(self, sql: str, *parameters: object) -> list[Any]:
        """Return the rows of one statement, without waiting for writers."""
        with self._mutex:
            connection = self._connection or self._open()
            try:
                return connection.execute(sql, parameters).fetchall()
            except sqlite3.Error as error:
                raise self._harm(error) from error

    def follow(self) -> bool:
        """Let go of a database that is no longer the one at our path; tell whether it was so.

        The next use opens what is there now, so that nothing is written into a deleted file.
        """
        with self._mutex:
            if self._connection is None or place.identity(self.path) == self._identity:
                return False
            self._drop()
            return True

    def close(self) -> None:
        """Let go of the file for good."""
        with self._mutex:
            self._closed = True
            self._drop()

    # -- opening ------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        if self._closed:
            raise QueueUnavailable(f"file queue {self.path}: this adapter is closed")
        try:
            place.create(self.path)
            self._identity = place.identity(self.path)
            self._writers = WriterQueue(self.path + ".lock")
            place.entrust(self.path + ".lock", self.path)
            self._connection = connection = sqlite3.connect(
                self.path,
                timeout=_BUSY_TIMEOUT,
                isolation_level=None,
                check_same_thread=False,
            )
            self._synchronous = ""
            self._writers.enter()
            try:
                self._prepare(connection)
            finally:
                self._writers.leave()
            self._check_identity()
        except (sqlite3.Error, OSError) as error:
            harm = self._harm(error)
            self._drop()
            raise harm from error
        except BaseException:
            self._drop()
            raise
        return connection

    def _check_identity(self) -> None:
        if place.identity(self.path) != self._identity:
            raise QueueUnavailable(f"file queue {self.path}: was replaced while it was opened")

    def _prepare(self, connection: sqlite3.Connection) -> None:
        execute = connection.execute
        ours = self._check_marks(connection)
        (mode,) = execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise QueueUnavailable(
                f"file queue {self.path}: this filesystem cannot keep a write-ahead log "
                f"(journal mode stays {mode!r}); put the file on a local disk"
            )
        execute(f"PRAGMA journal_size_limit = {_LARGEST_RESTING_LOG}")
        execute("PRAGMA trusted_schema = OFF")
        execute("PRAGMA fullfsync = ON")  # on macOS a plain fsync stops at the drive's cache
        if not ours:
            self._create_schema(connection)

    def _check_marks(self, connection: sqlite3.Connection) -> bool:
        """Tell whether this is a queue already; raise QueueCorrupt if it is something else."""
        execute = connection.execute
        execute("BEGIN")  # one look: another thread may be creating the queue right now
        (application,) = execute("PRAGMA application_id").fetchone()
        (version,) = execute("PRAGMA user_version").fetchone()
        tables = [name for (name,) in execute("SELECT name FROM sqlite_master LIMIT 3")]
        execute("COMMIT")
        if application == APPLICATION_ID and version > SCHEMA_VERSION:
            raise QueueCorrupt(
                f"file queue {self.path}: was written by a newer pulpo-pool (schema {version}, "
                f"this one knows {SCHEMA_VERSION}); upgrade pulpo-pool here"
            )
        if application != APPLICATION_ID and (application or version or tables):
            raise QueueCorrupt(
                f"file queue {self.path}: is the SQLite database of another program "
                f"(it has {', '.join(tables) or 'other marks'}); name another file"
            )
        return bool(application == APPLICATION_ID)

    def _create_schema(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(
            f"BEGIN IMMEDIATE; {SQL['schema']}\n PRAGMA application_id = {APPLICATION_ID}; "
            f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
        )
        place.sync_directory(self.path)

    # -- harm ---------------------------------------------------------------------------------

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._drop_connection()

    def _harm(self, error: sqlite3.Error | OSError) -> QueueUnavailable:
        """Return what to raise for an error; give up the connection unless it is sound."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code not in _HARMLESS:
            self._drop()
        where = f"file queue {self.path}: "
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return QueueCorrupt(
                f"{where}{error}; move it aside together with its -wal file and restore a backup, "
                f"or save what is left with `sqlite3 {self.path} .recover`"
            )
        if code == sqlite3.SQLITE_FULL or getattr(error, "errno", 0) == errno.ENOSPC:
            return QueueUnavailable(f"{where}the disk is full ({error}); free some space")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return QueueUnavailable(
                f"{where}another program has kept it locked for {_BUSY_TIMEOUT:g} s ({error})"
            )
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return QueueUnavailable(
                f"{where}{error}; the file and its directory must be writable for user "
                f"{os.geteuid()}"
            )
        return QueueUnavailable(f"{where}{error}")

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _drop(self) -> None:
        self._drop_connection()
        writers, self._writers = self._writers, None
        if writers is not None:
            writers.close()
