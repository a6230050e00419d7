"""What can be said about one setting: its names, its help, what it expects, how it is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    TypeAlias,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import Meta, inspect

from pulpo_pool.memory import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ENVIRONMENT_PREFIX: Final = "PULPO_POOL_"

Kind: TypeAlias = Literal["text", "number", "whole", "size", "switch", "choice", "names", "tables"]

_KINDS: Final[Mapping[type[inspect.Type], Kind]] = {
    inspect.StrType: "text",
    inspect.FloatType: "number",
    inspect.IntType: "whole",
    inspect.BoolType: "switch",
    inspect.LiteralType: "choice",
    inspect.VarTupleType: "names",
    inspect.DictType: "tables",
}

_METAVARS: Final[Mapping[Kind, str]] = {
    "number": "SECONDS",
    "whole": "N",
    "size": "SIZE",
    "names": "NAME",
}

_EXPECTED: Final[Mapping[Kind, str]] = {
    "text": "text",
    "size": "a size such as 200M or 1GiB, or 0 for no limit",
    "switch": "true or false",
    "names": "a name or a list of names",
    "tables": "a table with a table of options for each handler",
}

AUTO: Final = "auto"

_SWITCHES: Final = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


class Mismatch(ValueError):
    """The value is not what the setting expects; the text says both."""


def about(
    description: str,
    *,
    flag: str | None = None,
    short: str | None = None,
    metavar: str = "",
    kind: Kind | None = None,
    auto: Callable[[], int] | None = None,
) -> Meta:
    """Return what help and reference say of a setting, for its annotation in the record.

    `flag` is given where the option is not named for the field, `metavar` where "a number",
    "seconds" or the choices do not say enough of the value, `kind` where its type does not, and
    `auto` where the word "auto" stands for what it finds.
    """
    extra = {"flag": flag, "short": short, "metavar": metavar, "kind": kind, "auto": auto}
    return Meta(description=description, extra=extra)


@dataclass(frozen=True, slots=True)
class SettingField:
    """One setting, as its annotation in the record declares it."""

    name: str
    kind: Kind
    annotation: Any
    description: str
    default: Any  # None where it is found out when needed
    flag: str
    short: str | None
    metavar: str
    bounds: Mapping[str, float]  # ge, gt, le
    choices: tuple[str, ...]
    auto: Callable[[], int] | None = None  # what the word "auto" stands for

    @property
    def key(self) -> str:
        """The name in files: kebab-case."""
        return self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The name in the environment."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def expected(self) -> str:
        """What a value has to be, as the end of a sentence."""
        match self.kind:
            case "whole" | "number":
                noun = "a whole number" if self.kind == "whole" else "a number"
                return noun + _range_text(self.bounds) + (", or auto" if self.auto else "")
            case "choice":
                return " or ".join(repr(choice) for choice in self.choices)
            case _:
                return _EXPECTED[self.kind]

    def read(self, value: object, *, from_text: bool) -> Any:
        """Return the value in the setting's own type; raise Mismatch if it cannot be.

        From the environment and the command line everything arrives as text; in a file "8" is
        not a number.
        """
        if self.auto and isinstance(value, str) and value.strip().lower() == AUTO:
            return self.auto()
        try:
            spoken = isinstance(value, str) and (from_text or self.kind == "size")
            candidate = self._parsed(str(value)) if spoken else value
            if self.kind == "names" and isinstance(candidate, str):
                candidate = tuple(name.strip() for name in candidate.split(","))
            found = msgspec.convert(candidate, self.annotation)
        except (ValueError, RecursionError, msgspec.MsgspecError):
            raise Mismatch(f"expected {self.expected}, got {value!r}") from None
        if isinstance(found, float) and not math.isfinite(found):
            raise Mismatch(f"expected {self.expected}, got {value!r}")
        return found

    def _parsed(self, text: str) -> object:
        match self.kind:
            case "whole":
                return int(text)
            case "number":
                return float(text)
            case "size":
                return parse_size(text)
            case "tables":
                return msgspec.json.decode(text)
        word = text.strip().lower()
        if self.kind == "switch":
            return _SWITCHES.get(word, text)
        return word if self.kind == "choice" else text


def fields_of(record: type[msgspec.Struct]) -> dict[str, SettingField]:
    """Return every setting of the record by name, in the record's order."""
    info = inspect.type_info(record)
    assert isinstance(info, inspect.StructType)
    annotations = get_type_hints(record, include_extras=True)
    return {field.name: _field(field, annotations[field.name]) for field in info.fields}


def _field(field: inspect.Field, annotation: Any) -> SettingField:
    declared = field.type
    description, extra = "", {}
    if isinstance(declared, inspect.Metadata):
        description = (declared.extra_json_schema or {}).get("description", "")
        extra = declared.extra or {}
        declared = declared.type
    if isinstance(declared, inspect.UnionType):  # text that may be absent
        declared = declared.types[0]
    named = {bound: getattr(declared, bound, None) for bound in ("ge", "gt", "le")}
    kind = extra.get("kind") or _KINDS[type(declared)]
    choices = _choices(annotation)
    return SettingField(
        name=field.name,
        kind=kind,
        annotation=annotation,
        description=description,
        default=None if field.default is msgspec.NODEFAULT else field.default,
        flag=extra.get("flag") or "--" + field.name.replace("_", "-"),
        short=extra.get("short"),
        metavar=extra.get("metavar") or "|".join(choices) or _METAVARS.get(kind, "TEXT"),
        bounds={bound: value for bound, value in named.items() if value is not None},
        choices=choices,
        auto=extra.get("auto"),
    )


def _choices(annotation: Any) -> tuple[str, ...]:
    plain = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return get_args(plain) if get_origin(plain) is Literal else ()


def _range_text(bounds: Mapping[str, float]) -> str:
    low, above, high = bounds.get("ge"), bounds.get("gt"), bounds.get("le")
    if above is not None:
        return f" above {above:,.10g}" + ("" if high is None else f", up to {high:,.10g}")
    if low is None:
        return ""
    return f" of {low:,.10g} or more" if high is None else f" from {low:,.10g} to {high:,.10g}"
