"""Versions of an API beside each other, and faults on purpose."""

import re
from collections.abc import Sequence

from toska_tests.conformance.case import Case, policies
from toska_tests.conformance.steps import Ask
from toska_tests.gateways import route
from toska_tests.raw_http import get

_KNOWN = {
    "1": {"deprecated": "2024-01-01", "sunset": "2030-01-01", "successor": "/v2"},
    "2": {"cluster": "b"},
}

CASES: Sequence[Case] = (
    Case(
        "a version is served by its own cluster, whichever way it is named",
        [
            Ask(get("/api", "x-api-version: 2"), by="b", sees={"x-api-version": b"2"}),
            Ask(get("/api", "accept: application/vnd.shop.v2+json"), by="b"),
            Ask(get("/api?api-version=2"), by="b"),
            Ask(get("/api"), by="a", sees={"x-api-version": b"1"}),
        ],
        [
            route(
                "api",
                "/api",
                "a",
                policies={"versions": {"by": ["header", "media_type", "query"], "known": _KNOWN, "default": "1"}},
            ),
            route("other", "/never", "b"),
        ],
    ),
    Case(
        "a version that ends says so",
        [
            Ask(
                get("/api", "x-api-version: 1"),
                by="a",
                gets={
                    "deprecation": b"@1704067200",
                    "sunset": b"Tue, 01 Jan 2030 00:00:00 GMT",
                    "link": re.compile(rb'</v2>; ?rel="?successor-version"?'),
                },
            )
        ],
        policies(versions={"by": ["header"], "known": {"1": _KNOWN["1"]}}),
    ),
    Case(
        "faults are put in where they are asked for",
        [Ask(get("/", "x-chaos: 1"), 503, error="fault-injected"), Ask(get("/"), by="a")],
        policies(fault={"abort": {"status": 503}, "headers": {"x-chaos": "1"}}),
    ),
)
