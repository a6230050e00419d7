"""Who is a fork: told by the kernel, however the fork was made."""

from __future__ import annotations

import ctypes
import os
import sys

import pytest

from pulpo_pool.forks import ours


def told_in_a_child(fork):
    """Return whether a forked child takes itself for its parent."""
    is_ours = ours()
    pid = fork()
    if pid == 0:
        os._exit(7 if is_ours() else 0)
    _, status = os.waitpid(pid, 0)
    assert is_ours(), "the parent stays itself"
    return os.waitstatus_to_exitcode(status) == 7


@pytest.mark.parametrize("platform", [sys.platform, "another"])
@pytest.mark.parametrize("fork", [os.fork, ctypes.CDLL(None).fork], ids=["os.fork", "C"])
def test_a_fork_is_another_process(monkeypatch, fork, platform):
    monkeypatch.setattr(sys, "platform", platform)

    assert not told_in_a_child(fork)


def test_a_fork_may_begin_anew():
    pid = os.fork()
    if pid == 0:
        os._exit(0 if ours()() else 7)

    assert os.waitpid(pid, 0)[1] == 0
