-- The file queue's statements; file_store.py reads them by name.
--
-- state: 0 ready, 1 delayed, 2 reserved, 3 buried.
-- due: Unix seconds; when a delayed job becomes ready, when a reservation's lease ends.
-- token: which lease; a settlement that names another one is lost.
--
-- raw is read as a BLOB, because people who insert rows by hand write text.
--
-- A word in braces is filled in once, when the statement is built. States are written out, never
-- bound: SQLite uses a partial index only for a query that names its states.

-- name: schema
CREATE TABLE IF NOT EXISTS jobs (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice: old handles find nothing
    queue    TEXT    NOT NULL,
    state    INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    due      REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    crashes  INTEGER NOT NULL DEFAULT 0,
    token    INTEGER,
    owner    TEXT,
    reason   TEXT,
    error    TEXT,
    history  TEXT,                               -- JSON: the attempts that did not end well
    raw      BLOB    NOT NULL,                   -- last, so that reading the rest stays short
    -- For people who write rows by hand: what would confuse the statements below is refused.
    CHECK (typeof(priority) = 'integer' AND priority >= 0),
    CHECK (iif(state = 0 OR state = 3, due IS NULL, (state = 1 OR state = 2) AND due IS NOT NULL))
);
-- Partial, so that a job is in one of them at a time; `state` is repeated as a column because
-- SQLite counts without visiting the rows only if the index has all that the query names.
CREATE INDEX IF NOT EXISTS jobs_standing
    ON jobs (state, queue, priority, id) WHERE state = 0 OR state = 3;
CREATE INDEX IF NOT EXISTS jobs_timed
    ON jobs (state, due, queue) WHERE state = 1 OR state = 2;

-- name: schema_done
-- Jobs that are gone, for people; nothing here is ever run. keep_until was decided when it went.
CREATE TABLE IF NOT EXISTS done (
    id         INTEGER PRIMARY KEY,              -- what it was among the jobs
    queue      TEXT    NOT NULL,
    expired    INTEGER NOT NULL,                 -- 1: discarded, 0: done
    priority   INTEGER NOT NULL,
    attempts   INTEGER NOT NULL,
    crashes    INTEGER NOT NULL,
    ended      REAL    NOT NULL,
    seconds    REAL    NOT NULL,
    keep_until REAL    NOT NULL,
    owner      TEXT,
    history    TEXT,
    raw        BLOB    NOT NULL
);
CREATE INDEX IF NOT EXISTS done_kept ON done (keep_until);

-- name: parts
SELECT name FROM pragma_table_info('jobs')
UNION ALL
SELECT name FROM sqlite_master WHERE name = 'done_kept';

-- name: add_history
ALTER TABLE jobs ADD COLUMN history TEXT;

-- name: insert_ready
INSERT INTO jobs (queue, state, priority, raw) VALUES (?, 0, ?, ?);

-- name: insert_delayed
INSERT INTO jobs (queue, state, priority, raw, due) VALUES (?, 1, ?, ?, ?);

-- name: last_id
SELECT last_insert_rowid();

-- name: next_due
SELECT min(
    coalesce((SELECT due FROM jobs WHERE state = 1 ORDER BY due LIMIT 1), 1e999),
    coalesce((SELECT due FROM jobs WHERE state = 2 ORDER BY due LIMIT 1), 1e999)
)

-- name: promote
UPDATE jobs SET state = 0, due = NULL, owner = NULL
WHERE id IN (
    SELECT id FROM (SELECT id FROM jobs WHERE state = 1 AND due <= ?1 ORDER BY due LIMIT ?2)
    UNION ALL
    SELECT id FROM (SELECT id FROM jobs WHERE state = 2 AND due <= ?1 ORDER BY due LIMIT ?2)
)
RETURNING queue;

-- name: head
SELECT priority, id FROM jobs WHERE state = 0 AND queue = ?

-- name: next_ready
SELECT id, queue, CAST(raw AS BLOB), attempts, crashes FROM jobs
WHERE id = (SELECT id FROM ({heads} ORDER BY priority, id LIMIT 1))
AND ? < ({next_due});  -- what is due goes first: nothing is found then

-- name: claim
UPDATE jobs SET state = 2, attempts = attempts + 1, due = ?, token = ?, owner = ? WHERE id = ?;

-- name: has_ready
SELECT 1 FROM jobs WHERE state = 0 AND queue = ? LIMIT 1;

-- name: commit
DELETE FROM jobs WHERE id = ? AND token = ? AND state = 2;

-- name: keep
INSERT OR REPLACE INTO done
SELECT id, queue, ?, priority, attempts, crashes, ?, ?, ?, owner, history, raw FROM jobs
WHERE id = ? AND token = ? AND state = 2;

-- name: history
SELECT attempts, history FROM jobs WHERE id = ? AND token = ? AND state = 2;

-- name: rollback
UPDATE jobs SET state = ?, due = ?, error = ?, history = coalesce(?, history), owner = NULL
WHERE id = ? AND token = ? AND state = 2;

-- name: put_back
UPDATE jobs SET state = ?, due = ?, attempts = max(0, attempts - 1), owner = NULL
WHERE id = ? AND token = ? AND state = 2;

