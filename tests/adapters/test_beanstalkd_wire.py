"""What passes between the adapter and beanstalkd, and what becomes of it when the line is cut."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import contextmanager

import greenstalk
import pytest
from relay import Relay
from sayings import said, say
from servers import Beanstalkd, free_port

from pulpo_pool.clock import SystemClock
from pulpo_pool.errors import (
    ConfigError,
    InvalidMessage,
    MessageTooLarge,
    PartlyPublished,
    QueueError,
    QueueUnavailable,
    ReservationLost,
)
from pulpo_pool.queues import beanstalkd_wire
from pulpo_pool.queues.adapter import BuryReason, Commit, JobState, QueueStats, Rollback, Settled
from pulpo_pool.queues.beanstalkd import BeanstalkdQueueAdapter
from pulpo_pool.queues.opening import check_url, open_queue


@pytest.fixture
def server():
    with Beanstalkd(largest=65_535) as server:
        yield server


@pytest.fixture
def relay(server):
    with Relay(server.host, server.port) as relay:
        yield relay


@pytest.fixture
def queue(relay):
    with adapter_at(relay) as queue:
        yield queue


def adapter_at(place, **options):
    options.setdefault("socket_timeout", 1.0)
    return BeanstalkdQueueAdapter(place.host, place.port, **options)


def counts(place):
    with adapter_at(place) as other:
        return sum(other.stats().values(), QueueStats())


# -- round trips ------------------------------------------------------------------------------


def test_a_job_costs_one_round_trip(queue, relay):
    """The settlement and the next reserve leave in one write, and one read brings both answers."""
    queue.enqueue_many([say(n) for n in range(21)])
    held = queue.dequeue(5)
    relay.requests.clear()
    done = []
    for _ in range(20):
        settled, held = queue.settle_and_dequeue(Commit(held), 5)
        done.append((settled, said(held)))

    assert done == [(Settled.DONE, n) for n in range(1, 21)]
    assert len(relay.requests) == 20
    assert {request.split(b" ")[0] for request in relay.requests} == {b"delete"}
    assert {request.split(b"\r\n")[1] for request in relay.requests} == {b"reserve"}


def test_a_job_that_came_with_the_answer_before_it_does_not_hurry_the_next_settlement(
    queue, relay, monkeypatch
):
    """Its wait was over before it began; the deadline of that must not be that of the delete."""
    queue.enqueue_many([say(1), say(2)])
    first = queue.dequeue(5)
    monkeypatch.setattr("pulpo_pool.queues.beanstalkd_turns.ANSWER_GRACE", 0.0)
    relay.reply_ends = b"}}\r\n"  # DELETED and the job in one piece
    _, second = queue.settle_and_dequeue(Commit(first), 5)
    relay.reply_ends = b""
    settled, _ = queue.settle_and_dequeue(Commit(second), 0.1)

    assert settled is Settled.DONE
    assert counts(relay) == QueueStats()


def test_many_jobs_are_published_without_waiting_for_each_answer(queue, relay):
    relay.requests.clear()
    queue.enqueue_many([say(n) for n in range(400)])

    assert len(relay.requests) < 20
    assert counts(relay) == QueueStats(ready=400)


def test_the_attempt_costs_its_round_trip_only_when_it_is_read(queue, relay):
    queue.enqueue(say("x"))
    held = queue.dequeue(5)
    relay.requests.clear()
    before = list(relay.requests)
    numbers = [held.attempt, held.attempt]

    assert before == []
    assert numbers == [1, 1]
    assert [request.split()[0] for request in relay.requests] == [b"stats-job"]


def test_a_wait_that_was_left_is_read_on(queue, relay):
    """A worker's next look sends nothing: the server waits for it already."""
    end, bell = os.pipe()
    queue.interrupts = (end,)
    assert queue.dequeue(0.05) is None
    relay.requests.clear()
    assert queue.dequeue(0.05) is None
    os.write(bell, b"!")
    assert queue.dequeue(60) is None
    sent = list(relay.requests)
    os.read(end, 1)
    counts_before = counts(relay)
    with adapter_at(relay) as other:
        other.enqueue(say("now"))
    held = queue.dequeue(20)
    os.close(end)
    os.close(bell)

    assert sent == []
    assert counts_before == QueueStats()
    assert said(held) == "now"


