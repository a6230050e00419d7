"""Before a fork, free places of the heap are filled, so that what it allocates lies together."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

HOLES = 1_000
IN_MALLOC = f"""
from pulpo_pool.heap import fill_holes
fill_holes()
blocks = [bytearray(2_000) for _ in range({2 * HOLES})]
del blocks[::2]
print(fill_holes(), fill_holes(), len(blocks))
"""
IN_POOLS = f"""
from pulpo_pool.heap import fill_pools
blocks = [bytes(200) for _ in range({2 * HOLES})]
places = [(id(block) % 16_384 - 48) // 240 for block in blocks]  # in their pools
chosen = [each for each, place in enumerate(places) if place % 2 == 0]
holes = set(id(blocks[each]) for each in chosen)
for each in chosen[::{{order}}]:
    blocks[each] = None
before = [bytes(200) for _ in range(20)]
taken = fill_pools()
after = [bytes(200) for _ in range(20)]
print(taken, len(holes.intersection(map(id, before))), len(holes.intersection(map(id, after))))
"""
LOOKED_UP = """
import sys
from pulpo_pool.heap import ready_to_fork
name = sys.intern("nobody has this name")
before = sys.getrefcount(name)
getattr(object, name, None)
cached = sys.getrefcount(name)
ready_to_fork()
print(before, cached, sys.getrefcount(name))
"""


def printed(program):
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return tuple(map(int, ran.stdout.split()))


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc 2.33 has it")
def test_all_holes_are_filled_at_once():
    first, second, _ = printed(IN_MALLOC)

    assert first > HOLES * 1_500
    assert second < HOLES * 100


@pytest.mark.parametrize("order", [1, -1])
def test_small_objects_lie_in_new_pools(order):
    """Whichever hole was made last, and is filled first; the first places of pools are holes."""
    taken, before, after = printed(IN_POOLS.format(order=order))

    assert taken > HOLES * 100
    assert before > 0
    assert after == 0


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="names are counted in no cache")
def test_the_cache_of_attributes_keeps_no_name():
    """Who took its place there would write to its count, in a page that is shared."""
    before, cached, after = printed(LOOKED_UP)

    assert cached > before
    assert after == before
