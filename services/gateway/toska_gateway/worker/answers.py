"""The gateway's own answers: problem documents (RFC 9457), redirects and fixed responses, as wire bytes."""

import json
from datetime import UTC, datetime
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from toska_gateway.worker.http1 import METHODS

TITLES: Final = {
    "bad-request-line": "Malformed request line",
    "bad-header": "Malformed header field",
    "bad-host": "Host missing or malformed",
    "bad-target": "Malformed request target",
    "bad-framing": "Ambiguous length of the body",
    "bad-chunk": "Malformed chunked body",
    "header-too-large": "Request header too large",
    "too-many-headers": "Too many header fields",
    "target-too-long": "Request target too long",
    "unknown-method": "Unknown method",
    "unknown-coding": "Unknown transfer coding",
    "unknown-expectation": "Unknown expectation",
    "unsupported-version": "HTTP version not supported",
    "cors-denied": "Not allowed to pages of this origin",
    "ip-denied": "Address not served",
    "https-only": "Served over HTTPS only",
    "unknown-api-version": "Unknown version of the API",
    "api-version-gone": "Version of the API is gone",
    "fault-injected": "Fault on purpose",
    "no-route": "No route matches",
    "not-cached": "Not in the cache",
    "method-not-allowed": "Method not allowed",
    "upstream-unavailable": "No upstream available",
    "upstream-connect-failed": "Upstream cannot be reached",
    "upstream-reset": "Upstream closed the connection",
    "upstream-timeout": "Upstream timed out",
    "policy-timeout": "Not decided in time",
    "upstream-overloaded": "Upstream connection limit reached",
    "bad-upstream-response": "Upstream sent a malformed response",
    "request-timeout": "Request timed out",
    "body-too-large": "Request body too large",
    "too-many-connections": "Too many connections",
    "loop-detected": "Loop detected",
    "target-refused": "Upstream address refused",
    "https-required": "HTTPS required",
    "upstream-tls-failed": "No TLS with the upstream",
    "filter-failed": "A filter failed",
    "filter-refused": "Refused by a filter",
    "filter-suspended": "A filter is suspended",
    "filter-timeout": "A filter timed out",
    "token-required": "Token required",
    "invalid-token": "Token not accepted",
    "ambiguous-token": "More than one token",
    "insufficient-scope": "Token does not grant enough",
    "keys-unavailable": "Issuer's keys unavailable",
}
"""Titles by code; a code that is not in here has its status's own phrase."""


_BODILESS: Final = frozenset({204, 304})
"""Statuses whose responses end with their head (RFC 9112 §6.3)."""


def reason_phrase(status: int) -> str:
    """The registered phrase of a status, or an empty one."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def build(
    status: int, content_type: str, body: bytes, *, close: bool, extra: bytes = b"", bodiless: bool = False
) -> bytes:
    """A whole response; `extra` is further field lines in wire form, `bodiless` answers a HEAD."""
    # RFC 9110 §6.6.1: whoever answers by itself and has a clock says when.
    line = f"HTTP/1.1 {status} {reason_phrase(status)}\r\ndate: {_date(int(datetime.now(UTC).timestamp()))}\r\n"
    if close:
        extra += b"connection: close\r\n"
    if status in _BODILESS:
        return line.encode("latin-1") + extra + b"\r\n"
    head = f"{line}content-type: {content_type}\r\ncontent-length: {len(body)}\r\n".encode("latin-1")
    return head + extra + b"\r\n" + (b"" if bodiless else body)


def body_size(answer: bytes) -> int:
    """How long the body of a whole response is."""
    return len(answer) - answer.find(b"\r\n\r\n") - 4


REDIRECT_STATUS: Final = 308


def redirect(location: bytes, *, close: bool) -> bytes:
    """An answer that sends the client elsewhere with the same method and body (RFC 9110 §15.4.9)."""
    extra = b"location: " + location + b"\r\n"
    return build(REDIRECT_STATUS, "text/plain; charset=utf-8", b"", close=close, extra=extra)


def about_the_server(*, close: bool) -> bytes:
    """The answer to an OPTIONS about the gateway itself (RFC 9110 §9.3.7)."""
    return build(204, "", b"", close=close, extra=b"allow: " + b", ".join(sorted(METHODS)) + b"\r\n")


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    trace_id: str,
    close: bool = False,
    extra: bytes = b"",
    bodiless: bool = False,
) -> bytes:
    """A problem document; `x-toska-error` tells that the gateway itself answered."""
    document = {
        "type": f"/problems/{code}",
        "title": TITLES.get(code) or reason_phrase(status),
        "status": status,
        "detail": detail,
        "trace_id": trace_id,
    }
    extra += b"x-toska-error: " + code.encode() + b"\r\n"
    body = json.dumps(document).encode()
    return build(status, "application/problem+json", body, close=close, extra=extra, bodiless=bodiless)
