"""Vary (RFC 9111 §4.1): which fields of a request its response follows from, and the key that they make.

Values are compared without what has no meaning: white space around commas, several lines of a field, and the case of
codings and languages. Keys are digests, since cookies and tokens can be part of them.
"""

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from toska_gateway.worker.http1 import RequestHead
from toska_gateway.worker.http1.grammar import TOKEN

_COMMA: Final = re.compile(rb"[ \t]*,[ \t]*")
_WITHOUT_CASE: Final = frozenset({b"accept-encoding", b"accept-language", b"accept-charset"})
_ABSENT: Final = b"\x01"
"""Unlike every value: a field that is empty is not one that is absent."""


def read_vary(lines: Iterable[bytes], ignored: frozenset[bytes]) -> tuple[bytes, ...] | None:
    """The fields that are named, in lower case and sorted; `None` if no other request can be told to match."""
    names: set[bytes] = set()
    for line in lines:
        for member in line.split(b","):
            name = member.strip(b" \t").lower()
            if name and (name == b"*" or TOKEN.fullmatch(name) is None):
                return None
            names.add(name)
    return tuple(sorted(names - ignored - {b""}))


def normal_value(name: bytes, value: bytes | None) -> bytes:
    """A field's value as far as it has a meaning."""
    if value is None:
        return _ABSENT
    value = _COMMA.sub(b",", value)
    return value.lower() if name in _WITHOUT_CASE else value


def variant_key(primary: bytes, names: tuple[bytes, ...], head: RequestHead) -> bytes:
    """The key of the response that a request selects among those of one resource."""
    values = b"\0".join(normal_value(name, head.field(name)) for name in names)
    # The names are part of it: once a resource varies by more, what was stored before answers nobody.
    return primary + b"\0" + blake2b(b",".join(names) + b"\0" + values, digest_size=16).digest()
