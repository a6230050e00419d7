"""The beanstalkd queue keeps the contract, against a real server, without its log and with it."""

from __future__ import annotations

import time

import greenstalk
import pytest
from servers import Beanstalkd

from pulpo_pool.contracts import QueueAdapterContract
from pulpo_pool.queues.beanstalkd import BeanstalkdQueueAdapter


class TestBeanstalkdQueue(QueueAdapterContract):
    moment = 1.0  # the server counts delays and leases in whole seconds
    rescues = False
    counts_attempts = False
    removes_reserved = False
    replaces_in_place = False
    refused_names = frozenset({"größe/漢字 x", "'; --", "a|b:c"})

    @pytest.fixture(autouse=True)
    def _server(self, _bench, tmp_path):
        self.real_time()
        self.evidence = tmp_path / "evidence.db"
        self.adapters = []
        with self.new_server() as self.server:
            yield
            self._opened.close()

    def new_server(self):
        return Beanstalkd()

    def open_queue(self, **options):
        queue = BeanstalkdQueueAdapter(
            self.server.host, self.server.port, evidence_file=self.evidence, **options
        )
        self.adapters.append(queue)
        return queue

    def put_raw(self, queue_name, raw):
        with greenstalk.Client((self.server.host, self.server.port), None, queue_name) as client:
            client.put(raw)

    def pass_time(self, seconds):
        time.sleep(seconds)  # the clock is the server's, and nobody can move it
        for queue in self.adapters:
            self.stir(queue)

    def stir(self, queue):
        """beanstalkd 1.12 misses one lease's end in ten until its holder says something.

        It looks once, in the microsecond of the deadline, and wants it to be past (conn_timeout).
        """
        if not queue._closed:
            queue.stats()


class TestBeanstalkdQueueWithItsLog(TestBeanstalkdQueue):
    """Started with -b: every job is written down."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = tmp_path / "log"

    def new_server(self):
        return Beanstalkd(folder=self.folder)
