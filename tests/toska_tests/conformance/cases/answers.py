"""Answers that routes give by themselves."""

import re
from collections.abc import Sequence

from toska_tests.conformance.case import Case
from toska_tests.conformance.steps import Ask
from toska_tests.raw_http import get, request

_MOVED = {"name": "moved", "match": {"path": "/old"}, "redirect": {"to": "/new"}}
_ROBOTS = {
    "name": "robots",
    "match": {"path": "/robots.txt"},
    "respond": {"status": 200, "body": "User-agent: *\n", "content_type": "text/plain"},
}
_LETTERS = "100% %REQ(authorization)% {path}"
_STATUSES = (301, 302, 303, 307, 308)


def _absolute(place: str) -> re.Pattern[bytes]:
    """A place of this host, told as a path or as a URL (RFC 9110 §10.2.2)."""
    return re.compile(b"(?:http://test)?" + re.escape(place.encode()))


CASES: Sequence[Case] = (
    Case(
        "a redirect takes the query along",
        [
            Ask(get("/old"), 308, by="", gets={"location": _absolute("/new")}, body=b""),
            Ask(get("/old?a=%20"), 308, by="", gets={"location": _absolute("/new?a=%20")}),
            Ask(request("HEAD", "/old"), 308, by="", gets={"location": _absolute("/new")}),
        ],
        [_MOVED],
    ),
    Case(
        "a redirect has the status that was asked for, and may lead elsewhere",
        [Ask(get(f"/{status}?b=2"), status, gets={"location": b"https://far.test/?a=1&b=2"}) for status in _STATUSES],
        [
            {
                "name": f"r{status}",
                "match": {"path": f"/{status}"},
                "redirect": {"to": "https://far.test/?a=1", "status": status},
            }
            for status in _STATUSES
        ],
    ),
    Case(
        "a prefix or a scheme can be redirected by itself",
        [
            Ask(get("/v1/items?x=1"), 308, gets={"location": _absolute("/v2/items?x=1")}),
            Ask(get("/plain/a?b", host="shop.test"), 308, gets={"location": b"https://shop.test/plain/a?b"}),
        ],
        [
            {"name": "version", "match": {"path_prefix": "/v1"}, "redirect": {"prefix": "/v2"}},
            {"name": "scheme", "match": {"path_prefix": "/plain"}, "redirect": {"scheme": "https"}},
        ],
    ),
    Case(
        "a direct answer is given as it is written",
        [
            Ask(
                get("/robots.txt"),
                by="",
                body=b"User-agent: *\n",
                gets={"content-type": b"text/plain", "content-length": b"14"},
            ),
            Ask(request("HEAD", "/robots.txt"), body=b"", gets={"content-length": b"14"}),
        ],
        [_ROBOTS],
    ),
    Case(
        "nothing of the request gets into a direct answer",
        [
            Ask(
                get("/", "Authorization: Bearer t"),
                by="",
                body=_LETTERS.encode(),
                gets={"content-type": f"text/plain; x={_LETTERS}".encode()},
            )
        ],
        [
            {
                "name": "letters",
                "match": {"path": "/"},
                "respond": {"body": _LETTERS, "content_type": f"text/plain; x={_LETTERS}"},
            }
        ],
    ),
    Case(
        "a direct answer whose status has no body has none",
        [Ask(get("/"), 204, body=b"", gets={"content-length": None}), Ask(get("/"), 204)],
        [{"name": "none", "match": {"path_prefix": "/"}, "respond": {"status": 204, "body": "x"}}],
    ),
    Case(
        "a body that nobody reads is not taken for the next request",
        [
            Ask(request("POST", "/old", body=b"GET /robots.txt HTTP/1.1\r\nhost: a\r\n\r\n"), 308, closes=True),
            Ask(get("/robots.txt"), body=b"User-agent: *\n"),
        ],
        [_MOVED, _ROBOTS],
    ),
)
