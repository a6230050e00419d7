"""A handler's parameters, read once: what a body must hold, and where the JobContext goes."""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from dataclasses import dataclass
from typing import Any, Final

from pulpo_pool.app.context import JobContext
from pulpo_pool.errors import BodyMismatch, InvalidHandler

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

# `from __future__ import annotations` with the import under TYPE_CHECKING leaves only text.
_CONTEXT_TEXT: Final = re.compile(
    r"(Optional\[)?([\w.]+\.)?JobContext(\])?(\s*\|\s*None)?|None\s*\|\s*([\w.]+\.)?JobContext"
)


@dataclass(frozen=True, slots=True)
class BodySignature:
    """Which keys a function takes from a body, and which parameters get the JobContext."""

    published: inspect.Signature  # what a publisher may give: no context, no *args
    required: frozenset[str]
    accepted: frozenset[str]
    contexts: tuple[str, ...]
    takes_any: bool  # it has **kwargs

    def fits(self, body: Mapping[str, Any]) -> bool:
        """Tell whether `function(**body)` would find its parameters."""
        keys = body.keys()
        if self.takes_any:
            return keys >= self.required and keys.isdisjoint(self.contexts)
        return self.required <= keys and self.accepted >= keys

    def mismatch(self, what: str, body: Mapping[str, Any]) -> BodyMismatch:
        """Return the error for a body that does not fit, naming the keys."""
        unexpected = [key for key in body if key not in self.accepted]
        if self.takes_any:
            unexpected = [key for key in body if key in self.contexts]
        missing = [name for name in self.published.parameters if name in self.required - {*body}]
        faults = [
            f"{fault} {', '.join(names)}"
            for fault, names in (("missing", missing), ("unexpected", unexpected))
            if names
        ]
        return BodyMismatch(f"the body does not fit {what}{self.published}: {'; '.join(faults)}")


def read_signature(function: Callable[..., object]) -> BodySignature:
    """Return what `function` takes from a body; InvalidHandler if no body could call it."""
    signature = signature_of(function)
    contexts = context_names(function, signature)
    published: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise InvalidHandler(
                f"{describe(function)}: a body is given by name, and the parameter "
                f"{parameter.name} is positional-only; remove the `/`"
            )
        if parameter.name not in contexts and (
            parameter.kind in _NAMED or parameter.kind is parameter.VAR_KEYWORD
        ):
            published.append(parameter)
    named = [each for each in published if each.kind in _NAMED]
    return BodySignature(
        published=signature.replace(parameters=published, return_annotation=signature.empty),
        required=frozenset(each.name for each in named if each.default is each.empty),
        accepted=frozenset(each.name for each in named),
        contexts=contexts,
        takes_any=len(named) < len(published),
    )


def signature_of(function: Callable[..., object]) -> inspect.Signature:
    """Return a callable's signature; InvalidHandler if it is no plain callable."""
    if not callable(function):
        raise InvalidHandler(f"{function!r} cannot be called; register a function")
    if isinstance(function, type):
        raise InvalidHandler(
            f"{describe(function)} is a class, but no PayloadHandler; register a function, or "
            "derive it from pulpo_pool.PayloadHandler"
        )
    body = _innermost(function)
    if inspect.iscoroutinefunction(body) or inspect.isasyncgenfunction(body):
        raise InvalidHandler(
            f"{describe(function)} is `async def`; workers run plain functions: "
            "call asyncio.run() inside one"
        )
    if inspect.isgeneratorfunction(body):
        raise InvalidHandler(
            f"{describe(function)} is a generator: calling it would do nothing; "
            "remove the `yield`, or loop over it in a plain function"
        )
    try:
        # Annotations as objects read better in messages than the text of `from __future__`.
        return inspect.signature(function, eval_str=True)
    except Exception:  # noqa: BLE001, S110 - evaluating an app's annotation may raise anything
        pass
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        raise InvalidHandler(
            f"{describe(function)} does not tell its parameters; wrap it in a function"
        ) from None


def context_names(function: Callable[..., object], signature: inspect.Signature) -> tuple[str, ...]:
    """Return the parameters that are annotated JobContext, optional or not, as text or not."""
    scope = getattr(_innermost(function), "__globals__", {})
    return tuple(
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.kind in _NAMED and _is_context(parameter.annotation, scope)
    )


def describe(function: object) -> str:
    """Return where a handler is to be found: module:qualname."""
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def _innermost(function: Any) -> Any:
    """Return the function whose code and globals count, under partials, methods and wrappers."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif inspect.isroutine(function) or isinstance(function, type):
            return function
        else:
            return type(function).__call__


def _is_context(annotation: object, scope: dict[str, Any]) -> bool:
    if isinstance(annotation, str):
        try:
            annotated = types.SimpleNamespace(__annotations__={"it": annotation})
            annotation = typing.get_type_hints(annotated, scope)["it"]
        except Exception:  # noqa: BLE001 - evaluating an app's annotation may raise anything
            return _CONTEXT_TEXT.fullmatch(str(annotation).strip("'\" ")) is not None
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return any(each is JobContext for each in typing.get_args(annotation))
    return annotation is JobContext