def test_a_job_that_came_after_a_worker_stopped_waiting_is_handed_back(queue, relay):
    end, bell = os.pipe()
    queue.interrupts = (end,)
    assert queue.dequeue(0.05) is None
    with adapter_at(relay) as other:
        other.enqueue(say("late"))
    queue.rest()
    with adapter_at(relay) as other:
        held = other.dequeue(20)
        os.close(end)
        os.close(bell)

        assert said(held) == "late"


def test_a_job_that_came_between_two_calls_is_the_next(queue, relay):
    """Whatever the adapter was asked in between."""
    end, bell = os.pipe()
    queue.interrupts = (end,)
    assert queue.dequeue(0.05) is None
    with adapter_at(relay) as other:
        job_id = other.enqueue(say("between"))
        while other.peek(job_id).state is not JobState.RESERVED:
            pass
    told = queue.stats()
    held = queue.dequeue(20)
    os.close(end)
    os.close(bell)

    assert told["default"].reserved + told["default"].ready == 1
    assert said(held) == "between"


# -- priorities, delays, leases ---------------------------------------------------------------


def test_a_priority_survives_release_bury_and_kick(queue):
    """Of a stranger's job too, whose bytes do not say it."""
    queue.enqueue(say("usual", priority=5))
    queue.enqueue(say("urgent", priority=1))
    held = queue.dequeue(5)
    queue.rollback(held)
    held = queue.dequeue(5)
    first = said(held)
    queue.bury(held, reason=BuryReason.FATAL)
    queue.kick([held.job_id])
    priority = queue.peek(held.job_id).priority
    order = [said(queue.dequeue(5)), said(queue.dequeue(5))]

    assert first == "urgent"
    assert priority == 1
    assert order == ["urgent", "usual"]


def test_a_strangers_priority_survives_too(queue, server):
    with greenstalk.Client((server.host, server.port), encoding=None) as stranger:
        number = stranger.put(b'{"header": {"request_type": "say"}, "body": {}}', priority=3)
    queue.rollback(queue.dequeue(5))

    assert queue.peek(str(number)).priority == 3


@pytest.mark.parametrize(("lease", "ttr"), [(0.2, 1), (1.2, 2), (60, 60)])
def test_a_lease_is_rounded_up(relay, server, lease, ttr):
    with (
        adapter_at(relay, lease=lease) as queue,
        greenstalk.Client((server.host, server.port)) as client,
    ):
        number = int(queue.enqueue(say("x")))
        facts = client.stats_job(number)

    assert facts["ttr"] == ttr


@pytest.mark.parametrize(("delay", "whole"), [(0.2, 1), (1.5, 2), (30, 30)])
def test_a_delay_is_rounded_up(queue, server, delay, whole):
    queue.enqueue(say("x"))
    held = queue.dequeue(5)
    queue.settle(Rollback(held, delay))
    with greenstalk.Client((server.host, server.port)) as client:
        facts = client.stats_job(int(held.job_id))

    assert facts["delay"] == whole


def test_a_job_published_with_a_shorter_lease_shortens_the_pace_of_touching(queue, server):
    """Whoever renews leases asks the adapter how often."""
    with greenstalk.Client((server.host, server.port), encoding=None) as stranger:
        stranger.put(b'{"header": {"request_type": "say"}, "body": {}}', ttr=7)
    held = queue.dequeue(5)
    before = queue.lease
    queue.touch(held)

    assert (before, queue.lease) == (60, 7)


# -- cut lines --------------------------------------------------------------------------------


