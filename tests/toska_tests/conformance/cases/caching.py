"""Responses that are kept (RFC 9111), and those that must not be."""

import re
from collections.abc import Sequence

from toska_tests.conformance.case import Case, policies
from toska_tests.conformance.steps import Ask
from toska_tests.raw_http import get, request, response

_FRESH = "Cache-Control: max-age=60"
_CACHE = policies(cache={})


def kept(path: str, *fields: str) -> list[Ask]:
    """Asked for once, and then served without the upstream."""
    return [Ask(get(path, *fields), by="a"), Ask(get(path, *fields), by="", gets={"age": re.compile(rb"\d+")})]


def not_kept(path: str, *fields: str) -> list[Ask]:
    """Asked for each time."""
    return [Ask(get(path, *fields), by="a"), Ask(get(path, *fields), by="a", gets={"age": None})]


CASES: Sequence[Case] = (
    Case(
        "a fresh response is served without asking",
        kept("/fresh"),
        _CACHE,
        upstreams={"a": response(200, _FRESH, body=b"hello")},
    ),
    *(
        Case(
            f"a response is not kept that {what}",
            not_kept(f"/no/{number}"),
            _CACHE,
            upstreams={"a": response(200, *fields, body=b"hello")},
        )
        for number, (what, *fields) in enumerate(
            (
                ("says no-store", "Cache-Control: no-store, max-age=60"),
                ("is private", "Cache-Control: private, max-age=60"),
                ("sets a cookie", _FRESH, "Set-Cookie: a=1"),
                ("varies by everything", _FRESH, "Vary: *"),
                ("says nothing of its life",),
            )
        )
    ),
    Case(
        "a response to a request with credentials is nobody else's",
        not_kept("/mine", "Authorization: Basic x"),
        _CACHE,
        upstreams={"a": response(200, _FRESH, body=b"hello")},
    ),
    Case(
        "responses are told apart by what they vary by",
        [*kept("/vary", "Accept-Language: de"), *kept("/vary", "Accept-Language: fr")],
        _CACHE,
        upstreams={"a": response(200, _FRESH, "Vary: Accept-Language", body=b"hello")},
    ),
    Case(
        "a conditional request is answered from the cache",
        [Ask(get("/tag"), by="a"), Ask(get("/tag", 'If-None-Match: "v1"'), 304, by="", gets={"etag": b'"v1"'})],
        _CACHE,
        upstreams={"a": response(200, _FRESH, 'ETag: "v1"', body=b"hello")},
    ),
    Case(
        "an unsafe method makes what is kept unfit",
        [*kept("/changed"), Ask(request("POST", "/changed", body=b"x"), by="a"), Ask(get("/changed"), by="a")],
        _CACHE,
        upstreams={"a": response(200, _FRESH, body=b"hello")},
    ),
)
