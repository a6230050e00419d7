"""What people ask of a file queue: look at jobs, count them, revive them, remove them."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from pulpo_pool.errors import JobReserved, NoSuchJob
from pulpo_pool.queues import history
from pulpo_pool.queues.adapter import JobEnd, JobRecord, JobState, KeptState, QueueStats
from pulpo_pool.queues.file_session import SQL
from pulpo_pool.queues.records import kept_only, named, oldest, priority_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from pulpo_pool.codec import Codec
    from pulpo_pool.message import Message
    from pulpo_pool.queues.file_store import FileStore

STATES: Final = (JobState.READY, JobState.DELAYED, JobState.RESERVED, JobState.BURIED)

_PAGE: Final = 200  # jobs read at once: no snapshot outlives a page, so the log stays short
_BATCH: Final = 1_000  # jobs changed at once, for some milliseconds
_BATCHES: Final = 10  # of kept jobs, forgotten before the keeper looks after the living
_LARGEST_ID: Final = 2**63 - 1


def stats(store: FileStore, now: float) -> Mapping[str, QueueStats]:
    """Return the counts of every queue that has jobs."""
    counts: dict[str, Counter[str]] = {}
    for queue, state, number in store.read(SQL["stats"], now):
        counts.setdefault(queue, Counter())[STATES[state].value] += number
    return {queue: QueueStats(**count) for queue, count in counts.items()}


def waiting_since(store: FileStore, codec: Codec, now: float) -> Mapping[str, float]:
    """Return since when each queue has had a job ready: as such, or due and not yet promoted."""
    found = oldest(store.read(SQL["oldest_ready"]), codec)
    for queue, due in store.read(SQL["oldest_due"], now):
        found[queue] = min(due, found.get(queue, due))
    return found


def peek(store: FileStore, job_id: str, codec: Codec, now: float) -> JobRecord:
    """Return a job in any state, or a kept one; raise NoSuchJob."""
    rows = store.read(SQL["peek"], row_id(job_id))
    if not rows:
        kept = store.read(SQL["peek_done"], row_id(job_id))
        if not kept:
            raise _missing(job_id)
        return _kept(kept[0], codec)
    row = rows[0]
    due = row[7]
    if due is not None and due <= now:
        row = (*row[:2], STATES.index(JobState.READY), *row[3:7], None, None, *row[9:])
    return _record(row, codec)


def in_front(store: FileStore, record: JobRecord) -> int:
    """Return how many ready jobs of its queue run before a ready one."""
    place = (record.queue, record.priority, int(record.job_id))
    ((number,),) = store.read(SQL["in_front"], *place)
    return int(number)


def find_message(store: FileStore, message_id: str, codec: Codec) -> str | None:
    """Return the job_id of a message; None if there is none."""
    said = message_id.encode("utf-8", "replace")
    return named(message_id, store.read(SQL["saying"], said), codec) or named(
        message_id, store.read(SQL["saying_done"], said), codec
    )


def list_jobs(
    store: FileStore, state: JobState, queues: Collection[str], codec: Codec
) -> Iterator[JobRecord]:
    """Yield the jobs in a state, page by page, in the order they would run."""
    if state in (JobState.READY, JobState.BURIED):
        names = sorted(set(queues)) or _queues(store, state)
        pages = [_standing(store, state, name) for name in names]
        rows = heapq.merge(*pages, key=lambda row: (row[4], row[0]))
    else:
        rows = (row for row in _timed(store, state) if not queues or row[1] in queues)
    return (_record(row, codec) for row in rows)


def list_done(store: FileStore, queues: Collection[str], codec: Codec) -> Iterator[JobRecord]:
    """Yield the jobs that are gone and kept, page by page, the one first that goes last."""
    last, number = math.inf, 0
    while page := store.read(SQL["page_done"], last, number, _PAGE):
        yield from (_kept(row, codec) for row in page if not queues or row[1] in queues)
        last, number = page[-1][-1], page[-1][0]


def forget(store: FileStore, now: float) -> bool:
    """Remove some of the kept jobs whose time is over; tell whether more are left."""
    for _ in range(_BATCHES):
        if not store.read(SQL["is_over"], now):
            return False
        store.write(_forget_some, now)
    return True


def forget_all(store: FileStore) -> int:
    """Remove all the kept jobs that are there now; return how many."""
    ((last,),) = store.read(SQL["last_kept"])
    number = 0
    while last is not None and (some := store.write(_forget_some, last)):
        number += some
    return number


def kick(cursor: sqlite3.Cursor, job_ids: Collection[str]) -> Counter[str]:
    """Make buried and delayed jobs ready; return how many in which queue, or raise NoSuchJob."""
    kicked: Counter[str] = Counter()
    for job_id in job_ids:
        number = row_id(job_id)
        row = cursor.execute(SQL["state_of"], (number,)).fetchone()
        if row is None:
            raise _gone(cursor, job_id)
        if STATES[row[0]] in (JobState.DELAYED, JobState.BURIED):
            cursor.execute(SQL["kick"], (number,))
            kicked[row[1]] += 1
    return kicked


def kick_all(store: FileStore, queues: Collection[str]) -> Counter[str]:
    """Make every buried job ready; return how many in which queue."""
    return _in_batches(store, "kick_some", JobState.BURIED, queues)


def replace(cursor: sqlite3.Cursor, job_id: str, message: Message, codec: Codec) -> str:
    """Put a message in the place of a job's own, return its id; raise NoSuchJob, JobReserved."""
    row = cursor.execute(SQL["peek"], (row_id(job_id),)).fetchone()
    if row is None:
        raise _gone(cursor, job_id)
    record = _record(row, codec)
    if record.state is JobState.RESERVED:
        raise JobReserved(f"job {job_id} is in a worker's hands")
    raw = codec.encode(message)
    cursor.execute(SQL["replace"], (raw, priority_of(message, record), row[0]))
    return record.job_id


