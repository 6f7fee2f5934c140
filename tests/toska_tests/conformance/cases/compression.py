"""Responses that become smaller on their way."""

import re
from collections.abc import Sequence

from toska_tests.conformance.case import Case, policies
from toska_tests.conformance.steps import Ask
from toska_tests.raw_http import get, response

_TEXT = b"the same words again and again, and now and then other ones. " * 100
_HTML = "Content-Type: text/html"
_ON = policies(compress={})


def untouched(what: str, send: bytes, *fields: str, body: bytes = _TEXT) -> Case:
    """A response that passes as it is."""
    return Case(
        f"a response is not compressed {what}",
        [Ask(send, by="a", body=body)],
        _ON,
        upstreams={"a": response(200, *fields, body=body)},
    )


CASES: Sequence[Case] = (
    *(
        Case(
            f"a client that takes {coding} gets it",
            [
                Ask(
                    get("/", f"Accept-Encoding: {coding}"),
                    decoded=_TEXT,
                    gets={
                        "content-encoding": coding.encode(),
                        "vary": re.compile(rb"(?i)accept-encoding"),
                        "etag": b'W/"v1"',
                    },
                )
            ],
            _ON,
            upstreams={"a": response(200, _HTML, 'ETag: "v1"', body=_TEXT)},
        )
        for coding in ("br", "zstd", "gzip")
    ),
    untouched("for a client that takes no coding", get(), _HTML),
    untouched("that must not be transformed", get("/", "Accept-Encoding: br"), _HTML, "Cache-Control: no-transform"),
    untouched("that is compressed already", get("/", "Accept-Encoding: br"), _HTML, "Content-Encoding: gzip"),
    untouched("of a kind that would not get smaller", get("/", "Accept-Encoding: br"), "Content-Type: image/png"),
    untouched("that is small", get("/", "Accept-Encoding: br"), _HTML, body=b"little"),
)
