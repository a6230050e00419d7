"""A TCP relay between a client and a server that counts what passes, and may delay or cut it."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time


class Relay:
    """Listens on a port of its own; `requests` and `replies` are the chunks that passed, in order.

    `cut_after` cuts the line, or does what it is given, when a certain chunk comes by.
    """

    def __init__(self, host, port):
        self.target = (host, port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self.listener.getsockname()
        self.requests, self.replies = [], []
        self.silent = False  # a dead route: what is sent waits, the ends of lines as well
        self.refuses = False
        self.rewrites = {}  # of replies, each once: what they say, what is passed on instead
        self.reply_ends = b""  # replies are passed on together, once they end so
        self._held_back = b""
        self._cut = self._stall = None
        self._stop, self._stopper = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def cut_after(self, text, *, reply=False, passed=True, instead=None):
        """Cut when a chunk with this text comes by, having passed it on or not.

        Or do something `instead`, in the relay's thread, after which the chunk goes nowhere or
        has gone on.
        """
        self._cut = (text, reply, passed, instead or _cut)

    def stall_before(self, text, seconds, *, reply=False):
        """Pass nothing on for a time, when a chunk with this text comes by."""
        self._stall = (text, reply, seconds)

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
                silent = self.silent
                watched = [self._stop, *(() if silent else (self.listener, *pairs))]
                readable, _, _ = select.select(watched, [], [], 0.02 if silent else None)
                if self._stop in readable:
                    break
                if self.silent:
                    continue
                if self.listener in readable:
                    self._accept(pairs, opened)
                for end in readable:
                    if end in pairs:
                        self._pass_on(pairs, end)

    def _accept(self, pairs, opened):
        client = opened.enter_context(self.listener.accept()[0])
        try:
            if self.refuses:
                raise ConnectionRefusedError
            server = opened.enter_context(socket.create_connection(self.target))
        except OSError:
            client.close()
            return
        pairs[client], pairs[server] = (server, False), (client, True)

    def _pass_on(self, pairs, end):
        other, is_reply = pairs[end]
        try:
            chunk = end.recv(1_048_576)
        except OSError:
            chunk = b""
        self._stall_if_due(chunk, is_reply)
        passes, act = self._ruled(chunk, is_reply)
        for text in [text for text in self.rewrites if is_reply and text in chunk]:
            chunk = chunk.replace(text, self.rewrites.pop(text), 1)
        if chunk:
            (self.replies if is_reply else self.requests).append(chunk)
        if passes and is_reply and self.reply_ends:
            chunk, self._held_back = self._held_back + chunk, b""
            if not chunk.endswith(self.reply_ends):
                self._held_back, passes = chunk, False
        if passes:
            with contextlib.suppress(OSError):
                other.sendall(chunk)
        if act is not None:
            act()
        if act is _cut or not chunk:
            for socket_ in (end, other):
                pairs.pop(socket_, None)
                with contextlib.suppress(OSError):
                    socket_.shutdown(socket.SHUT_RDWR)
                socket_.close()

    def _stall_if_due(self, chunk, is_reply):
        if self._stall is not None and self._stall[1] == is_reply and self._stall[0] in chunk:
            seconds, self._stall = self._stall[2], None
            time.sleep(seconds)

    def _ruled(self, chunk, is_reply):
        """Return whether a chunk passes, and what to do then."""
        if not chunk or self._cut is None:
            return bool(chunk), None
        text, reply, passed, act = self._cut
        if reply != is_reply or text not in chunk:
            return True, None
        self._cut = None
        return passed, act


def _cut():
    """Stand for closing the line: a rule's act if there is no other."""
