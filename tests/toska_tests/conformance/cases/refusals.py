"""Requests that are none: refused, and never forwarded (RFC 9112, RFC 9110)."""

from collections.abc import Sequence

from toska_tests.conformance.case import Case
from toska_tests.conformance.steps import Ask

_GET = b"GET / HTTP/1.1\r\nhost: test\r\n"
_POST = b"POST / HTTP/1.1\r\nhost: test\r\n"

_REFUSED: tuple[tuple[str, int, str, bytes], ...] = (
    ("no Host", 400, "bad-host", b"GET / HTTP/1.1\r\n\r\n"),
    ("two Hosts", 400, "bad-host", _GET + b"host: other\r\n\r\n"),
    ("a bad Host", 400, "bad-host", b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n"),
    ("two lengths", 400, "bad-framing", _POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello"),
    (
        "a length and chunks",
        400,
        "bad-framing",
        _POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("a signed length", 400, "bad-framing", _POST + b"content-length: +5\r\n\r\nhello"),
    ("chunked that is not last", 400, "bad-framing", _POST + b"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    ("a folded field", 400, "bad-header", _GET + b"x-a: 1\r\n 2\r\n\r\n"),
    ("a space before a colon", 400, "bad-header", _GET + b"x-a : 1\r\n\r\n"),
    ("a NUL in a field", 400, "bad-header", _GET + b"x-a: a\x00b\r\n\r\n"),
    ("an escaped slash", 400, "bad-target", b"GET /a%2fb HTTP/1.1\r\nhost: test\r\n\r\n"),
    ("a fragment", 400, "bad-target", b"GET /#a HTTP/1.1\r\nhost: test\r\n\r\n"),
    ("a broken escape", 400, "bad-target", b"GET /%zz HTTP/1.1\r\nhost: test\r\n\r\n"),
    ("an unknown coding", 501, "unknown-coding", _POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("an unknown method", 501, "unknown-method", b"BREW / HTTP/1.1\r\nhost: test\r\n\r\n"),
    ("another version", 505, "unsupported-version", b"GET / HTTP/1.2\r\nhost: test\r\n\r\n"),
    ("a long target", 414, "target-too-long", b"GET /%b HTTP/1.1\r\nhost: test\r\n\r\n" % (b"a" * 9000)),
    ("a large head", 431, "header-too-large", _GET + b"x-a: %b\r\n\r\n" % (b"a" * 70_000)),
    ("many fields", 431, "too-many-headers", _GET + b"x-a: 1\r\n" * 100 + b"\r\n"),
)

CASES: Sequence[Case] = tuple(
    Case(f"a request with {what} is refused and its connection closed", [Ask(send, status, error=error, closes=True)])
    for what, status, error, send in _REFUSED
)
