"""The header fields of a message as filters see them: text, checked as it is written."""

import re
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Final

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
# Fields are text in ISO 8859-1, without the control characters that could end a line (RFC 9110 §5.5).
_MAX_VALUE: Final = 32768
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,32768}")

# About this connection and its framing (RFC 9110 §7.6.1, RFC 9112 §6), or what the gateway vouches for by itself.
GUARDED: Final = frozenset(
    {
        "connection", "content-length", "expect", "forwarded", "host", "http2-settings", "keep-alive",
        "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "traceparent", "trailer",
        "transfer-encoding", "upgrade", "via", "x-consul-token", "x-forwarded-for", "x-forwarded-host",
        "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-proto", "x-real-ip", "x-request-id", "x-toska-caller",
        "x-toska-error",
    }
)  # fmt: skip
"""Names that no filter sets."""

_NOTHING: Mapping[str, str] = {}
_NO_FIELDS: Mapping[bytes, tuple[bytes, ...]] = {}
_COLON: Final = 0x3A
_CRLF: Final = b"\r\n"
_MEMORY: Final = 1024
_lines: dict[str, tuple[bytes, bytes]] = {}


class Misuse(ValueError):
    """A filter asks for something that cannot be served; the text quotes nothing of a message."""


class HeaderRefused(Misuse):
    """A field that cannot be written so; says which, and nothing of its value."""


class Headers(MutableMapping[str, str]):
    """Fields by name, in any case; reading joins several lines with a comma, writing replaces them all.

    Fields about the connection and the framing can be read as they came, and never written.
    """

    __slots__ = ("_apart", "_lines")

    def __init__(self, fields: Mapping[str, str] = _NOTHING) -> None:
        self._lines: list[bytes] = [b""]
        self._apart: Mapping[bytes, tuple[bytes, ...]] = _NO_FIELDS
        for name, value in fields.items():
            self.add(name, value)

    @classmethod
    def over(cls, lines: list[bytes], apart: Mapping[bytes, tuple[bytes, ...]] = _NO_FIELDS) -> "Headers":
        """A view of a message's head: its lines in wire form after the first, which is left alone, changed in place.

        Args:
            lines: Each `name: value` with its CRLF.
            apart: Fields that are kept elsewhere, by lower-case name; for reading.
        """
        view = cls.__new__(cls)
        view._lines = lines
        view._apart = apart
        return view

    def get_all(self, name: str) -> list[str]:
        """The values of all lines of a field, in order."""
        key = name.lower().encode("latin-1", "replace")
        end = len(key)
        found = [
            line[end + 1 :].strip(b" \t\r\n").decode("latin-1")
            for line in self._lines
            if len(line) > end and line[end] == _COLON and line[:end].lower() == key
        ]
        if key in self._apart:
            found += [value.decode("latin-1") for value in self._apart[key]]
        return found

    def wire(self) -> bytes:
        """All lines as they are sent."""
        return b"".join(self._lines[1:])

    def __getitem__(self, name: str) -> str:
        found = self.get_all(name)
        if not found:
            raise KeyError(name)
        return found[0] if len(found) == 1 else ", ".join(found)

    def __setitem__(self, name: str, value: str) -> None:
        key, before = _lines.get(name) or _learn(name)
        line = before + _value(name, value)
        lines = self._lines
        # Mostly there is none, and looking through all at once is what setting a field costs.
        if key in b"".join(lines).lower():
            self._drop(key)
        lines.append(line)

    def add(self, name: str, value: str) -> None:
        """Add a line beside those that are there.

        Raises:
            HeaderRefused: The name is not one that filters set, or there is a control character in the value.
        """
        _, before = _lines.get(name) or _learn(name)
        self._lines.append(before + _value(name, value))

    def __delitem__(self, name: str) -> None:
        key, _ = _lines.get(name) or _learn(name)
        if not self._drop(key):
            raise KeyError(name)

    def _drop(self, key: bytes) -> bool:
        lines, end = self._lines, len(key)
        kept = [line for line in lines if line[end : end + 1] != b":" or line[:end].lower() != key]
        if len(kept) == len(lines):
            return False
        lines[:] = kept
        return True

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def __iter__(self) -> Iterator[str]:
        seen = dict.fromkeys(line[: line.index(b":")].lower().decode("latin-1") for line in self._lines[1:] if line)
        return iter([*seen, *(name.decode("latin-1") for name in self._apart)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Headers({', '.join(self)})"  # names only: values may be secrets, and this is what ends up in logs


def _learn(name: str) -> tuple[bytes, bytes]:
    """A name's key and the beginning of its line."""
    key = name.lower()
    # Some servers read _ as -, so that a twin would pass for the field itself.
    if _NAME.fullmatch(name) is None:
        raise HeaderRefused(f"{name[:64]!r} is no name of a header field")
    if key.replace("_", "-") in GUARDED:
        raise HeaderRefused(f"{key} is the gateway's own and cannot be changed")
    known = key.encode("ascii"), name.encode("ascii") + b": "
    if len(_lines) >= _MEMORY:
        _lines.clear()  # names come from code, a handful; where they do not, memory is bounded all the same
    _lines[name] = known
    return known


def _value(name: str, value: str) -> bytes:
    # (What is tried first holds for nearly all values, and takes a fifth of the expression's time.)
    fits = value.isascii() and value.isprintable() and len(value) <= _MAX_VALUE
    if not fits and _VALUE.fullmatch(value) is None:
        raise HeaderRefused(f"the value for {name} holds a control character, is not Latin-1, or is too long")
    return value.strip(" \t").encode("latin-1") + _CRLF
