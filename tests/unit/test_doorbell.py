"""The doorbell: one ring wakes one, none is lost, and bytes are never counted."""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from pulpo_pool.errors import QueueUnavailable
from pulpo_pool.queues.doorbell import Doorbell, ExclusiveWaiter, Heard, SharedWaiter

LONG = 20.0  # seconds; every wait here is ended by a ring
KINDS = [SharedWaiter, *([ExclusiveWaiter] if hasattr(select, "EPOLLEXCLUSIVE") else [])]


@pytest.fixture(params=KINDS)
def bell(request, tmp_path):
    """Return a maker of doorbells of one kind, in one directory."""
    with ExitStack() as stack:

        def make(*queues):
            made = Doorbell(str(tmp_path / "bells"), waiter=request.param)
            stack.callback(made.close)
            if queues:
                made.listen(queues)
            return made

        yield make


@pytest.fixture
def interrupt():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_a_ring_is_heard(bell):
    listener = bell("a")
    bell().ring("a")

    assert listener.wait(LONG, ()) is Heard.BELL


def test_who_rang_in_vain_is_heard_once_somebody_listens(bell):
    """Each ring looks anew whether there is a bell, and whether somebody has left."""
    ringer = bell()
    for _ in range(2):
        ringer.ring("a")
        listener = bell("a")
        ringer.ring("a")

        assert listener.wait(LONG, ()) is Heard.BELL
        listener.close()


def test_a_ring_ends_a_wait_that_has_begun(bell):
    listener, heard = bell("a"), []
    waiting = threading.Thread(target=lambda: heard.append(listener.wait(LONG, ())))
    waiting.start()
    bell().ring("a")
    waiting.join(LONG)

    assert heard == [Heard.BELL]


def test_silence_ends_with_the_time(bell):
    assert bell("a").wait(0, ()) is Heard.SILENCE


def test_rings_for_other_queues_are_not_heard(bell):
    listener = bell("a", "b")
    bell("c").ring("c")

    assert listener.wait(0, ()) is Heard.SILENCE


def test_each_of_several_queues_is_heard(bell):
    listener = bell("a", "b")
    for queue in ("a", "b"):
        bell().ring(queue)

        assert listener.wait(LONG, ()) is Heard.BELL


def test_many_rings_are_heard_as_one(bell):
    listener, ringer = bell("a", "b"), bell()
    for _ in range(100):
        ringer.ring("a")
        ringer.ring("b")

    assert listener.wait(LONG, ()) is Heard.BELL
    assert listener.wait(0, ()) is Heard.SILENCE


def test_a_full_bell_still_rings(bell):
    listener = bell("a")
    for _ in range(70_000):
        listener.ring("a")

    assert listener.wait(LONG, ()) is Heard.BELL
    assert listener.wait(0, ()) is Heard.SILENCE


def test_ringing_where_nobody_listens_is_fine_and_leaves_nothing(bell, tmp_path):
    bell().ring("a")
    bell("a").close()
    bell().ring("a")

    assert bell("a").wait(0, ()) is Heard.SILENCE


def test_who_listens_can_ring_for_others(bell):
    first, second = bell("a"), bell("a")
    first.ring("a")

    assert second.wait(LONG, ()) is Heard.BELL


def test_an_interrupt_is_heard(bell, interrupt):
    readable, writable = interrupt
    listener = bell("a")
    os.write(writable, b"!")

    assert listener.wait(LONG, (readable,)) is Heard.INTERRUPT


def test_an_interrupt_is_asked_about_at_each_wait(bell, interrupt):
    readable, writable = interrupt
    listener = bell("a")
    os.write(writable, b"!")
    listener.wait(LONG, (readable,))

    assert listener.wait(0, ()) is Heard.SILENCE
    assert listener.wait(0, (readable,)) is Heard.INTERRUPT


def test_a_ring_that_meets_an_interrupt_is_passed_on(bell, interrupt):
    """Who is told to stop does not take the wake-up with it."""
    readable, writable = interrupt
    leaving, staying = bell("a"), bell("a")
    os.write(writable, b"!")
    bell().ring("a")

    assert leaving.wait(LONG, (readable,)) is Heard.INTERRUPT
    assert staying.wait(LONG, ()) is Heard.BELL


def test_listening_is_new_once(bell):
    listener = bell()

    assert listener.listen(["a"]) is True
    assert listener.listen(["a"]) is False

    listener.close()

    assert listener.listen(["a"]) is True


def test_a_listener_notices_that_its_bells_were_removed(bell, tmp_path):
    listener = bell("a")

    assert not listener.moved()

    for fifo in (tmp_path / "bells").iterdir():
        fifo.unlink()

    assert listener.moved()


def test_any_name_of_a_queue_has_a_bell(bell):
    for queue in ("a/b", "..", "x" * 200, "größe", "\udc80"):
        listener = bell(queue)
        bell().ring(queue)

        assert listener.wait(LONG, ()) is Heard.BELL


def test_a_file_in_the_way_is_named(bell, tmp_path):
    listener = bell("a")
    listener.close()
    (fifo,) = (tmp_path / "bells").iterdir()
    fifo.unlink()
    fifo.write_text("not a FIFO")

    with pytest.raises(QueueUnavailable, match="in the way of a FIFO"):
        listener.listen(["a"])


def test_a_file_in_place_of_the_directory_is_an_error_of_ours(bell, tmp_path):
    (tmp_path / "bells").write_text("")

    with pytest.raises(QueueUnavailable, match="bells"):
        bell("a")


def test_bells_are_private(bell, tmp_path):
    bell("a")

    assert (tmp_path / "bells").stat().st_mode & 0o777 == 0o700
    assert {fifo.stat().st_mode & 0o777 for fifo in (tmp_path / "bells").iterdir()} == {0o600}


@pytest.mark.skipif(ExclusiveWaiter not in KINDS, reason="needs EPOLLEXCLUSIVE")
def test_one_ring_wakes_one_of_several_waiters(tmp_path):
    """The others sleep on, although nobody has taken the byte yet."""
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    fifos = [os.open(path, os.O_RDWR | os.O_NONBLOCK) for _ in range(3)]
    waiters, heard, threads = [ExclusiveWaiter() for _ in fifos], [], []
    for waiter, fifo in zip(waiters, fifos, strict=True):
        waiter.add_bell(fifo)
        wait = threading.Thread(target=lambda waiter=waiter: heard.append(waiter.wait(1.0, ())))
        wait.start()
        threads.append(wait)
        wait_until_asleep(wait, waiter._epoll.fileno())
    os.write(fifos[0], b"!")
    for thread in threads:
        thread.join(LONG)
    for waiter, fifo in zip(waiters, fifos, strict=True):
        waiter.close()
        os.close(fifo)

    assert sorted(map(len, heard)) == [0, 0, 1]


def wait_until_asleep(thread, epoll):
    """Return when the kernel shows the thread in a system call on this descriptor."""
    deadline = time.monotonic() + LONG
    call = Path(f"/proc/self/task/{thread.native_id}/syscall")
    while call.read_text().split()[1:2] != [hex(epoll)]:
        assert time.monotonic() < deadline
