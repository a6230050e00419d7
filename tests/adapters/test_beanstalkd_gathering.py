"""Who waits for two answers at once still gets the first alone, and loses none of his patience."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import pytest
from pool import eventually

from pulpo_pool.queues import beanstalkd_wire
from pulpo_pool.queues.beanstalkd_wire import Wire, connect

DELETED = b"DELETED\r\n"
GRANT = b"RESERVED 2 2\r\n{}\r\n"
COMMANDS = b"delete 1\r\nreserve\r\n"


class Peer:
    """The far end of a connection, which says what a test wants, when it wants."""

    def __init__(self, patience: float) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.wire: Wire = connect(*listener.getsockname(), patience)
            self.says, _ = listener.accept()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.wire.close()
        self.says.close()


@pytest.fixture
def peer():
    with Peer(patience=20) as peer:
        peer.wire.gather(len(DELETED) + 1)
        yield peer


def test_both_answers_are_returned(peer):
    peer.says.sendall(DELETED + GRANT)

    assert peer.wire.ask(COMMANDS) == DELETED + GRANT


def test_the_first_answer_is_returned_if_the_second_does_not_come(peer):
    """As when the queue is empty: the worker goes on with what is settled."""
    peer.says.sendall(DELETED)

    assert peer.wire.ask(COMMANDS) == DELETED


def test_an_answer_that_takes_longer_than_a_moment_is_waited_for(monkeypatch):
    monkeypatch.setattr(beanstalkd_wire, "_A_MOMENT", 1e-6)
    with Peer(patience=20) as peer, ThreadPoolExecutor(1) as thread:
        peer.wire.gather(len(DELETED) + 1)
        answer = thread.submit(peer.wire.ask, COMMANDS)
        peer.says.recv(len(COMMANDS), socket.MSG_WAITALL)
        eventually(lambda: not peer.wire.gathers)
        peer.says.sendall(DELETED)

        assert answer.result(20) == DELETED


def test_the_end_of_the_stream_is_noticed_at_once(peer):
    peer.says.close()

    assert peer.wire.ask(COMMANDS) == b""


def test_less_than_what_was_gathered_ends_every_other_wait(peer):
    peer.says.sendall(b"!")
    peer.wire.wait(time.monotonic() + 20, float("inf"), ())
    came = peer.wire.receive()
    peer.wire.gather(len(DELETED) + 1)
    peer.says.sendall(b"?")
    eventually(peer.wire.has_news)
    peer.wire.gather(len(DELETED) + 1)

    assert came == b"!"
    assert peer.wire.receive() == b"?"


def test_a_silent_server_is_waited_for_as_long_as_ever():
    with Peer(patience=0.3) as peer:
        peer.wire.gather(len(DELETED) + 1)
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=r"no answer for 0\.3 seconds"):
            peer.wire.ask(COMMANDS)
        waited = time.monotonic() - began

    assert waited >= 0.3
