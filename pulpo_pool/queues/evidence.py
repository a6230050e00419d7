"""EvidenceStore: the histories of jobs whose engine keeps none, in the state directory.

A row for each setback. A job is known by its id and by its bytes, so that a server which counts
from 1 again after a restart gives no job another one's past, and one that kept its jobs finds
theirs again. The store costs evidence when it fails, never a job: no call raises.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pulpo_pool.errors import ConfigError, QueueError
from pulpo_pool.queues.file_session import PAGE_SIZE, Schema
from pulpo_pool.queues.file_store import FileStore
from pulpo_pool.queues.history import MOST_NEWEST, extended, read, written

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from pulpo_pool.setback import Setback

logger = logging.getLogger(__name__)

LARGEST: Final = 67_108_864  # bytes of the file; the oldest setbacks make room
LONGEST_KEPT: Final = 30 * 86_400.0  # seconds

_MOST_CRASHES: Final = 10_000  # told at once
_SCHEMA: Final = Schema(
    application_id=0x50554C45,  # "PULE"
    version=1,
    create="""
        CREATE TABLE setbacks (
            place   TEXT    NOT NULL,  -- which server
            job_id  TEXT    NOT NULL,
            mark    BLOB    NOT NULL,  -- of the job's bytes
            attempt TEXT    NOT NULL,  -- whose and which: told twice, it is kept once
            at      REAL    NOT NULL,
            kicks   INTEGER NOT NULL,
            crash   INTEGER NOT NULL,
            worker  TEXT    NOT NULL,
            outcome TEXT    NOT NULL,
            setback TEXT    NOT NULL,  -- JSON; empty: one of many crashes, kept for the count
            UNIQUE (job_id, mark, attempt)
        );
        CREATE INDEX setbacks_at ON setbacks (at);
        CREATE INDEX setbacks_crash ON setbacks (at) WHERE crash = 1;
    """,
    settings=f"PRAGMA max_page_count = {LARGEST // PAGE_SIZE}",
)
# The worker that buries a job for its crashes knows more of the last one than the keeper.
_ADD: Final = """
INSERT INTO setbacks (place, job_id, mark, attempt, at, kicks, crash, worker, outcome, setback)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    at = excluded.at, kicks = excluded.kicks, outcome = excluded.outcome, setback = excluded.setback
WHERE outcome != 'buried'
"""
_ROWS: Final = """
SELECT rowid, crash FROM setbacks WHERE job_id = ? AND mark = ? ORDER BY at, rowid
"""
_OF: Final = """
SELECT kicks, crash, setback FROM setbacks
WHERE job_id = ? AND mark = ? AND at >= ? ORDER BY at, rowid
"""
_CRASHES: Final = """
SELECT job_id, mark, worker, at FROM setbacks WHERE crash = 1 ORDER BY at DESC LIMIT ?
"""
_JOBS: Final = """
SELECT job_id, max(at) FROM setbacks WHERE place = ? AND job_id > ?
GROUP BY job_id ORDER BY job_id LIMIT ?
"""
# Of their times only the order stays: a job has no past from before it was published. Crashes
# count no more, and what was forgiven by a kick stays so.
_HAND_ON: Final = """
INSERT OR IGNORE INTO setbacks
    (place, job_id, mark, attempt, at, kicks, crash, worker, outcome, setback)
SELECT place, ?, ?, job_id || ' ' || attempt, ?, kicks - ?, 0, worker, outcome, setback
FROM setbacks WHERE job_id = ? AND mark = ? AND setback != '' ORDER BY at, rowid
"""
_OLDEST_TENTH: Final = """
DELETE FROM setbacks WHERE rowid IN (
    SELECT rowid FROM setbacks ORDER BY at LIMIT (SELECT 10 + count(*) / 10 FROM setbacks)
)
"""


class JobName(NamedTuple):
    """Which job: the engine's handle and a mark of its bytes."""

    job_id: str
    mark: bytes

    @classmethod
    def of(cls, job_id: str, raw: bytes) -> JobName:
        """Return the name of a job with these bytes."""
        return cls(job_id, hashlib.blake2b(raw, digest_size=16).digest())


class KnownCrash(NamedTuple):
    """That a worker died with a job; `at` is Unix seconds."""

    job: JobName
    worker: str
    at: float


@dataclass(frozen=True, slots=True)
class Past:
    """What is kept of a job. `kicks` are those that it had had when it last failed."""

    history: tuple[Setback, ...] = ()
    kicks: int = 0
    crashes: int = 0  # since its last kick that is known here