def delete(cursor: sqlite3.Cursor, job_id: str) -> None:
    """Remove a job in any state, or a kept one; raise NoSuchJob."""
    number = (row_id(job_id),)
    if not any(cursor.execute(SQL[name], number).rowcount for name in ("delete", "forget")):
        raise _missing(job_id)


def purge(store: FileStore, state: JobState, queues: Collection[str]) -> int:
    """Remove every job in a state that is there now; return how many."""
    return _in_batches(store, "purge_some", state, queues).total()


def row_id(job_id: str) -> int:
    """Return the row of a job; raise NoSuchJob for text that cannot be one."""
    if not (job_id.isascii() and job_id.isdigit()) or int(job_id[:20]) > _LARGEST_ID:
        raise _missing(job_id)
    return int(job_id)


def _in_batches(
    store: FileStore, statement: str, state: JobState, queues: Collection[str]
) -> Counter[str]:
    """Change jobs a batch a transaction, so that workers get their turns in between."""
    sql = _in_state(statement, state)
    ((newest,),) = store.read(SQL["newest_id"])
    changed: Counter[str] = Counter()
    for queue in set(queues) or _queues(store, state):
        while number := store.write(_change, sql, queue, newest):
            changed[queue] += number
    return changed


def _change(cursor: sqlite3.Cursor, sql: str, queue: str, newest: int) -> int:
    return cursor.execute(sql, (queue, newest, _BATCH)).rowcount


def _forget_some(cursor: sqlite3.Cursor, until: float) -> int:
    return cursor.execute(SQL["forget_some"], (until, _BATCH)).rowcount


def _queues(store: FileStore, state: JobState) -> list[str]:
    return [name for (name,) in store.read(_in_state("queues", state))]


def _standing(store: FileStore, state: JobState, queue: str) -> Iterator[tuple[Any, ...]]:
    sql = _in_state("page_standing", state)
    priority, number = -1, 0
    while page := store.read(sql, queue, priority, number, _PAGE):
        yield from page
        priority, number = page[-1][4], page[-1][0]


def _timed(store: FileStore, state: JobState) -> Iterator[tuple[Any, ...]]:
    sql = _in_state("page_timed", state)
    due, queue, number = 0.0, "", 0
    while page := store.read(sql, due, queue, number, _PAGE):
        yield from page
        due, queue, number = page[-1][7], page[-1][1], page[-1][0]


def _in_state(statement: str, state: JobState) -> str:
    return SQL[statement].format(state=STATES.index(state))


def _record(row: tuple[Any, ...], codec: Codec) -> JobRecord:
    return _as_record(row, STATES[row[2]], codec)


def _kept(row: tuple[Any, ...], codec: Codec) -> JobRecord:
    *job, ended, seconds, keep_until = row
    state = KeptState.EXPIRED if row[2] else KeptState.DONE
    return _as_record(job, state, codec, JobEnd(ended, seconds, keep_until))


def _as_record(
    row: Sequence[Any], state: JobState | KeptState, codec: Codec, end: JobEnd | None = None
) -> JobRecord:
    job_id, queue, _, raw, priority, attempts, crashes, due, owner, reason, error, kept = row
    return JobRecord(
        job_id=str(job_id),
        queue=queue,
        state=state,
        raw=raw,
        codec=codec,
        priority=priority,
        attempts=attempts,
        crashes=crashes,
        due=due,
        owner=owner,
        reason=reason,
        error=error,
        history=history.read(kept),
        end=end,
    )


def _gone(cursor: sqlite3.Cursor, job_id: str) -> NoSuchJob:
    if cursor.execute(SQL["peek_done"], (row_id(job_id),)).fetchone() is None:
        return _missing(job_id)
    return kept_only(job_id)


def _missing(job_id: str) -> NoSuchJob:
    return NoSuchJob(f"there is no job {job_id!r} in this queue")
