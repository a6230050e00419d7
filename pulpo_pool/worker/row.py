"""JobRow: how a worker shows its job on the scoreboard, with few writes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pulpo_pool.scoreboard import as_text
from pulpo_pool.states import Activity

if TYPE_CHECKING:
    from pulpo_pool.scoreboard import Hand, WorkRow

# The head of a WorkRow: seq, heartbeat, busy_since, busy, jobs_done; then activity, job_started,
# job_deadline, job_id. A pack writes them one by one, seq first.
_END: Final = struct.Struct("=Qdddq")
_BEGIN: Final = struct.Struct(_END.format + "qdd64s")
_BUSY: Final = int(Activity.BUSY)


class JobRow:
    """Writes what changes with each job: 0.5 us a job, where field by field it took 1.1.

    The worker alone writes its row, so that it need not read what it adds to. A reader sees the
    odd `seq` before anything else of a change, as with `writing`.
    """

    def __init__(self, row: WorkRow, hand: Hand) -> None:
        self._row = row
        self._hand = hand
        self._busy: float = row.busy
        self._jobs_done: int = row.jobs_done
        self._began = 0.0  # monotonic seconds; 0: no handler runs
        self._queue = self._request_type = ""  # as written, where most jobs find their own

    def begin(
        self, job_id: str, queue: str, request_type: str, now: float, deadline: float
    ) -> None:
        """Show that a handler runs. Times are monotonic seconds; deadline 0: none."""
        row, text = self._row, as_text(job_id)
        seq = row.seq | 1
        if request_type != self._request_type or queue != self._queue:
            self._request_type, self._queue = request_type, queue
            row.seq = seq
            row.request_type, row.queue = as_text(request_type), as_text(queue)
        self._hand.tag = text[-8:]
        _BEGIN.pack_into(
            row, 0, seq, now, now, self._busy, self._jobs_done, _BUSY, now, deadline, text
        )
        row.seq = seq + 1
        self._began = now

    def end(self, now: float) -> None:
        """Show that it has ended, or that a job came to an end without it.

        The row still names the job until the next begins: a worker killed now still holds it.
        """
        row = self._row
        seq = row.seq | 1
        if self._began:
            self._busy += now - self._began
            self._began = 0.0
        self._jobs_done += 1
        _END.pack_into(row, 0, seq, now, 0.0, self._busy, self._jobs_done)
        row.seq = seq + 1
