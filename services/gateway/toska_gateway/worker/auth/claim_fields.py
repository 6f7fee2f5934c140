"""Header fields that tell an upstream what stands in a token."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from toska_common.jwt.claims import Claims, find_claim, plain

_MAX_VALUE: Final = 4096
# What a field's value may be made of (RFC 9110 §5.5): no control characters, and no space at its ends.
_VALUE: Final = re.compile(rb"[\x21-\x7e\x80-\xff](?:[\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?")


def field_lines(claims: Claims, fields: Mapping[str, str]) -> tuple[bytes, ...]:
    """The field lines for `fields` (header to claim), each with its CRLF.

    Text is sent as UTF-8, everything else as JSON. What cannot stand in a header is left out, and so is what is not
    there: the upstream sees a field only if the token says so.
    """
    lines: list[bytes] = []
    for header, claim in fields.items():
        value = _value(find_claim(claims, claim))
        if value is not None:
            lines.append(b"%b: %b\r\n" % (header.encode("ascii"), value))
    return tuple(lines)


def _value(claim: Any) -> bytes | None:
    if claim is None:
        return None
    text = claim if isinstance(claim, str) else json.dumps(plain(claim), separators=(",", ":"))
    value = text.encode()
    return value if len(value) <= _MAX_VALUE and _VALUE.fullmatch(value) else None