def worked_off(queue, place, pending=None):
    """Work as a worker does, through failures, until the server is empty; return what was done."""
    done, failures = [], 0
    deadline = time.monotonic() + 30
    while (pending or counts(place) != QueueStats()) and time.monotonic() < deadline:
        try:
            settled, following = queue.settle_and_dequeue(pending, 0.1)
        except QueueUnavailable:
            failures += 1
            continue
        if settled is not Settled.NOTHING:
            pending = None
        if following is not None:
            done.append(said(following))
            pending = Commit(following)
    return done, failures


STEPS = {
    "before the settlement arrives": {"text": b"delete", "passed": False},
    "after the settlement arrived": {"text": b"delete"},
    "before its answer arrives": {"text": b"DELETED", "reply": True, "passed": False},
    "after its answer arrived": {"text": b"DELETED", "reply": True},
}


@pytest.mark.parametrize("step", STEPS)
def test_a_line_cut_while_a_job_is_settled_loses_nothing_and_repeats_nothing(queue, relay, step):
    """What was done is acknowledged with the next connection, if it was not before."""
    queue.enqueue_many([say(1), say(2)])
    held = queue.dequeue(5)
    done = [said(held)]
    cut = dict(STEPS[step])
    relay.cut_after(cut.pop("text"), **cut)
    done += worked_off(queue, relay, Commit(held))[0]

    assert not relay.cut_is_due
    assert done == [1, 2]
    assert counts(relay) == QueueStats()


SLOW_STEPS = {
    "a job is asked for": {"text": b"reserve"},
    "a job is given": {"text": b"RESERVED", "reply": True},
    "it is settled": {"text": b"delete"},
    "it is told that it is settled": {"text": b"DELETED", "reply": True},
}


@pytest.mark.parametrize("step", SLOW_STEPS)
def test_a_delay_at_each_step_of_a_jobs_life_is_waited_for(server, relay, step):
    with adapter_at(relay, socket_timeout=20) as queue:
        queue.enqueue_many([say(1), say(2)])
        relay.stall_before(seconds=0.2, **SLOW_STEPS[step])
        done, failures = worked_off(queue, server)

    assert (done, failures) == ([1, 2], 0)


@pytest.mark.parametrize("step", SLOW_STEPS)
def test_a_black_hole_at_each_step_of_a_jobs_life_loses_nothing(server, relay, step):
    """What was sent into it arrives when the route is back, long after it was given up."""
    with adapter_at(relay, socket_timeout=0.2) as queue:
        queue.enqueue_many([say(1), say(2)])
        relay.stall_before(seconds=0.7, **SLOW_STEPS[step])
        done, _ = worked_off(queue, server)

    assert set(done) == {1, 2}
    assert counts(server) == QueueStats()


@pytest.mark.parametrize(
    ("reply", "instead"),
    [
        (b"DELETED\r\n", b"DEL"),
        (b"DELETED\r\n", b"RELEASED\r\n"),
        (b"DELETED\r\n", b"\xff\x00\r\nDELETED\r\n"),
        (b"RESERVED ", b"FOUND "),
        (b"RESERVED 1", b"RESERVED one"),
        (b"}}\r\n", b"}"),
    ],
    ids=["half a line", "another command's", "noise before it", "another's job", "no number",
         "half a job"],
)  # fmt: skip
def test_a_reply_that_is_wrong_costs_the_connection_and_no_job(server, relay, reply, instead):
    """In the middle of a life: the worker goes on with a new connection, which is in step."""
    with adapter_at(relay, socket_timeout=0.5) as queue:
        queue.enqueue_many([say(1), say(2)])
        relay.rewrites[reply] = instead
        done, failures = worked_off(queue, server)

    assert not relay.rewrites
    assert failures >= 1
    assert set(done) == {1, 2}
    assert counts(server) == QueueStats()


