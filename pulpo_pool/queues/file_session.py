"""One open connection to a file queue's database."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple

from pulpo_pool.errors import ConfigError, QueueCorrupt, QueueUnavailable
from pulpo_pool.queues import file_place as place
from pulpo_pool.queues.file_door import CALLERS, WriterQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pulpo_pool.queues.file_door import Line

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

OLDEST_SQLITE: Final = (3, 35, 0)  # RETURNING
BUSY_TIMEOUT: Final = 20.0  # seconds; only adapters of one process ever wait this way

# A worker's transaction changes some three pages, which are checksummed and written whole: half of
# SQLite's usual size saves a turn 3-5 us of 40 at any backlog, and costs publishing 1-3 us of 14.
PAGE_SIZE: Final = 2_048  # bytes
# Pages in the write-ahead log before they are moved to the database, for which three fsyncs keep
# all writers out (8 ms here). SQLite's 1,000 are reached after 280 jobs; these save one worker
# 6 us a job of 79. More save nothing (16,000: out for 30 ms).
_LOG: Final = 4_000
# Of pages, which another's commit makes worthless. SQLite's own 2,000 would fill in the keeper, who
# walks an index to count, once a million jobs wait.
_CACHE: Final = 256  # KiB
_LARGEST_RESTING_LOG: Final = 67_108_864  # bytes the write-ahead log keeps when it is empty


def _read_statements() -> Mapping[str, str]:
    text = resources.files("pulpo_pool.queues").joinpath("file.sql").read_text("utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return MappingProxyType(dict(zip(parts[1::2], map(str.strip, parts[2::2]), strict=True)))


SQL: Final = _read_statements()


@dataclass(frozen=True, slots=True)
class Schema:
    """What a database is made to be. `settings` are said by each connection that opens it."""

    application_id: int  # in the header of the file: tells our databases from others'
    version: int
    create: str
    settings: str = ""
    upgrade: Callable[[sqlite3.Cursor], None] = lambda _cursor: None  # of one that is older


def _upgrade(cursor: sqlite3.Cursor) -> None:
    """Give a queue of an older pulpo-pool the column and the table that it lacks.

    The version stays: the older one, if it must come back tonight, works with both too.
    """
    # Asked first: to try CREATE ... IF NOT EXISTS takes every worker a quarter millisecond more.
    parts = cursor.execute(SQL["parts"]).fetchall()
    if ("history",) not in parts:
        cursor.execute(SQL["add_history"])
    if ("done_kept",) not in parts:
        cursor.executescript(SQL["schema_done"])


QUEUE: Final = Schema(
    0x50554C50,  # "PULP"
    1,
    f"{SQL['schema']}\n{SQL['schema_done']}",
    upgrade=_upgrade,
)


def check_sqlite(version: tuple[int, ...]) -> None:
    """Raise ConfigError if this SQLite is too old for us."""
    if version < OLDEST_SQLITE:
        raise ConfigError(
            f"file queue: Python is linked to SQLite {'.'.join(map(str, version))}, and "
            f"{'.'.join(map(str, OLDEST_SQLITE))} or newer is needed; use a newer Python or "
            "another broker"
        )


class Session:
    """A database that was found or made to be a queue, and stays open until `close`.

    Raises sqlite3.Error and OSError as they come, QueueCorrupt for what is no queue of ours.
    """

    def __init__(self, path: str, schema: Schema) -> None:
        self._path = path
        self._schema = schema
        self._log = -1  # opened by the first to sync; SQLite keeps no locks on this file
        place.create(path)
        self.identity = place.identity(path)
        self._writers = WriterQueue(path + ".lock")
        try:
            place.entrust(path + ".lock", path)
            self._connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
        except BaseException:
            self._writers.close()
            raise
        try:
            self.cursor = self._connection.cursor()
            self._prepare()
        except BaseException:
            self.close()
            raise

    def transact(
        self, work: Callable[[sqlite3.Cursor, *Ts], T], arguments: tuple[*Ts], line: Line
    ) -> T:
        """Run `work` in one transaction: all of it happens or nothing. It is in the kernel then."""
        cursor = self.cursor
        try:
            self._writers.enter(line)  # in here, so that a Ctrl-C does not leave us at the door
            cursor.execute("BEGIN IMMEDIATE")
            result = work(cursor, *arguments)
            cursor.execute("COMMIT")
        finally:
            try:
                if self._connection.in_transaction:
                    self._connection.rollback()
            finally:
                self._writers.leave()
        return result

    def add(self, sql: str, row: Sequence[object]) -> int:
        """Insert one row in a transaction of its own, as in `transact`; return its number.

        The statement alone is one: BEGIN and COMMIT around it would be a tenth of the price.
        """
        try:
            self._writers.enter(CALLERS)  # in here, so that a Ctrl-C does not leave us at the door
            return self.cursor.execute(sql, row).lastrowid or 0
        finally:
            self._writers.leave()

    def sync(self) -> None:
        """Wait until what was committed is on the disk, for which no other writer has to wait.

        SQLite's own way (synchronous = FULL) syncs while it holds the write lock, so that workers
        run no faster than publishers' disk. What a checkpoint has moved out of the log meanwhile,
        it has synced itself.
        """
        if self._log < 0:
            self._log = os.open(self._path + "-wal", os.O_RDWR | os.O_CLOEXEC)
            place.sync_directory(self._path)
        if hasattr(fcntl, "F_FULLFSYNC"):
            fcntl.fcntl(self._log, fcntl.F_FULLFSYNC)  # macOS: fsync stops at the drive's cache
        else:
            os.fdatasync(self._log)
        if os.fstat(self._log).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "its -wal file was deleted while in use")

    def ease(self) -> None:
        """Give the disk what the log holds, and go on if it fails: nobody was promised this.

        The next checkpoint then finds less to wait for while it keeps all writers out. Each 400
        turns: 6 % more jobs/s with 2 workers, 8 % with 8; each 100 turns gain no more.
        """
        with suppress(OSError):
            self.sync()

    def close(self) -> None:
        """Close the connection; what was not committed is undone."""
        with self._writers.opening():  # the last to close removes what the next would open
            self._connection.close()
        self._writers.close()
        if self._log >= 0:
            os.close(self._log)

    def _prepare(self) -> None:
        with self._writers.opening(), self._writers.turn():
            is_ours = self._check_marks()
            if not is_ours:
                self.cursor.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            (mode,) = self.cursor.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise QueueUnavailable(
                    f"file queue {self._path}: this filesystem cannot keep a write-ahead log "
                    f"(journal mode stays {mode!r}); put the file on a local disk"
                )
            self.cursor.execute(f"PRAGMA journal_size_limit = {_LARGEST_RESTING_LOG}")
            self.cursor.execute(f"PRAGMA wal_autocheckpoint = {_LOG}")
            self.cursor.execute("PRAGMA trusted_schema = OFF")
            self.cursor.execute(f"PRAGMA cache_size = -{_CACHE}")
            self.cursor.executescript(self._schema.settings)
            if is_ours:
                self._schema.upgrade(self.cursor)
            else:
                self._create_schema()
            self.cursor.execute("PRAGMA synchronous = NORMAL")
        if place.identity(self._path) != self.identity:
            raise QueueUnavailable(f"file queue {self._path}: was replaced while it was opened")

    def _check_marks(self) -> bool:
        """Tell whether this is a queue already; raise QueueCorrupt if it is something else."""
        execute = self.cursor.execute
        execute("BEGIN")  # one look: another thread may be creating the queue right now
        (application,) = execute("PRAGMA application_id").fetchone()
        (version,) = execute("PRAGMA user_version").fetchone()
        tables = [name for (name,) in execute("SELECT name FROM sqlite_master LIMIT 3")]
        execute("COMMIT")
        is_ours = bool(application == self._schema.application_id)
        if is_ours and version > self._schema.version:
            raise QueueCorrupt(
                f"file queue {self._path}: was written by a newer pulpo-pool (schema {version}, "
                f"this one knows {self._schema.version}); upgrade pulpo-pool here"
            )
        if not is_ours and (application or version or tables):
            raise QueueCorrupt(
                f"file queue {self._path}: is the SQLite database of another program "
                f"(it has {', '.join(tables) or 'other marks'}); name another file"
            )
        return is_ours

    def _create_schema(self) -> None:
        self.cursor.executescript(
            f"BEGIN IMMEDIATE; {self._schema.create}\n "
            f"PRAGMA application_id = {self._schema.application_id}; "
            f"PRAGMA user_version = {self._schema.version}; COMMIT"
        )
        self.sync()
