"""From an expression to a predicate over decoded JSON: every name, operator and value is checked before the first use.

What is not there answers as an empty one does, and an entry of a map that is missing equals nothing, contains nothing
and matches nothing.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from toska_discovery.filters.expressions import And, Expression, Match, Not, Operator, Or
from toska_discovery.filters.fields import Field, Flag, Map, Number, Struct, Structs, find_below
from toska_discovery.filters.gotext import parse_boolean, parse_integer, quote
from toska_discovery.filters.grammar import parse
from toska_discovery.filters.problems import InvalidFilter
from toska_discovery.filters.regexes import compile_regex

Predicate = Callable[[Any], bool]

_NEGATIONS = {
    Operator.NOT_EQUAL: Operator.EQUAL,
    Operator.NOT_IN: Operator.IN,
    Operator.IS_NOT_EMPTY: Operator.IS_EMPTY,
    Operator.NOT_MATCHES: Operator.MATCHES,
}


@lru_cache(maxsize=256)
def compile_filter(text: str, fields: Struct) -> Predicate:
    """Compile an expression about objects with `fields`; the same few come again and again.

    Raises:
        InvalidFilter: It cannot be parsed, or asks what cannot be asked.
    """
    return _compile(parse(text), fields)


def _compile(expression: Expression, fields: Struct) -> Predicate:
    match expression:
        case Not(operand=operand):
            inner = _compile(operand, fields)
            return lambda datum: not inner(datum)
        case And(operands=operands):
            parts = [_compile(part, fields) for part in operands]
            return lambda datum: all(part(datum) for part in parts)
        case Or(operands=operands):
            parts = [_compile(part, fields) for part in operands]
            return lambda datum: any(part(datum) for part in parts)
        case Match():
            return _compile_match(expression, fields)


def _compile_match(match: Match, fields: Struct) -> Predicate:
    kinds = _resolve(match.selector, fields)
    if match.operator not in kinds[-1].operators:
        raise InvalidFilter(
            f"Invalid match operator {quote(match.operator.value)} for selector {quote('.'.join(match.selector))}"
        )
    reached = _build_test(match, kinds[-1])
    missing = match.operator in _NEGATIONS
    for parent, name, kind in reversed(list(zip(kinds, match.selector, kinds[1:], strict=False))):
        reached = _step(parent, name, kind.zero, reached, missing=missing)
    return reached


def _resolve(selector: Sequence[str], fields: Struct) -> list[Field]:
    """The kinds of field on the way, from `fields` itself to the one that is selected."""
    kinds: list[Field] = [fields]
    for count, name in enumerate(selector, start=1):
        below = find_below(kinds[-1], name)
        if below is None:
            raise InvalidFilter(f"Selector {quote('.'.join(selector[:count]))} is not valid")
        kinds.append(below)
    return kinds


def _build_test(match: Match, kind: Field) -> Predicate:
    """What is asked of the value that the selector reaches."""
    positive = _NEGATIONS.get(match.operator, match.operator)
    test = _build_positive(positive, "" if match.value is None else match.value, match.selector, kind)
    return test if positive is match.operator else lambda value: not test(value)


def _build_positive(operator: Operator, text: str, selector: Sequence[str], kind: Field) -> Predicate:
    match operator:
        case Operator.EQUAL:
            wanted = _coerce(text, selector, kind)
            return lambda value: value == wanted
        case Operator.IN:
            return lambda value: text in value
        case Operator.MATCHES:
            return compile_regex(text)
        case _:
            return lambda value: not value


def _coerce(text: str, selector: Sequence[str], kind: Field) -> Any:
    try:
        if isinstance(kind, Number):
            return parse_integer(text)
        return parse_boolean(text) if isinstance(kind, Flag) else text
    except ValueError as error:
        raise InvalidFilter(
            f"Failed to coerce value {quote(text)} for selector {quote('.'.join(selector))}: {error}"
        ) from error


def _step(parent: Field, name: str, zero: Any, inner: Predicate, *, missing: bool) -> Predicate:
    """`inner` of what `name` leads to from a value of the kind `parent`."""
    match parent:
        case Map():
            return lambda value: inner(value[name]) if name in value else missing
        case Structs():
            return lambda value: any(inner(_field(item, name, zero)) for item in value)
        case _:
            return lambda value: inner(_field(value, name, zero))


def _field(value: dict[str, Any], name: str, zero: Any) -> Any:
    found = value.get(name)
    return zero if found is None else found
