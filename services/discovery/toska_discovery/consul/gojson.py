"""JSON bodies read as Consul's Go code reads them: names in any case, unknown ones refused, `null` as nothing."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from toska_discovery.consul.durations import parse_duration
from toska_discovery.consul.request import Refusal

Decoder = Callable[[Any, str], Any]


def decode_json(body: bytes) -> Any:
    """Parse a body.

    Raises:
        Refusal: In the words of Go's decoder.
    """
    try:
        text = body.decode()
        value = json.loads(text, parse_constant=_refuse_constant)
        _ = json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate could be neither stored nor answered
    except UnicodeError as error:
        raise Refusal(400, "Request decode failed: invalid UTF-8") from error
    except RecursionError as error:
        raise Refusal(400, "Request decode failed: exceeded max depth") from error
    except json.JSONDecodeError as error:
        raise Refusal(400, f"Request decode failed: {_go_syntax_error(error)}") from error
    except ValueError as error:
        raise Refusal(400, f"Request decode failed: {error}") from error
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"invalid character '{name[0]}' looking for beginning of value")


def _go_syntax_error(error: json.JSONDecodeError) -> str:
    rest = error.doc[error.pos :]
    if not error.doc.strip():
        return "EOF"
    if not rest.strip() or error.msg.startswith("Unterminated"):
        return "unexpected EOF"
    if error.msg.startswith("Illegal trailing comma"):  # Python 3.13 points at the comma, earlier ones at what follows
        rest = rest[1:].lstrip()
    wanted = "object key string" if "property name" in error.msg or error.msg.endswith("of object") else "value"
    return f"invalid character '{rest[0]}' looking for beginning of {wanted}"


@dataclass(frozen=True, slots=True)
class Struct:
    """A Go struct: its fields by lower-case name, each with its canonical name and decoder."""

    fields: Mapping[str, tuple[str, Decoder]]

    @classmethod
    def of(cls, **fields: Decoder) -> "Struct":
        """Fields by canonical name; each may also be written with underscores, as Consul's older API has it."""
        known: dict[str, tuple[str, Decoder]] = {}
        for name, decoder in fields.items():
            known[name.lower()] = (name, decoder)
            known[_snake(name)] = (name, decoder)
        return cls(known)

    @classmethod
    def exact(cls, **fields: Decoder) -> "Struct":
        """Fields by canonical name, in any case of letters, and under no other name."""
        return cls({name.lower(): (name, decoder) for name, decoder in fields.items()})

    def at(self, value: Any, _field: str) -> dict[str, Any]:
        """`decode` as the decoder of a field."""
        return self.decode(value)

    def decode(self, value: Any, *, nulls: bool = False) -> dict[str, Any]:
        """The fields that are there; those that are null only if asked for.

        Raises:
            Refusal: Not an object, an unknown field, or a wrong type.
        """
        if not isinstance(value, dict):
            raise mismatch(value, "", "struct")
        found: dict[str, Any] = {}
        for name, part in cast("dict[str, Any]", value).items():
            known = self.fields.get(name.lower())
            if known is None:
                raise Refusal(400, f'Request decode failed: json: unknown field "{name}"')
            if part is not None:
                found[known[0]] = known[1](part, known[0])
            elif nulls:
                found[known[0]] = None
        return found


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def mismatch(value: Any, field: str, kind: str) -> Refusal:
    """The refusal of a value of the wrong type, in the words of Go's decoder."""
    if isinstance(value, bool):
        what = "bool"
    elif isinstance(value, int | float):
        what = f"number {value}" if kind == "int" else "number"
    else:
        what = {"str": "string", "list": "array", "dict": "object", "NoneType": "null"}[type(value).__name__]
    where = f"Go struct field .{field}" if field else "Go value"
    return Refusal(400, f"Request decode failed: json: cannot unmarshal {what} into {where} of type {kind}")


def string(value: Any, field: str) -> str:
    """A string."""
    if not isinstance(value, str):
        raise mismatch(value, field, "string")
    return value


def integer(value: Any, field: str) -> int:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise mismatch(value, field, "int")
    return value


def boolean(value: Any, field: str) -> bool:
    """A truth value."""
    if not isinstance(value, bool):
        raise mismatch(value, field, "bool")
    return value


def duration(value: Any, field: str) -> float:
    """Seconds: Go's duration as a string, or nanoseconds as a number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise mismatch(value, field, "time.Duration")
    if not isinstance(value, str):
        return value / 1e9
    try:
        return parse_duration(value)
    except ValueError as error:
        raise Refusal(400, f"Request decode failed: {error}") from error


def strings(value: Any, field: str) -> tuple[str, ...]:
    """A list of strings."""
    if not isinstance(value, list):
        raise mismatch(value, field, "[]string")
    return tuple(string(part, field) for part in cast("list[Any]", value))


def string_lists(value: Any, field: str) -> dict[str, tuple[str, ...]]:
    """An object of lists of strings, such as HTTP header fields."""
    if not isinstance(value, dict):
        raise mismatch(value, field, "map[string][]string")
    return {key: strings(part, field) for key, part in cast("dict[str, Any]", value).items() if part is not None}


def string_map(value: Any, field: str) -> dict[str, str]:
    """An object of strings."""
    if not isinstance(value, dict):
        raise mismatch(value, field, "map[string]string")
    return {key: string(part, field) for key, part in cast("dict[str, Any]", value).items() if part is not None}


def anything(value: Any, _field: str) -> Any:
    """Whatever it is; looked at later."""
    return value