def test_a_job_cut_off_is_rolled_back_and_buried_after_all(queue, relay):
    """The next connection takes the job where the server put it, and settles it."""
    first, second = queue.enqueue_many([say(1), say(2)])
    one, two = queue.dequeue(5), queue.dequeue(5)
    relay.cut_after(b"stats-job")
    with pytest.raises(QueueUnavailable):
        queue.settle(Rollback(one, 600))
    queue.settle(Rollback(one, 600))
    queue.bury(two, reason=BuryReason.FATAL)
    states = {job_id: queue.peek(job_id).state for job_id in (first, second)}

    assert states == {first: JobState.DELAYED, second: JobState.BURIED}


def test_a_job_that_another_got_meanwhile_is_lost(queue, relay):
    queue.enqueue(say(1))
    held = queue.dequeue(5)
    relay.cut_after(b"delete", passed=False)
    with pytest.raises(QueueUnavailable):
        queue.settle(Commit(held))
    with adapter_at(relay) as other:
        theirs = other.dequeue(5)
        with pytest.raises(ReservationLost):
            queue.commit(held)
        other.commit(theirs)


def test_an_id_that_means_another_job_since_a_restart_is_left_alone(relay, server):
    """Without its log a server counts from 1 again: job 1 of today is not job 1 of yesterday."""
    with adapter_at(relay) as queue:
        queue.enqueue(say("yesterday"))
        held = queue.dequeue(5)
        server.kill()
        server.start()
        with pytest.raises(QueueUnavailable):
            queue.commit(held)
        with adapter_at(relay) as other:
            other.enqueue(say("today"))
        with pytest.raises(ReservationLost):
            queue.commit(held)

    assert counts(relay) == QueueStats(ready=1)


@pytest.mark.parametrize("passed", [True, False])
def test_a_line_cut_while_publishing_is_told(queue, relay, passed):
    """Whether the job is there cannot be known; publishing again works."""
    relay.cut_after(b"put", passed=passed)
    with pytest.raises(PartlyPublished, match=r"beanstalkd at .* none of 1 messages stored"):
        queue.enqueue(say(1))
    queue.enqueue(say(2))

    assert counts(relay).ready in (1, 2)


def test_a_server_that_was_restarted_is_found_again_without_a_word(relay, server):
    """A producer that published an hour ago does not fail because of it."""
    with adapter_at(server) as queue:
        queue.enqueue(say(1))
        server.kill()
        server.start()
        queue.enqueue(say(2))

        assert queue.stats() == {"default": QueueStats(ready=1)}


def test_a_dead_route_is_told_after_the_socket_timeout(queue, relay):
    queue.enqueue(say(1))
    relay.silent = True
    with pytest.raises(QueueUnavailable, match="no answer for 1 seconds"):
        queue.dequeue()
    relay.silent = False

    assert said(queue.dequeue(5)) == 1


def test_a_lease_is_not_touched_on_another_connection(queue, relay):
    queue.enqueue(say(1))
    held = queue.dequeue(5)
    relay.cut_after(b"touch", passed=False)
    with pytest.raises(QueueUnavailable):
        queue.touch(held)
    with pytest.raises(ReservationLost):
        queue.touch(held)


def test_answers_that_come_in_pieces_are_read_whole(queue, relay, monkeypatch):
    """A packet may end anywhere; the next answer is not mixed up with the rest of one."""
    queue.enqueue(say(1))
    monkeypatch.setattr(beanstalkd_wire, "_AT_ONCE", 5)  # bytes
    relay.requests.clear()
    job_ids = [queue.enqueue(say(n)) for n in (2, 3)]
    held, done = queue.dequeue(5), []
    while held is not None:
        done.append((held.job_id, said(held)))
        _, held = queue.settle_and_dequeue(Commit(held), 0)

    assert done == [("1", 1), (job_ids[0], 2), (job_ids[1], 3)]
    assert [request.split()[0] for request in relay.requests[:2]] == [b"put", b"put"]


# -- servers that refuse ----------------------------------------------------------------------


def until_it_drains(server):
    with greenstalk.Client((server.host, server.port)) as client:
        while client.stats()["draining"] != "true":
            time.sleep(0.005)


