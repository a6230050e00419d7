"""Link: one connection to a beanstalkd, in step or not at all."""

from __future__ import annotations

import math
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import greenstalk

from pulpo_pool.queues.adapter import Numbering
from pulpo_pool.queues.beanstalkd_puts import COMMANDS_AT_ONCE, batches
from pulpo_pool.queues.beanstalkd_wire import WaitEnded, Wire, connect

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from pulpo_pool.queues.adapter import Reservation
    from pulpo_pool.queues.beanstalkd_puts import Put

_RESERVE: Final = b"reserve\r\n"
_GRANTED: Final = re.compile(rb"RESERVED (\d{1,20}) (\d{1,20})\r\n(.*)\r\n", re.DOTALL)
_GRANTED_NEXT: Final = re.compile(rb"DELETED\r\n" + _GRANTED.pattern, re.DOTALL)
_MORE_THAN_DELETED: Final = len(b"DELETED\r\n") + 1  # bytes
_LONGEST_WAIT: Final = 10  # seconds of one reserve while other jobs are held
_LONGEST_PARKED: Final = 30.0  # seconds until a silent server is asked whether it is there,
_PARKED_PATIENCE: Final = 3  # or so many times its socket_timeout, if that is sooner
_INSERTED: Final = re.compile(rb"INSERTED (\d{1,20})\r\n")
ANSWER_GRACE: Final = 0.05  # seconds that a job which is there may take to come

Granted: TypeAlias = tuple[int, bytes]  # the number of a job that was reserved, and its bytes


class Parked(NamedTuple):
    """A reserve that is outstanding. `seconds` are its timeout, `since` is monotonic."""

    since: float
    seconds: int | None
    command: bytes