-- name: bury
UPDATE jobs SET state = 3, due = NULL, reason = ?, error = ?, history = ?, owner = NULL
WHERE id = ? AND token = ? AND state = 2;

-- name: touch
UPDATE jobs SET due = ? WHERE id = ? AND token = ? AND state = 2;

-- name: reservations
SELECT id, token, owner, crashes FROM jobs WHERE state = 2 AND owner IS NOT NULL;

-- name: rescue
UPDATE jobs SET state = ?, due = ?, crashes = ?, attempts = max(0, attempts - ?),
    reason = ?, error = coalesce(?, error), history = ?, owner = NULL
WHERE id = ? AND token = ? AND state = 2
RETURNING queue, CAST(raw AS BLOB);

-- name: stats
SELECT queue, state, count(*) FROM jobs WHERE state = 0 GROUP BY queue
UNION ALL
SELECT queue, state, count(*) FROM jobs WHERE state = 3 GROUP BY queue
UNION ALL
SELECT queue, iif(due <= ?1, 0, 1) AS seen_as, count(*) FROM jobs WHERE state = 1
GROUP BY queue, seen_as
UNION ALL
SELECT queue, iif(due <= ?1, 0, 2) AS seen_as, count(*) FROM jobs WHERE state = 2
GROUP BY queue, seen_as;

-- name: oldest_ready
SELECT queue, CAST(raw AS BLOB) FROM jobs
WHERE id IN (SELECT min(id) FROM jobs WHERE state = 0 GROUP BY queue);

-- name: oldest_due
SELECT queue, min(due) FROM jobs WHERE state = 1 AND due <= ?1 GROUP BY queue
UNION ALL
SELECT queue, min(due) FROM jobs WHERE state = 2 AND due <= ?1 GROUP BY queue;

-- name: peek
SELECT id, queue, state, CAST(raw AS BLOB), priority, attempts, crashes, due, owner, reason, error,
    history
FROM jobs WHERE id = ?;

-- name: in_front
SELECT count(*) FROM jobs WHERE state = 0 AND queue = ? AND (priority, id) < (?, ?);

-- name: saying
SELECT id, CAST(raw AS BLOB) FROM jobs WHERE instr(CAST(raw AS BLOB), ?) LIMIT 1000;

-- name: page_standing
SELECT id, queue, state, CAST(raw AS BLOB), priority, attempts, crashes, due, owner, reason, error,
    history
FROM jobs WHERE state = {state} AND queue = ? AND (priority, id) > (?, ?)
ORDER BY priority, id LIMIT ?;

-- name: page_timed
SELECT id, queue, state, CAST(raw AS BLOB), priority, attempts, crashes, due, owner, reason, error,
    history
FROM jobs WHERE state = {state} AND (due, queue, id) > (?, ?, ?)
ORDER BY due, queue, id LIMIT ?;

-- name: queues
WITH RECURSIVE name (queue) AS (
    SELECT min(queue) FROM jobs WHERE state = {state}
    UNION ALL
    SELECT (SELECT min(queue) FROM jobs WHERE state = {state} AND queue > name.queue)
    FROM name WHERE name.queue IS NOT NULL
)
SELECT queue FROM name WHERE queue IS NOT NULL;

-- name: newest_id
SELECT coalesce(max(id), 0) FROM jobs;

-- name: state_of
SELECT state, queue FROM jobs WHERE id = ?;

-- name: kick
UPDATE jobs SET state = 0, due = NULL, attempts = 0, crashes = 0, reason = NULL, error = NULL
WHERE id = ?;

-- name: kick_some
UPDATE jobs SET state = 0, due = NULL, attempts = 0, crashes = 0, reason = NULL, error = NULL
WHERE id IN (SELECT id FROM jobs WHERE state = 3 AND queue = ? AND id <= ? LIMIT ?);

-- name: replace
UPDATE jobs SET raw = ?, priority = ? WHERE id = ?;

-- name: delete
DELETE FROM jobs WHERE id = ?;

-- name: purge_some
DELETE FROM jobs WHERE id IN (
    SELECT id FROM jobs WHERE state = {state} AND queue = ? AND id <= ? LIMIT ?
);

-- name: peek_done
SELECT id, queue, expired, CAST(raw AS BLOB), priority, attempts, crashes, NULL, owner, NULL, NULL,
    history, ended, seconds, keep_until
FROM done WHERE id = ?;

-- name: page_done
SELECT id, queue, expired, CAST(raw AS BLOB), priority, attempts, crashes, NULL, owner, NULL, NULL,
    history, ended, seconds, keep_until
FROM done WHERE (keep_until, id) < (?, ?) ORDER BY keep_until DESC, id DESC LIMIT ?;

-- name: saying_done
SELECT id, CAST(raw AS BLOB) FROM done WHERE instr(CAST(raw AS BLOB), ?) LIMIT 1000;

-- name: is_over
SELECT 1 FROM done WHERE keep_until <= ? LIMIT 1;

-- name: last_kept
SELECT max(keep_until) FROM done;

-- name: forget
DELETE FROM done WHERE id = ?;

-- name: forget_some
DELETE FROM done WHERE id IN (
    SELECT id FROM done WHERE keep_until <= ? ORDER BY keep_until LIMIT ?
);
