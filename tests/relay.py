"""A TCP relay between a client and a server that counts what passes, and may delay or cut it."""

from __future__ import annotations

import contextlib
import select
import socket
import threading


class Relay:
    """Listens on a port of its own; `requests` and `replies` are the chunks that passed, in order.

    `cut_at(n, reply=...)` cuts the connection before the nth chunk of that direction is passed on.
    """

    def __init__(self, host, port):
        self.target = (host, port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self.listener.getsockname()
        self.requests, self.replies = [], []
        self.silent = False  # takes everything, passes nothing on
        self.refuses = False
        self.reply_ends = b""  # replies are passed on together, once they end so
        self._held_back = b""
        self._cut = None
        self._stop, self._stopper = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def cut_after(self, text, *, reply=False, passed=True):
        """Cut when a chunk with this text comes by, having passed it on or not."""
        self._cut = (text, reply, passed)

    @property
    def cut_is_due(self):
        return self._cut is not None

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopper.close()
        self._thread.join(10)
        self.listener.close()
        self._stop.close()

    def _run(self):
        pairs = {}
        with contextlib.ExitStack() as opened:
            while True:
                readable, _, _ = select.select([self._stop, self.listener, *pairs], [], [])
                if self._stop in readable:
                    break
                if self.listener in readable:
                    client = opened.enter_context(self.listener.accept()[0])
                    if self.refuses:
                        client.close()
                        continue
                    server = opened.enter_context(socket.create_connection(self.target))
                    pairs[client], pairs[server] = (server, False), (client, True)
                for end in readable:
                    if end in pairs:
                        self._pass_on(pairs, end)

    def _pass_on(self, pairs, end):
        other, is_reply = pairs[end]
        try:
            chunk = end.recv(1_048_576)
        except OSError:
            chunk = b""
        cut = False
        passes = bool(chunk)
        if chunk and self._cut is not None:
            text, reply, passed = self._cut
            if reply == is_reply and text in chunk:
                cut, passes, self._cut = True, passed, None
        if chunk:
            (self.replies if is_reply else self.requests).append(chunk)
        if passes and is_reply and self.reply_ends:
            chunk, self._held_back = self._held_back + chunk, b""
            if not chunk.endswith(self.reply_ends):
                self._held_back, passes = chunk, False
        if passes and not self.silent:
            with contextlib.suppress(OSError):
                other.sendall(chunk)
        if cut or not chunk:
            for socket_ in (end, other):
                pairs.pop(socket_, None)
                with contextlib.suppress(OSError):
                    socket_.shutdown(socket.SHUT_RDWR)
                socket_.close()
