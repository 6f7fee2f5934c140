"""What can be selected from an answer: its fields by name, and which questions each kind of field answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from toska_discovery.filters.expressions import Operator

_EQUALITY = frozenset({Operator.EQUAL, Operator.NOT_EQUAL})
_CONTENT = frozenset({Operator.IN, Operator.NOT_IN})
_EMPTINESS = frozenset({Operator.IS_EMPTY, Operator.IS_NOT_EMPTY})
_PATTERN = frozenset({Operator.MATCHES, Operator.NOT_MATCHES})


@dataclass(frozen=True, slots=True)
class Text:
    """A string; `in` asks for a part of it."""

    operators: frozenset[Operator] = _EQUALITY | _CONTENT | _PATTERN
    zero: Any = ""


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number."""

    operators: frozenset[Operator] = _EQUALITY
    zero: Any = 0


@dataclass(frozen=True, slots=True)
class Flag:
    """A truth value."""

    operators: frozenset[Operator] = _EQUALITY
    zero: Any = False


@dataclass(frozen=True, slots=True)
class Texts:
    """A list of strings; it has no fields."""

    operators: frozenset[Operator] = _CONTENT | _EMPTINESS
    zero: Any = ()


@dataclass(frozen=True, eq=False)
class Struct:
    """An object with fields of its own; one that is missing counts as its kind's zero, as in Go."""

    fields: Mapping[str, "Field"]
    operators: frozenset[Operator] = frozenset()
    zero: Any = field(default_factory=dict[str, Any])


@dataclass(frozen=True, eq=False)
class Structs:
    """A list of objects: a question about a field asks whether it holds for any of them."""

    item: Struct
    operators: frozenset[Operator] = _EMPTINESS
    zero: Any = ()


@dataclass(frozen=True, eq=False)
class Map:
    """Values by name; `in` asks for a name."""

    value: "Field"
    operators: frozenset[Operator] = _CONTENT | _EMPTINESS
    zero: Any = field(default_factory=dict[str, Any])


Field: TypeAlias = Text | Number | Flag | Texts | Struct | Structs | Map


def find_below(parent: Field, name: str) -> Field | None:
    """The field that `name` selects from `parent`."""
    match parent:
        case Struct(fields=fields) | Structs(item=Struct(fields=fields)):
            return fields.get(name)
        case Map(value=value):
            return value
        case _:
            return None
