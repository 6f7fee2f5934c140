"""A parsed expression, as immutable values."""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class Operator(Enum):
    """What a selector is asked; the values are what refusals call them."""

    EQUAL = "Equal"
    NOT_EQUAL = "Not Equal"
    IN = "In"
    NOT_IN = "Not In"
    IS_EMPTY = "Is Empty"
    IS_NOT_EMPTY = "Is Not Empty"
    MATCHES = "Matches"
    NOT_MATCHES = "Not Matches"


@dataclass(frozen=True, slots=True)
class Match:
    """One question: `selector operator value`; the value is `None` where the operator takes none."""

    selector: tuple[str, ...]
    operator: Operator
    value: str | None


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of its operand."""

    operand: "Expression"


@dataclass(frozen=True, slots=True)
class And:
    """All of its operands."""

    operands: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of its operands."""

    operands: tuple["Expression", ...]


Expression: TypeAlias = Match | Not | And | Or
