"""Resources on the wire, straight from their JSON form.

protobuf's own way from JSON to a message takes half a millisecond for a route, and for a table of ten thousand minutes.
Here each type of message is looked through once: where a field stands and how its values are written. Fields and keys
of maps come in order, so that the same resource is always the same bytes.

Source: https://protobuf.dev/programming-guides/encoding/ and https://protobuf.dev/programming-guides/json/
"""

import struct
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final, cast

from toska_common.envoy.words import TYPES, Json
from toska_common.envoy_api import message_class

Write = Callable[[Any], bytes]
"""A value of a field on the wire, with its tag; nothing where it is the default of a field that does not tell."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WRAPPED: Final = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Bool", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double", "String", "Bytes")
)
_MASK: Final = (1 << 64) - 1


class NotOfTheApi(ValueError):
    """A resource is not of the API's form."""


def encode(url: str, resource: Mapping[str, Any]) -> bytes:
    """A resource of a type.

    Raises:
        NotOfTheApi: A field is not known there, or its value is none of its.
    """
    return _message(_name(url))(resource)


def _name(url: str) -> str:
    return url.removeprefix(TYPES)


@cache
def _message(name: str) -> Write:
    """Writes messages of a type, without what frames them."""
    special = _SPECIAL.get(name)
    if special is not None:
        return special
    descriptor: Any = message_class(name).DESCRIPTOR
    fields: dict[str, tuple[int, Any]] = {}
    for field in descriptor.fields:
        fields[field.name] = fields[field.json_name] = (field.number, field)
    writers: dict[str, tuple[int, Write]] = {}

    def write(value: Any) -> bytes:
        parts: list[tuple[int, bytes]] = []
        for key, inside in value.items():
            if inside is None:
                continue
            known = writers.get(key)
            if known is None:
                if key not in fields:
                    raise NotOfTheApi(f"{name} has no field {key}")
                number, field = fields[key]
                known = writers[key] = number, _field(field)
            try:
                parts.append((known[0], known[1](inside)))
            except NotOfTheApi:
                raise
            except (TypeError, ValueError, AttributeError, KeyError, struct.error) as error:
                raise NotOfTheApi(f"{name}.{key} is not {inside!r}: {error}") from error
        if len(parts) > 1:
            parts.sort(key=_number)
        return b"".join([part for _, part in parts])

    return write


def _number(part: tuple[int, bytes]) -> int:
    return part[0]


def _field(field: Any) -> Write:
    """Writes a field."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _map(field)
    if field.is_repeated:
        return _packed(field) if field.is_packed else _each(field)
    return _once(field, always=field.has_presence)


def _once(field: Any, *, always: bool) -> Write:
    kind, write = _value(field)
    tag = varint(field.number << 3 | kind)
    if field.message_type is not None or kind == _BYTES:

        def framed(value: Any) -> bytes:
            content = write(value)
            return tag + varint(len(content)) + content if content or always else b""

        return framed
    default = write(0)

    def plain(value: Any) -> bytes:
        content = write(value)
        return tag + content if always or content != default else b""

    return plain


def _each(field: Any) -> Write:
    one = _once(field, always=True)

    def write(values: Sequence[Any]) -> bytes:
        return b"".join([one(value) for value in values])

    return write


def _packed(field: Any) -> Write:
    _, one = _value(field)
    tag = varint(field.number << 3 | _BYTES)

    def write(values: Sequence[Any]) -> bytes:
        content = b"".join([one(value) for value in values])
        return tag + varint(len(content)) + content if values else b""

    return write


def _map(field: Any) -> Write:
    entry: Any = field.message_type
    write_key = _once(entry.fields_by_name["key"], always=True)
    write_value = _once(entry.fields_by_name["value"], always=True)
    tag = varint(field.number << 3 | _BYTES)

    def write(values: Mapping[str, Any]) -> bytes:
        parts: list[bytes] = []
        for key in sorted(values):
            content = write_key(key) + write_value(values[key])
            parts += (tag, varint(len(content)), content)
        return b"".join(parts)

    return write


def _value(field: Any) -> tuple[int, Write]:
    """The wire type of a field's values, and what writes one of them without a tag."""
    if field.message_type is not None:
        return _BYTES, _message(field.message_type.full_name)
    if field.enum_type is not None:
        numbers = {value.name: varint(value.number & _MASK) for value in field.enum_type.values}
        return _VARINT, lambda value: numbers[value] if isinstance(value, str) else varint(value & _MASK)
    return _SCALARS[field.type]


