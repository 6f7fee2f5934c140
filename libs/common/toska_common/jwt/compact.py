"""Reading the compact form of a signed token (RFC 7515 §3.1) strictly: one token has one spelling.

BASE64URL(header) . BASE64URL(claims) . BASE64URL(signature)
"""

import json
import math
import re
from base64 import urlsafe_b64decode
from typing import Any, Final, cast

from toska_common.jwt.refusals import TokenRefused

_FORM: Final = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_PADDING: Final = (b"", b"", b"==", b"=")  # by the length modulo 4; one left over cannot be
# The last digit of a shortened group has bits that stand for nothing; they are 0, or the same bytes could be written
# in several ways.
_LAST_OF_TWO: Final = frozenset(b"AQgw")
_LAST_OF_THREE: Final = frozenset(b"AEIMQUYcgkosw048")

MALFORMED: Final = "the token is malformed"


class CompactToken:
    """A token that has been read, and of which nothing is believed yet.

    Attributes:
        header: The JOSE header.
        claims: What the token says.
        signed: The bytes that the signature is over.
        signature: The signature.
    """

    __slots__ = ("claims", "header", "signature", "signed")

    def __init__(self, header: dict[str, Any], claims: dict[str, Any], signed: bytes, signature: bytes) -> None:
        self.header = header
        self.claims = claims
        self.signed = signed
        self.signature = signature


def read_compact(token: bytes, max_bytes: int) -> CompactToken:
    """Read a token.

    Raises:
        TokenRefused: It is longer than `max_bytes`, or not of this form.
    """
    if len(token) > max_bytes:
        raise TokenRefused(f"the token has more than {max_bytes} bytes")
    match = _FORM.fullmatch(token)
    if match is None:
        raise TokenRefused(MALFORMED)
    header, claims, signature = match.groups()
    return CompactToken(_read_object(header), _read_object(claims), token[: match.end(2)], decode_base64url(signature))


def decode_base64url(text: bytes) -> bytes:
    """Decode base64url without padding (RFC 7515 §2), of which only digits of its alphabet have been let through.

    Raises:
        TokenRefused: It is not the one way to write these bytes.
    """
    over = len(text) & 3
    if over and (
        over == 1 or (over == 2 and text[-1] not in _LAST_OF_TWO) or (over == 3 and text[-1] not in _LAST_OF_THREE)
    ):
        raise TokenRefused(MALFORMED)
    return urlsafe_b64decode(text + _PADDING[over])


def _read_object(text: bytes) -> dict[str, Any]:
    raw = decode_base64url(text)
    try:
        found: object = _decode(raw.decode())
        if b"\\u" in raw:  # half of a surrogate pair is no text, and would fail wherever it is written out
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise TokenRefused(MALFORMED) from None
    if not isinstance(found, dict):
        raise TokenRefused(MALFORMED)
    return cast("dict[str, Any]", found)


def _only_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # RFC 7519 §4: of a name that stands twice, one reader would believe the first and another the last.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("too large a number")
    return number


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(object_pairs_hook=_only_once, parse_float=_finite, parse_constant=_no_number).decode