def test_a_draining_server_takes_nothing_and_gives_the_rest(queue, server):
    queue.enqueue_many([say(1), say(2)])
    held = queue.dequeue(5)
    server.signal(signal.SIGUSR1)
    until_it_drains(server)
    with pytest.raises(QueueUnavailable, match="drains"):
        queue.enqueue(say(3))
    _, following = queue.settle_and_dequeue(Commit(held), 5)

    assert said(following) == 2


def test_none_of_many_is_stored_by_a_server_that_drains(queue, server):
    server.signal(signal.SIGUSR1)
    until_it_drains(server)
    with pytest.raises(QueueUnavailable, match="drains") as raised:
        queue.enqueue_many([say(n) for n in range(3)])

    assert not isinstance(raised.value, PartlyPublished)
    assert queue.stats() == {}


@pytest.mark.parametrize(("size", "fits"), [(65_535, True), (65_536, False)])
def test_the_servers_limit_is_told_with_both_sizes(queue, size, fits):
    empty = len(queue.codec.encode(say("")))
    message = say("x" * ((size - empty) // 2))  # the text is in the id as well
    padded = size - len(queue.codec.encode(message))
    message.body["text"] += "y" * padded
    assert len(queue.codec.encode(message)) == size
    if fits:
        queue.enqueue(message)
        assert len(queue.dequeue(5).raw) == size
        return
    with pytest.raises(MessageTooLarge, match=r"65,536 bytes.*65,535"):
        queue.enqueue_many([say(1), message])

    assert queue.stats() == {}


# -- something else on the port ---------------------------------------------------------------


@contextmanager
def program_that(answers):
    """Listen, and send `answers` to whoever says something; b"" hangs up, None keeps silent."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.recv(4_096)
                    if answers is None:
                        connection.recv(4_096)
                    else:
                        connection.sendall(answers)
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "another program"),
        (b"-ERR unknown command 'stats'\r\n", "another program"),
        (b"USING default\r\n", "another program"),
        (b"\x00\xff" * 20_000, "sends no lines"),
        (b"OK 5", "cut off"),
        (b"OK five\r\n", "none of beanstalkd's"),
        (b"OK 5\r\n---\n", "cut off"),
        (b"OK 15\r\n---\nversion: 1.\r\n", "none of beanstalkd's"),
        (b"\r\n", "none of beanstalkd's"),
        (b"UNKNOWN_COMMAND\r\n", "UnknownCommand"),
        (b"", "EOF"),
        (None, "no answer for 0.3 seconds"),
    ],
    ids=["http", "redis", "another reply", "noise", "half a line", "no number", "half a body",
         "half the stats", "empty line", "refusal", "hangs up", "silence"],
)  # fmt: skip
def test_another_program_on_the_port_is_told(answers, told):
    with (
        program_that(answers) as port,
        pytest.raises(QueueUnavailable, match=told) as raised,
    ):
        BeanstalkdQueueAdapter("127.0.0.1", port, socket_timeout=0.3)

    assert f"127.0.0.1:{port}" in str(raised.value)


def test_nobody_on_the_port_is_told():
    with pytest.raises(QueueUnavailable, match="nothing listens there"):
        BeanstalkdQueueAdapter("127.0.0.1", free_port())


def test_a_host_that_is_none_is_told():
    with pytest.raises(QueueUnavailable, match=r"beanstalkd at no-such-host\.invalid:11300"):
        BeanstalkdQueueAdapter("no-such-host.invalid", socket_timeout=5.0)


# -- people and odd input ---------------------------------------------------------------------


def test_a_job_in_a_workers_hands_cannot_be_deleted_and_people_are_told_why(queue, relay):
    job_id = queue.enqueue(say(1))
    held = queue.dequeue(5)
    with adapter_at(relay) as people:
        with pytest.raises(QueueError, match="in a worker's hands"):
            people.delete(job_id)
        removed = people.purge(JobState.RESERVED)

        assert removed == 0
        assert "1 reserved jobs stay" in people.unseen
    queue.commit(held)


def test_a_list_says_how_far_it_saw(server, monkeypatch):
    monkeypatch.setattr("pulpo_pool.queues.beanstalkd_people.MOST_IDS", 2_500)
    with adapter_at(server) as queue:
        queue.enqueue_many([say(n) for n in range(6_000)])
        shown = sum(1 for _ in queue.list_jobs(JobState.READY))

        assert 2_000 <= shown < 6_000
        assert "of 6,000 ready jobs are not shown" in queue.unseen


def test_binary_bodies_travel_on(queue, server):
    with greenstalk.Client((server.host, server.port), encoding=None) as stranger:
        number = stranger.put(bytes(range(256)) * 10)
    held = queue.dequeue(5)

    assert held.raw == bytes(range(256)) * 10
    assert held.job_id == str(number)


def test_other_encodings_are_spoken_in_the_tube(relay, server):
    with (
        adapter_at(relay, encoding="utf-16-le") as queue,
        greenstalk.Client((server.host, server.port), encoding="utf-16-le") as stranger,
    ):
        queue.enqueue(say("größe"))
        there = stranger.peek_ready().body
        held = queue.dequeue(5)

        assert '"größe"' in there
        assert said(held) == "größe"
        queue.commit(held)


def test_a_kick_forgives_attempts(queue):
    queue.enqueue(say(1))
    for _ in range(5):
        held = queue.dequeue(5)
        attempt = held.attempt
        queue.rollback(held)
    held = queue.dequeue(5)
    queue.bury(held, reason=BuryReason.EXHAUSTED)
    queue.kick([held.job_id])

    assert attempt == 5
    assert queue.dequeue(5).attempt == 1


# -- addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("beanstalkd://10.0.0.7:11400", "10.0.0.7|11400"),
        ("beanstalkd://queue.example.org", "queue.example.org|11300"),
        ("beanstalkd://[::1]:11300/", "::1|11300"),
        ("beanstalkd://", "127.0.0.1|11300"),
        ("BEANSTALKD://h:1?lease=5&socket_timeout=2.5&encoding=UTF-8", "h|1"),
    ],
)
def test_addresses_are_read(url, address):
    assert check_url(url).target == address


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("beanstalkd:host:11300", "beanstalkd://HOST:PORT"),
        ("beanstalkd://h:99999", "out of range"),
        ("beanstalkd://h:port", "beanstalkd://HOST:PORT"),
        ("beanstalkd://h:0", "beanstalkd://HOST:PORT"),
        ("beanstalkd://h:1/tube", "tubes as queues"),
        ("beanstalkd://user:secret@h:1", "beanstalkd://HOST:PORT"),
        ("beanstalkd://h?lease=0", "more than 0"),
        ("beanstalkd://h?socket_timeout=soon", "'socket_timeout': expected seconds"),
        ("beanstalkd://h?encoding=klingon", "knows no 'klingon'"),
        ("beanstalkd://h?tube=x", "unknown parameter 'tube'"),
        ("beanstalk://h", "did you mean 'beanstalkd'"),
    ],
)
def test_addresses_that_cannot_be_right_are_told(url, told):
    with pytest.raises(ConfigError, match=told):
        check_url(url)


def test_a_url_opens_a_queue_with_its_parameters(server):
    url = f"{server.url}?lease=7&socket_timeout=3&encoding=latin-1"
    with open_queue(url, queues=["a", "b"], lease=5, clock=SystemClock()) as queue:
        assert isinstance(queue, BeanstalkdQueueAdapter)
        assert (queue.queues, queue.lease) == (("a", "b"), 7)


@pytest.mark.parametrize("name", ["-x", "a b", "ü", "x" * 200 + "y"])
def test_names_that_are_no_tubes_are_told(queue, name):
    with pytest.raises((ConfigError, InvalidMessage)):
        adapter_at(queue_place(queue), queues=[name])


def queue_place(queue):
    class Place:
        host, port = queue._line.address

    return Place