class Link:
    """A connection and what is outstanding on it. Not for two threads at once.

    A wait may be left while its reserve is `parked`: the server goes on waiting for us, and the
    next wait reads its answer.
    """

    def __init__(self, host: str, port: int, patience: float) -> None:
        self.wire: Wire = connect(host, port, patience)
        self.client: greenstalk.Client[bytes] = greenstalk.Client(self.wire, encoding=None)
        try:
            stats = self.client.stats()
            self.largest = int(stats["max-job-size"])  # bytes
            self.numbering = Numbering(str(stats["id"]), time.time() - stats["uptime"] - 1)
        except BaseException:
            self.client.close()
            raise
        self.held: dict[int, Reservation] = {}
        self.parked: Parked | None = None
        self._using = greenstalk.DEFAULT_TUBE
        self._watches = False

    def close(self) -> None:
        """Let go; the server hands back what was held. A fork's copy may be closed as well."""
        self.client.close()

    def watch(self, tubes: Collection[str]) -> None:
        """Have these tubes reserved from, and no others. Said once for each connection."""
        if self._watches:
            return
        for tube in tubes:
            self.client.watch(tube)
        if greenstalk.DEFAULT_TUBE not in tubes:
            self.client.ignore(greenstalk.DEFAULT_TUBE)
        self._watches = True

    def use(self, tube: str) -> None:
        """Have the next put, peek-ready and so on mean this tube."""
        if tube != self._using:
            self.client.use(tube)
            self._using = tube

    # -- reserving ----------------------------------------------------------------------------
    #
    # A reserve without a timeout, wherever nothing else is held. beanstalkd (1.12 at least) keeps
    # the timeout of a reserve beyond its grant and looks at the connection once when that is
    # over: a lease that ends later is then never noticed, and a vanished host keeps its job.

    def look(self, tubes: Iterable[str]) -> Granted | None:
        """Reserve what is ready; None if nothing is. A reserve may be left `parked`."""
        if self.held:
            try:
                return _granted(self.client.reserve(timeout=0))
            except (greenstalk.TimedOutError, greenstalk.DeadlineSoonError):
                return None
        if not any(counts["current-jobs-ready"] for counts in self.stats_of_tubes(tubes)):
            return None
        return self.wait(time.monotonic() + ANSWER_GRACE, ())

    def wait(self, deadline: float, interrupts: tuple[int, ...]) -> Granted | None:
        """Wait for a job until monotonic `deadline`, or until an interrupt; None without one.

        The server waits on when we do not: see `parked`.
        """
        while True:
            if self.parked is None:
                self.park(deadline)
            parked = self.parked
            assert parked is not None
            silent_at = math.inf
            if parked.seconds is not None:
                silent_at = parked.since + parked.seconds + self.wire.patience
            try:
                self.wire.wait(deadline, silent_at, interrupts)
                granted = self._read_grant(parked)
            except WaitEnded:
                return None
            except greenstalk.TimedOutError:
                self.parked = None
            except greenstalk.DeadlineSoonError:
                # Only while another job is held: its last second makes every reserve end at once.
                self.parked = None
                time.sleep(min(0.05, max(0.0, deadline - time.monotonic())))
            else:
                self.parked = None
                return granted
            if time.monotonic() >= deadline:
                return None

    def _read_grant(self, parked: Parked) -> Granted:
        """Return the job that came; greenstalk reads whatever else an answer may be."""
        answer = self.wire.receive()
        granted = _GRANTED.fullmatch(answer)
        if granted is not None:
            number, length, body = granted.groups()
            if int(length) == len(body):
                return int(number), body
        self.wire.unread(answer, parked.command)
        return _granted(self.client.reserve(parked.seconds))

    def hop(self, number: int) -> Granted | None:
        """Delete the job in hand and reserve the next: one write, and one read of both answers.

        None: the answers came one by one, or others did.
        Then the delete counts as sent and the reserve as `parked`; call for both. Done without
        greenstalk, which builds and parses each command twice: 9 us less of the 33 that a turn's
        Python took.
        """
        answers = self.wire.ask(b"delete %d\r\nreserve\r\n" % number)
        granted = _GRANTED_NEXT.fullmatch(answers)
        if granted is not None:
            following, length, body = granted.groups()
            if int(length) == len(body):
                self.wire.gather(_MORE_THAN_DELETED)
                return int(following), body
        self.wire.unread(answers, b"delete %d\r\n" % number)
        self.parked = Parked(time.monotonic(), None, _RESERVE)
        return None

    def park(self, deadline: float, *, after: bytes = b"") -> None:
        """Ask for a job, in one write with the command before it, and go on without the answer.

        With other jobs in hand the server is to stop waiting by itself, since nothing but its
        answer ends a reserve, and until then no job could be touched.
        """
        now = time.monotonic()
        self.parked = Parked(now, None, _RESERVE)
        others = len(self.held) - bool(after)
        if others:
            seconds = min(_LONGEST_WAIT, max(0, math.ceil(deadline - now)))
            self.parked = Parked(now, seconds, b"reserve-with-timeout %d\r\n" % seconds)
        if after:
            self.wire.send_with(after, self.parked.command)
        else:
            self.wire.sendall(self.parked.command)

    @property
    def stale_at(self) -> float:
        """When a wait will have been silent for so long that the server may have gone; monotonic.

        A server says nothing to an idle worker, and cannot be asked while it waits for us.
        """
        if self.parked is None or self.parked.seconds is not None:
            return math.inf  # `wait` knows when an answer is due
        return self.parked.since + min(_LONGEST_PARKED, _PARKED_PATIENCE * self.wire.patience)

    @property
    def went_stale(self) -> bool:
        """Whether only a new connection can tell if the server is there."""
        return time.monotonic() >= self.stale_at and not self.wire.has_news()

    # -- many at once -------------------------------------------------------------------------

    def put_all(self, puts: Sequence[Put], stored: list[int]) -> None:
        """Store all jobs, their ids in `stored`; if one is refused, take back the others.

        After a lost connection `stored` are those that the server has for certain.
        """
        if len(puts) == 1 and self._put_alone(puts[0], stored):
            return
        refusal: greenstalk.BeanstalkdError | None = None
        for batch in batches(puts):
            uses = [self._use_before(put) for put in batch]
            if len(batch) > 1 or uses[0]:
                self.wire.send_ahead(
                    command
                    for put, use in zip(batch, uses, strict=True)
                    for command in _commands(put, use=use)
                )
            for put, use in zip(batch, uses, strict=True):
                if use:
                    self.client.use(put.tube)
                try:
                    stored.append(self.client.put(put.body, put.priority, put.delay, put.lease))
                except greenstalk.BuriedError as error:  # stored, but out of the workers' reach
                    stored.extend(() if error.id is None else (error.id,))
                    refusal = refusal or greenstalk.OutOfMemoryError()
                except greenstalk.BeanstalkdError as error:
                    refusal = refusal or error
            if refusal is not None:
                self._take_back(stored)
                raise refusal

    def _put_alone(self, put: Put, stored: list[int]) -> bool:
        """Store one job as publishers do it most; False: `put_all` is to read what came instead.

        Without greenstalk, which parses at length: 10 us less of a publisher's 64.
        """
        if put.tube != self._using:
            return False
        command = put.command()
        answer = self.wire.ask(command)
        inserted = _INSERTED.fullmatch(answer)
        if inserted is None:
            self.wire.unread(answer, command)
            return False
        stored.append(int(inserted[1]))
        return True

    def _use_before(self, put: Put) -> bool:
        differs = put.tube != self._using
        self._using = put.tube
        return differs

    def _take_back(self, stored: list[int]) -> None:
        while stored:
            with suppress(greenstalk.NotFoundError):  # a worker was faster
                self.client.delete(stored[-1])
            stored.pop()

    def facts_of_many(self, ids: Sequence[int]) -> Iterator[greenstalk.StatsJob]:
        """Yield what the server knows of those of these jobs that exist."""
        for first in range(0, len(ids), COMMANDS_AT_ONCE):
            batch = ids[first : first + COMMANDS_AT_ONCE]
            self.wire.send_ahead(b"stats-job %d\r\n" % number for number in batch)
            found = []
            for number in batch:
                try:
                    found.append(self.client.stats_job(number))
                except greenstalk.NotFoundError:
                    continue
            yield from found

    def stats_of_tubes(self, names: Iterable[str] = ()) -> Iterator[greenstalk.StatsTube]:
        """Yield the counts of these tubes, or of all."""
        tubes = list(names) or self.client.tubes()
        for first in range(0, len(tubes), COMMANDS_AT_ONCE):
            batch = tubes[first : first + COMMANDS_AT_ONCE]
            self.wire.send_ahead(b"stats-tube %b\r\n" % tube.encode("ascii") for tube in batch)
            found = []
            for tube in batch:
                try:
                    found.append(self.client.stats_tube(tube))
                except greenstalk.NotFoundError:  # gone with its last job
                    continue
            yield from found


def _commands(put: Put, *, use: bool) -> Iterator[bytes]:
    if use:
        yield b"use %b\r\n" % put.tube.encode()
    yield put.command()


def _granted(job: greenstalk.Job[bytes]) -> Granted:
    return job.id, job.body
