"""Signals as the kernel has them, by number.

`signal`'s own functions make enum members of what they return, 65 for a mask. That Python code
unshared 0.2 MB of memory in every worker, and cost it 7 us before each wait.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_C: Final[Any] = sys.modules.get("_signal", signal)  # the C functions behind `signal`'s

set_handler: Final[Callable[[int, object], object]] = _C.signal
handler_of: Final[Callable[[int], object]] = _C.getsignal
set_mask: Final[Callable[[int, Iterable[int]], object]] = _C.pthread_sigmask
