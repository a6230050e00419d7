"""The file queue's database as the adapter sees it: transactions, and errors in our words."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, TypeVarTuple

from pulpo_pool.errors import QueueCorrupt, QueueUnavailable
from pulpo_pool.queues import file_place as place
from pulpo_pool.queues.file_door import CALLERS, WORKERS
from pulpo_pool.queues.file_session import BUSY_TIMEOUT, QUEUE, Schema, Session, check_sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pulpo_pool.queues.file_door import Line

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Durability: TypeAlias = Literal["full", "normal"]

_TURNS_BETWEEN_SYNCS: Final = 400
_FRESH: Final = 0.01  # seconds
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


class FileStore:
    """Runs transactions, from any thread; opens the database when it must, and anew after harm.

    Every call may raise QueueUnavailable (or QueueCorrupt), and then be made again.
    """

    def __init__(self, path: str, durability: Durability, schema: Schema = QUEUE) -> None:
        check_sqlite(sqlite3.sqlite_version_info)
        self.path = place.absolute(path)
        place.refuse_network(self.path, place.mounted())
        self._syncs = durability == "full"
        self._schema = schema
        self._mutex = threading.Lock()
        self._session: Session | None = None
        self._turns = 0
        self._seen_until = 0.0  # monotonic; until then the file is taken to be where it was
        self.closed = False
        with self._mutex:
            self._open()

    def turn(self, work: Callable[[sqlite3.Cursor, *Ts], T], *arguments: *Ts) -> T:
        """Run `work` in one transaction, without asking whether the file is still in its place.

        That would cost a tenth of a worker's turn; the worker asks when it finds nothing to do.
        """
        with self._mutex:
            result = self._transact(work, arguments, WORKERS)
            self._turns += 1
            if self._session and self._turns % _TURNS_BETWEEN_SYNCS == 0:
                self._session.ease()
            return result

    def write(self, work: Callable[[sqlite3.Cursor, *Ts], T], *arguments: *Ts) -> T:
        """Run `work` in one transaction on the file that is at our path now."""
        with self._mutex:
            self._follow()
            return self._transact(work, arguments, CALLERS)

    def publish(
        self,
        work: Callable[[sqlite3.Cursor, *Ts], T],
        *arguments: *Ts,
        announce: Callable[[], None] = lambda: None,
    ) -> T:
        """Run `work` like `write`; when it returns, it has reached the disk.

        `announce` is called when others can see it, which is before that: they need not wait for
        the disk too (0.7 of 1.3 ms until an idle worker begins). What follows may still fail, and
        then nobody knows whether the job will last; as it may be taken at any time after COMMIT,
        that is so without an announcement too.
        """
        with self._mutex:
            self._follow()
            result = self._transact(work, arguments, CALLERS)
            announce()
            self._reach_disk()
            return result

    def add(self, sql: str, row: Sequence[object], *, announce: Callable[[], None]) -> int:
        """Insert one row, as `publish` would; return its number.

        Where no disk is waited for, each look at our path is a twentieth of the call. So one that
        follows another closely looks only afterwards; if the file was replaced by then, the row is
        inserted into the new one, as the caller would have to do.
        """
        with self._mutex:
            if not self._syncs and time.monotonic() < self._seen_until:
                number = self._add(sql, row)
                announce()
                if not self._follow():
                    return number
            self._follow()
            number = self._add(sql, row)
            announce()
            self._reach_disk()
            self._seen_until = time.monotonic() + _FRESH
            return number

    def read(self, sql: str, *parameters: object) -> list[Any]:
        """Return the rows of one statement, without waiting for writers."""
        with self._mutex:
            self._follow()
            session = self._session or self._open()
            try:
                return session.cursor.execute(sql, parameters).fetchall()
            except sqlite3.Error as error:
                raise self._harm(error) from error

    def follow(self) -> bool:
        """Let go of a database that is no longer the one at our path; tell whether it was so.

        The next use opens what is there now, so that nothing is written into a deleted file.
        """
        with self._mutex:
            return self._follow()

    def close(self) -> None:
        """Let go of the file for good."""
        with self._mutex:
            self.closed = True
            self._drop()

    def _transact(
        self, work: Callable[[sqlite3.Cursor, *Ts], T], arguments: tuple[*Ts], line: Line
    ) -> T:
        session = self._session or self._open()
        try:
            return session.transact(work, arguments, line)
        except (sqlite3.Error, OSError) as error:
            raise self._harm(error) from error

    def _add(self, sql: str, row: Sequence[object]) -> int:
        session = self._session or self._open()
        try:
            return session.add(sql, row)
        except (sqlite3.Error, OSError) as error:
            raise self._harm(error) from error

    def _reach_disk(self) -> None:
        """Wait for the disk, where that was asked for; raise if it is no longer our file's."""
        if self._syncs:
            session = self._session or self._open()
            try:
                session.sync()
            except OSError as error:
                raise self._harm(error) from error
        if self._follow():
            raise QueueUnavailable(f"file queue {self.path}: was replaced while it was written")

    def _follow(self) -> bool:
        session = self._session
        if session is None or place.identity(self.path) == session.identity:
            return False
        self._drop()
        return True

    def _open(self) -> Session:
        if self.closed:
            raise QueueUnavailable(f"file queue {self.path}: this adapter is closed")
        try:
            session = self._session = Session(self.path, self._schema)
        except (sqlite3.Error, OSError) as error:
            raise self._harm(error) from error
        return session

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

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
                f"{where}another program has kept it locked for {BUSY_TIMEOUT:g} s ({error})"
            )
        denied = code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
        if denied or isinstance(error, PermissionError):
            return QueueUnavailable(
                f"{where}{error}; the file, those beside it and their directory must be writable "
                f"for user {os.geteuid()}"
            )
        return QueueUnavailable(f"{where}{error}")
