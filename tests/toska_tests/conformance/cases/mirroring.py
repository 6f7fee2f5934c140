"""Copies of requests for a shadow."""

from collections.abc import Sequence

from toska_tests.conformance.case import DEAD, Case, policies
from toska_tests.conformance.steps import Ask, Copied
from toska_tests.raw_http import get, request

_SHADOW = {"shadow": {"endpoints": ["shadow"]}}

CASES: Sequence[Case] = (
    Case(
        "a copy goes to the shadow, marked, and its answer to nobody",
        [
            Copied(get("/a?b", "x-c: d"), "a", "shadow", target="/a?b", sees={"x-c": b"d"}),
            Copied(request("POST", "/", body=b"four"), "a", "shadow", takes=b"four"),
        ],
        policies(mirror={"cluster": "shadow", "methods": ["GET", "POST"]}),
        clusters=_SHADOW,
    ),
    Case(
        "a shadow that is away is nobody's failure",
        [Ask(get(), by="a") for _ in range(3)],
        policies(mirror={"cluster": "shadow"}),
        clusters=_SHADOW,
        upstreams={"shadow": DEAD},
    ),
)
