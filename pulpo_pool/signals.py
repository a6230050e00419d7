"""Signals as the kernel has them, by number.

`signal`'s own functions make enum members of what they return, 65 for a mask. That Python code
unshared 0.2 MB of memory in every worker, and cost it 15 us before each wait.
"""

from __future__ import annotations

import inspect
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# The C functions behind them, which take the same arguments.
set_handler: Final[Callable[[int, object], object]] = inspect.unwrap(signal.signal)
handler_of: Final[Callable[[int], object]] = inspect.unwrap(signal.getsignal)
set_mask: Final[Callable[[int, Iterable[int]], object]] = inspect.unwrap(signal.pthread_sigmask)