def varint(value: int) -> bytes:
    """A number that is not below 0."""
    if value < 128:
        return bytes((value,))
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def framed(number: int, content: bytes) -> bytes:
    """A message as a field of another."""
    return varint(number << 3 | _BYTES) + varint(len(content)) + content


def _integer(value: Any) -> bytes:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError("no whole number")
    return varint(int(value) & _MASK)


def _boolean(value: Any) -> bytes:
    if not isinstance(value, (bool, int)):
        raise TypeError("neither true nor false")
    return b"\1" if value else b"\0"


def _text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value.encode()


def _octets(value: Any) -> bytes:
    return b64decode(value)


def _double(value: Any) -> bytes:
    return struct.pack("<d", float(value))


def _float(value: Any) -> bytes:
    return struct.pack("<f", float(value))


_SCALARS: Final[Mapping[int, tuple[int, Write]]] = {
    1: (_FIXED64, _double),
    2: (_FIXED32, _float),
    3: (_VARINT, _integer),
    4: (_VARINT, _integer),
    5: (_VARINT, _integer),
    8: (_VARINT, _boolean),
    9: (_BYTES, _text),
    12: (_BYTES, _octets),
    13: (_VARINT, _integer),
}
"""By the number of a descriptor's type; the API has no others."""


def _duration(value: str) -> bytes:
    if not value.endswith("s"):
        raise ValueError("a duration ends in s")
    whole, _, rest = value[:-1].partition(".")
    sign = -1 if whole.startswith("-") else 1
    made = b""
    if seconds := int(whole):
        made += b"\x08" + varint(seconds & _MASK)
    if nanos := sign * int(rest.ljust(9, "0") or 0):
        made += b"\x10" + varint(nanos & _MASK)
    return made


def _any(value: Mapping[str, Any]) -> bytes:
    url = value["@type"]
    inside = {key: one for key, one in value.items() if key != "@type"}
    name = _name(url)
    content = _message(name)(inside["value"] if name in _SPECIAL else inside)
    return framed(1, _text(url)) + (framed(2, content) if content else b"")


def _struct(value: Mapping[str, Any]) -> bytes:
    parts: list[bytes] = []
    for key in sorted(value):
        content = framed(1, _text(key)) + framed(2, _dynamic(value[key]))
        parts.append(framed(1, content))
    return b"".join(parts)


def _list(values: Sequence[Any]) -> bytes:
    return b"".join([framed(1, _dynamic(value)) for value in values])


def _dynamic(value: Any) -> bytes:
    if value is None:
        return b"\x08\0"
    if isinstance(value, bool):
        return b"\x20" + _boolean(value)
    if isinstance(value, (int, float)):
        return b"\x11" + _double(value)
    if isinstance(value, str):
        return framed(3, value.encode())
    if isinstance(value, Mapping):
        return framed(5, _struct(cast("Json", value)))
    return framed(6, _list(value))


def _wrapper(name: str) -> Write:
    made: Any = message_class(name)
    (field,) = made.DESCRIPTOR.fields
    return _once(field, always=False)


_SPECIAL: dict[str, Write] = {
    "google.protobuf.Duration": _duration,
    "google.protobuf.Any": _any,
    "google.protobuf.Struct": _struct,
    "google.protobuf.ListValue": _list,
    "google.protobuf.Value": _dynamic,
}


def _lazily(name: str) -> Write:
    def write(value: Any) -> bytes:
        found = _SPECIAL[name] = _wrapper(name)
        return found(value)

    return write


_SPECIAL.update({name: _lazily(name) for name in _WRAPPED})
