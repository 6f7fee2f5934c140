"""Rate limits, and who is told what of them."""

import re
from collections.abc import Sequence

from toska_tests.conformance.case import Case, policies
from toska_tests.conformance.steps import Ask
from toska_tests.raw_http import get

_THREE = {"requests": 3, "per": "1h"}
_LEFT = re.compile(rb'"all";r=\d+;t=\d+')
_SOON = re.compile(rb"1(?:19|20)\d")
_REFUSED = {"retry-after": _SOON, "ratelimit": re.compile(rb'"all";r=0;t=1(?:19|20)\d')}


def _used_up(*fields: str) -> list[Ask]:
    return [
        *[Ask(get("/", *fields), by="a", gets={"ratelimit": _LEFT, "ratelimit-policy": b'"all";q=3;w=3600'})] * 3,
        *[Ask(get("/", *fields), 429, error="rate-limited", gets=_REFUSED)] * 2,
    ]


CASES: Sequence[Case] = (
    Case("what is over a rate limit is refused and told when to come back", _used_up(), policies(rate_limit=_THREE)),
    Case(
        "clients have an allowance each, by the address that trusted proxies tell",
        [*_used_up("x-forwarded-for: 192.0.2.1"), *_used_up("x-forwarded-for: 192.0.2.2")],
        policies(rate_limit=_THREE | {"per": "3600s"}),
        server={"trusted_proxies": ["127.0.0.0/8"]},
    ),
    Case(
        "an allowance may go by a header, and those without it share one",
        [*_used_up("x-key: a"), *_used_up("x-key: b"), *_used_up()],
        policies(rate_limit=_THREE | {"key": "header:x-key"}),
    ),
    Case(
        "an allowance may be everybody's together",
        [
            *[Ask(get("/", f"x-forwarded-for: 192.0.2.{number}"), by="a") for number in range(3)],
            Ask(get("/", "x-forwarded-for: 192.0.2.9"), 429, error="rate-limited"),
        ],
        policies(rate_limit=_THREE | {"key": "route"}),
        server={"trusted_proxies": ["127.0.0.0/8"]},
    ),
    Case(
        "a burst may be smaller than the rate",
        [
            Ask(get(), by="a", gets={"ratelimit": b'"all";r=0;t=1', "ratelimit-policy": b'"all";q=3600;w=3600'}),
            Ask(get(), 429, error="rate-limited", gets={"retry-after": b"1"}),
        ],
        policies(rate_limit={"requests": 3600, "per": "1h", "burst": 1, "key": "route"}),
    ),
    Case(
        "of several limits all have to allow a request, and a refused one takes from none",
        [
            *[Ask(get("/", "x-user: a"), by="a")] * 2,
            *[Ask(get("/", "x-user: a"), 429, error="rate-limited")] * 4,
            *[Ask(get("/", "x-user: b"), by="a")] * 2,
            Ask(get("/", "x-user: c"), 429, error="rate-limited"),
        ],
        policies(
            rate_limit=[
                {"requests": 4, "per": "1h", "key": "route"},
                {"requests": 2, "per": "2h", "key": "header:x-user"},
            ]
        ),
    ),
)
