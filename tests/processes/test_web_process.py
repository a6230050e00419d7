"""The web process: real sockets, clients that mean no good, and when it leaves."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import time
from contextlib import ExitStack, closing, suppress

import pytest
from seats import PATIENCE, WEB_SLOT, Nest, show_worker, until

from pulpo_pool.metrics.slot_files import prepare_metrics_directory
from pulpo_pool.settings import Settings
from pulpo_pool.states import Activity, Order, Role
from pulpo_pool.web import process
from pulpo_pool.web.process import run_web

MANY = process._LIMITS["connection_limit"] + 20


class Web:
    """A running web process and its address."""

    def __init__(self, nest, directory):
        self.nest = nest
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.address = self.listener.getsockname()
        prepare_metrics_directory(directory)
        self.pid = nest.spawn(
            Role.WEB,
            WEB_SLOT,
            lambda seat: run_web(
                seat,
                listener=self.listener,
                settings=Settings(log_level="error"),
                metrics_directory=directory,
            ),
        )
        nest.wait_until_ready(WEB_SLOT)

    def beat(self):
        self.nest.scoreboard.header.heartbeat = time.monotonic()

    def get(self, path, **headers):
        self.beat()
        with closing(http.client.HTTPConnection(*self.address, timeout=PATIENCE)) as connection:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()

    def send(self, raw):
        """Return all that comes back for these bytes."""
        answer = b""
        with closing(self.connect()) as client, suppress(ConnectionResetError):
            client.sendall(raw)
            while received := client.recv(65_536):
                answer += received
        return answer

    def connect(self):
        return socket.create_connection(self.address, timeout=PATIENCE)


@pytest.fixture
def nest():
    with closing(Nest()) as nest:
        yield nest


@pytest.fixture
def web(nest, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "LONGEST_CONNECTION", 0.5)
    web = Web(nest, tmp_path / "metrics")
    yield web
    web.listener.close()


def test_it_reports_ready_and_serves(web):
    show_worker(web.nest.scoreboard, 0, activity=Activity.IDLE)

    assert os.read(web.nest.doorbell_end, 1) == b"!"
    assert web.nest.scoreboard.read_work(WEB_SLOT).activity == Activity.IDLE
    assert web.get("/healthz") == (200, b"ok\n")
    assert web.get("/readyz")[0] == 200
    assert b'pulpo_workers{state="idle"} 1.0' in web.get("/metrics")[1]
    assert web.get("/nothing")[0] == 404


def test_it_says_nothing_of_what_it_is_made_of(web):
    answer = web.send(b"GET /healthz HTTP/1.0\r\n\r\n")

    assert b"200 OK" in answer
    assert b"waitress" not in answer.lower()


def test_head_has_the_headers_only(web):
    head, _, body = web.send(b"HEAD /metrics HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")

    assert b"200 OK" in head
    assert b"Content-Length: 0" not in head
    assert body == b""


def test_many_clients_are_all_answered(web):
    web.beat()
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(web.connect())) for _ in range(60)]
        for client in clients:
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        answers = [client.recv(64) for client in clients]

    assert all(answer.startswith(b"HTTP/1.0 200") for answer in answers)


def test_clients_that_never_finish_asking_cannot_keep_the_server_for_themselves(web):
    with ExitStack() as stack:
        for _ in range(MANY):
            stack.enter_context(closing(web.connect())).sendall(b"GET /healthz HTTP/1.1\r\n")

        assert web.get("/healthz")[0] == 200


def test_a_client_that_sends_drop_by_drop_is_cut_off(web):
    with closing(web.connect()) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\n")

        def cut_off():
            try:
                slow.sendall(b"x")
            except OSError:
                return True
            return False

        until(cut_off)

    assert web.get("/healthz")[0] == 200


def test_a_client_that_never_reads_is_cut_off(web):
    with closing(socket.socket()) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        deaf.connect(web.address)
        deaf.setblocking(False)
        deaf.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2_000)
        own_port = deaf.getsockname()[1]

        assert web.get("/healthz")[0] == 200
        until(lambda: not is_served(own_port, web))


def is_served(client_port, web):
    """Tell whether the web process still holds its end of a connection."""
    import psutil

    return any(
        connection.raddr and connection.raddr.port == client_port
        for connection in psutil.Process(web.pid).net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"xss-7a1c\r\n\r\n",
        b"xss-7a1c / HTTP/1.1\r\n\r\n",
        b"GET /xss-7a1c HTTP/9.9\r\n\r\n",
        b"GET http://[xss-7a1c/ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nxss-7a1c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: xss-7a1c\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: xss-7a1c\r\n\r\n",
        b"POST /xss-7a1c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxss-7a1c\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\nConnection: close\r\n\r\nxss-7a1c",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"xss-7a1c\r\n\r\n",
    ],
)
def test_nothing_of_a_hostile_request_comes_back(web, raw):
    answer = web.send(raw)

    assert b"xss-7a1c" not in answer
    assert not answer or answer.startswith(b"HTTP/1.")
    assert web.get("/healthz")[0] == 200


def test_a_bad_request_is_told_so(web):
    answer = web.send(b"xss / HTTP/1.1\r\n\r\n")

    assert answer.startswith(b"HTTP/1.0 400 ")
    assert b"no request that can be answered" in answer


def test_a_name_from_outside_is_refused_on_a_loopback_address(web):
    assert web.get("/metrics", Host="rebound.example.org")[0] == 421


def test_it_outlives_the_signals_that_platforms_send_to_all(web):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        os.kill(web.pid, number)

    assert web.get("/healthz")[0] == 200
    assert os.waitpid(web.pid, os.WNOHANG) == (0, 0)


def test_it_leaves_when_told(web):
    web.nest.tell_to_leave(WEB_SLOT, web.pid)

    assert web.nest.end_of(web.pid) == 0
    assert web.nest.scoreboard.read_work(WEB_SLOT).activity == Activity.LEAVING


def test_it_leaves_when_told_while_clients_hang_on(web):
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(closing(web.connect())).sendall(b"GET / HTTP/1.1\r\n")
        web.nest.tell_to_leave(WEB_SLOT, web.pid)

        assert web.nest.end_of(web.pid) == 0


def test_it_sees_an_order_whose_signal_was_lost(web):
    web.nest.scoreboard.life(WEB_SLOT).order = Order.LEAVE

    assert web.nest.end_of(web.pid) == 0


def test_it_leaves_when_its_master_is_gone(web):
    web.nest.die()

    assert web.nest.end_of(web.pid) == 0
