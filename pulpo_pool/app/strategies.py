"""Which of tenacity's strategies can work across processes, and how they read as text."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Final

from pulpo_pool.errors import InvalidHandler

# Where tenacity keeps the parts of what was combined with | & + or chained, and the predicates.
_PARTS: Final = ("strategies", "wait_funcs", "stops", "retries")
_PREDICATE: Final = "predicate"

_EXAMPLES: Final = {
    "wait": "tenacity.wait_fixed(5)",
    "stop": "tenacity.stop_after_attempt(3)",
    "retry": "tenacity.retry_if_exception_type(OSError)",
}


def check_strategy(piece: str, strategy: object) -> None:
    """Raise InvalidHandler, saying why, for what cannot decide about a job's retries.

    `piece` is `wait`, `stop` or `retry`.
    """
    reason = _objection(piece, strategy)
    if reason:
        raise InvalidHandler(f"{piece}={_named(strategy)}: {reason}")


def describe_strategy(strategy: object) -> str:
    """Return a strategy as it could have been written."""
    if isinstance(strategy, type):
        return strategy.__name__
    if isinstance(strategy, list | tuple):
        return ", ".join(describe_strategy(part) for part in strategy)
    if isinstance(strategy, functools.partial):  # a routine since Python 3.14, without a name
        return repr(strategy)
    if inspect.isroutine(strategy):
        return strategy.__qualname__
    if not _is_tenacity(strategy):
        return repr(strategy)
    facts = [
        f"{name}={describe_strategy(value)}"
        for name, value in vars(strategy).items()
        if not (name == _PREDICATE and getattr(value, "__self__", None) is strategy)
    ]
    name = type(strategy).__name__.removeprefix("_")
    return f"{name}({', '.join(facts)})" if facts else name


def _named(strategy: object) -> str:
    return describe_strategy(strategy) if callable(strategy) else repr(strategy)


def _is_tenacity(strategy: object) -> bool:
    return type(strategy).__module__.split(".")[0] == "tenacity"


def _objection(piece: str, strategy: object) -> str | None:
    example = _EXAMPLES[piece]
    if not callable(strategy):
        return f"is no strategy; give one such as {example}"
    if isinstance(strategy, type):
        return f"is a class; give what it makes, such as {example}"
    if _is_async(strategy):
        return "is asynchronous; a worker decides without an event loop, use a plain function"
    if not _takes_one_argument(strategy):
        return f"must take one argument, the RetryCallState; or give one such as {example}"
    return _objection_to_kind(piece, strategy) or _objection_to_parts(piece, strategy)


def _objection_to_kind(piece: str, strategy: object) -> str | None:
    # tenacity is imported here, where a strategy was given: whoever made it has paid for that.
    from tenacity import retry_if_not_result, retry_if_result, stop_when_event_set
    from tenacity.retry import retry_base
    from tenacity.stop import stop_base
    from tenacity.wait import wait_base

    if isinstance(strategy, stop_when_event_set):
        return "an Event is not seen by the other processes; raise Fatal to end a job's retries"
    if isinstance(strategy, retry_if_result | retry_if_not_result):
        return "only failures are asked about; return RequestResult.transient() to be tried again"
    for kind, base in (("wait", wait_base), ("stop", stop_base), ("retry", retry_base)):
        if kind != piece and isinstance(strategy, base):
            return f"is a `{kind}` strategy; give one such as {_EXAMPLES[piece]}"
    return None


def _objection_to_parts(piece: str, strategy: object) -> str | None:
    for name in _PARTS:
        for part in getattr(strategy, name, ()) if _is_tenacity(strategy) else ():
            reason = _objection(piece, part)
            if reason:
                return f"{_named(part)} {reason}"
    predicate = getattr(strategy, _PREDICATE, None)
    if predicate is not None and _is_async(predicate):
        return "its predicate is asynchronous; use a plain function"
    return None


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    call = getattr(type(function), "__call__", None)  # noqa: B004 - the method itself is looked at
    return any(
        inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)
        for each in (function, call)
    )


def _takes_one_argument(function: Any) -> bool:
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:  # a builtin that does not tell
        return True
    return True