class EvidenceStore:
    """What one process writes to and reads of the evidence of the jobs of one server.

    The file is made by the first to write, for its owner alone; who only reads makes none.
    """

    def __init__(self, path: Path, place: str) -> None:
        self._path = path.absolute()
        self._name = str(self._path)
        self._place = place
        self._store: FileStore | None = None
        self._told = ""

    def add(
        self, job: JobName, setback: Setback, *, kicks: int, reserves: int | None = None
    ) -> None:
        """Keep a setback of a job that was kicked and reserved so often.

        Without `reserves` it is a crash, of which a worker dies but once.
        """
        crash = reserves is None
        attempt = setback.worker if crash else f"{setback.worker} {reserves}"
        row = (
            self._place,
            *job,
            attempt,
            setback.at,
            kicks,
            crash,
            setback.worker,
            setback.outcome,
            written((setback,)),
        )
        with self._degrading():
            store = self._opened()
            try:
                store.write(_add, row)
            except QueueError as error:
                if getattr(error.__cause__, "sqlite_errorcode", 0) != sqlite3.SQLITE_FULL:
                    raise
                store.write(_execute, _OLDEST_TENTH)
                store.write(_add, row)

    def of(self, job: JobName, *, since: float) -> Past:
        """Return what is kept of a job; nothing from before it was published."""
        past = Past()
        with self._degrading():
            for kicks, crash, text in self._rows(_OF, *job, since):
                history = past.history
                for setback in read(text):
                    history = extended(history, setback)
                crashes = past.crashes if kicks == past.kicks else 0
                past = Past(history, kicks, crashes + crash)
        return past

    def hand_on(self, old: JobName, new: JobName, *, at: float, kicks: int) -> None:
        """Give a job's history to the one that takes its place; `kicks` are the old one's."""
        with self._degrading():
            if self._path.exists():
                self._opened().write(_execute, _HAND_ON, *new, at, kicks, *old)

    def crashes(self) -> list[KnownCrash]:
        """Return the crashes of all jobs, the oldest first."""
        rows: list[Any] = []
        if self._is_missing():
            return []
        with self._degrading():
            rows = self._rows(_CRASHES, _MOST_CRASHES)
        return [
            KnownCrash(JobName(job_id, mark), worker, at)
            for job_id, mark, worker, at in reversed(rows)
        ]

    def jobs_after(self, job_id: str, limit: int) -> dict[str, float]:
        """Return ids of this server's jobs, in order, and when each last failed."""
        rows: list[Any] = []
        with self._degrading():
            rows = self._rows(_JOBS, self._place, job_id, limit)
        return dict(rows)

    def forget(self, job_ids: Collection[str]) -> None:
        """Forget jobs of this server that are gone."""
        self._delete(
            "DELETE FROM setbacks WHERE place = ? AND job_id = ?",
            [(self._place, job_id) for job_id in job_ids],
        )

    def forget_before(self, at: float) -> None:
        """Forget all that is older, of every server."""
        self._delete("DELETE FROM setbacks WHERE at < ?", [(at,)])

    def close(self) -> None:
        """Let go of the file."""
        store, self._store = self._store, None
        if store is not None:
            with self._degrading():
                store.close()

    def _delete(self, sql: str, rows: list[tuple[object, ...]]) -> None:
        with self._degrading():
            if rows and self._path.exists():
                self._opened().write(_execute_many, sql, rows)

    def _is_missing(self) -> bool:
        """Tell it cheaply: every worker asks as it begins, and Path.exists unshares 0.1 MB."""
        try:
            os.stat(self._name)  # noqa: PTH116 - see above
        except FileNotFoundError:
            return True
        except OSError:
            return False  # told by whoever opens it
        return False

    def _rows(self, sql: str, *parameters: object) -> list[Any]:
        return self._opened().read(sql, *parameters) if self._path.exists() else []

    def _opened(self) -> FileStore:
        if self._store is None:
            self._store = FileStore(str(self._path), "normal", _SCHEMA)
        return self._store

    @contextmanager
    def _degrading(self) -> Iterator[None]:
        try:
            yield
        except (QueueError, ConfigError, OSError) as error:
            text = str(error).removeprefix(f"file queue {self._path}: ")
            if text != self._told:  # once, however many jobs fail meanwhile
                logger.warning(
                    "evidence of failed jobs is neither kept in nor read from %s: %s",
                    self._path,
                    text,
                )
            self._told = text
        else:
            self._told = ""


def _add(cursor: sqlite3.Cursor, row: tuple[object, ...]) -> None:
    cursor.execute(_ADD, row)
    rows = cursor.execute(_ROWS, row[1:3]).fetchall()
    for rowid, crash in rows[1:-MOST_NEWEST]:
        if crash:
            cursor.execute("UPDATE setbacks SET setback = '' WHERE rowid = ?", (rowid,))
        else:
            cursor.execute("DELETE FROM setbacks WHERE rowid = ?", (rowid,))


def _execute(cursor: sqlite3.Cursor, sql: str, *parameters: object) -> None:
    cursor.execute(sql, parameters)


def _execute_many(cursor: sqlite3.Cursor, sql: str, rows: list[tuple[object, ...]]) -> None:
    cursor.executemany(sql, rows)
