"""Where a request's token stands: `Authorization: Bearer`, a header of its own, or a cookie."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from toska_gateway.worker.http1 import CRLF, field_value

_SCHEME: Final = b"bearer"


class TokenPlace(Protocol):
    """Finds the token in the field line that holds it."""

    @property
    def field(self) -> bytes:
        """The lower-case name of that field."""
        ...

    def key(self, line: bytes) -> bytes | None:
        """What the token is remembered under; `None` if there is none in the line."""
        ...

    def token(self, key: bytes) -> bytes | None:
        """The token; `None` if there is none."""
        ...

    def without(self, line: bytes) -> bytes | None:
        """The line without the token; `None` if nothing remains."""
        ...


class BearerToken:
    """RFC 6750 §2.1. The line is the key, so that nothing is cut out of it for a token that is known."""

    field = b"authorization"

    def key(self, line: bytes) -> bytes | None:
        return line

    def token(self, key: bytes) -> bytes | None:
        # A tab as well as a space: an upstream that splits at white space would take what nobody has verified.
        scheme, *rest = field_value(key).split(None, 1)
        return rest[0].strip(b" \t") if rest and scheme.lower() == _SCHEME else None

    def without(self, line: bytes) -> bytes | None:
        return None


class HeaderToken:
    """The whole value of a header."""

    def __init__(self, name: str) -> None:
        self.field = name.encode("ascii")

    def key(self, line: bytes) -> bytes | None:
        return line

    def token(self, key: bytes) -> bytes | None:
        return field_value(key)

    def without(self, line: bytes) -> bytes | None:
        return None


class CookieToken:
    """A cookie's value."""

    field = b"cookie"

    def __init__(self, name: str) -> None:
        self._name = name.encode("ascii")

    def key(self, line: bytes) -> bytes | None:
        found = [value for value in map(self._value, self._cookies(line)) if value is not None]
        if not found:
            return None
        # Of two with one name nobody knows which the upstream would take: no token looks like both.
        return b";".join(found).strip(b'"')

    def token(self, key: bytes) -> bytes | None:
        return key

    def without(self, line: bytes) -> bytes | None:
        kept = [cookie for cookie in self._cookies(line) if self._value(cookie) is None]
        return b"cookie: " + b"; ".join(kept) + CRLF if kept else None

    def _value(self, cookie: bytes) -> bytes | None:
        # RFC 6265 has no space around the equals sign, and upstreams that bear with one must not be told otherwise.
        name, equals, value = cookie.partition(b"=")
        return value.lstrip(b" \t") if equals and name.rstrip(b" \t") == self._name else None

    @staticmethod
    def _cookies(line: bytes) -> list[bytes]:
        return [cookie.strip(b" \t") for cookie in field_value(line).split(b";")]


def token_place(settings: Mapping[str, Any] | None) -> TokenPlace:
    """The place that a policy names."""
    if settings is None:
        return BearerToken()
    return HeaderToken(settings["header"]) if settings["header"] is not None else CookieToken(settings["cookie"])
