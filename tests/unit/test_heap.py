"""Holes in malloc's heap are filled once, so that a fork's own allocations lie close together."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

HOLES = 1_000
PROGRAM = f"""
from pulpo_pool.heap import fill_holes
fill_holes()
blocks = [bytearray(2_000) for _ in range({2 * HOLES})]
del blocks[::2]
print(fill_holes(), fill_holes(), len(blocks))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc 2.33 has it")
def test_all_holes_are_filled_at_once():
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    first, second, _ = map(int, ran.stdout.split())

    assert first > HOLES * 1_500
    assert second < HOLES * 100
