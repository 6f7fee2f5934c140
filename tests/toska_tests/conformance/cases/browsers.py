"""What browsers ask and are told: CORS, security headers, and who is let in."""

from collections.abc import Sequence

from toska_tests.conformance.case import Case, policies
from toska_tests.conformance.steps import Ask
from toska_tests.raw_http import get, request, response

_CORS = {
    "allow_origins": ["https://a.example"],
    "allow_methods": ["GET", "PUT"],
    "allow_headers": ["x-a"],
    "allow_credentials": True,
    "max_age": "10m",
}
_PREFLIGHT = "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: x-a"
_ALLOWED = {
    "access-control-allow-origin": b"https://a.example",
    "access-control-allow-credentials": b"true",
}

CASES: Sequence[Case] = (
    Case(
        "a preflight of a page that may ask is answered, and the upstream is not asked",
        [
            Ask(
                request("OPTIONS", "/", "Origin: https://a.example", *_PREFLIGHT),
                204,
                by="",
                gets={**_ALLOWED, "access-control-max-age": b"600"},
            )
        ],
        policies(cors=_CORS),
    ),
    Case(
        "a preflight of a page that may not ask allows it nothing",
        [
            Ask(
                request("OPTIONS", "/", "Origin: https://evil.example", *_PREFLIGHT),
                403,
                error="cors-denied",
                gets={"access-control-allow-origin": None, "access-control-allow-credentials": None},
            )
        ],
        policies(cors=_CORS),
    ),
    Case(
        "an answer to a page that may read it says so, whatever the upstream says",
        [
            Ask(get("/", "Origin: https://a.example"), by="a", gets=_ALLOWED),
            Ask(get("/", "Origin: https://evil.example"), by="a", gets={"access-control-allow-origin": None}),
            Ask(get(), by="a", gets={"access-control-allow-origin": None}),
        ],
        policies(cors=_CORS),
        upstreams={"a": response(200, "Access-Control-Allow-Origin: *", body=b"ok")},
    ),
    Case(
        "security headers are added where the upstream has none",
        [Ask(get(), gets={"x-content-type-options": b"nosniff", "x-frame-options": b"DENY"})],
        policies(security_headers=True),
        upstreams={"a": response(200, "X-Frame-Options: DENY", body=b"ok")},
    ),
    Case(
        "addresses that are denied are not served, whoever forwards them",
        [
            Ask(get("/", "x-forwarded-for: 10.0.0.1"), by="a"),
            Ask(get("/", "x-forwarded-for: 10.9.0.1"), 403, error="ip-denied"),
            Ask(get("/", "x-forwarded-for: 192.0.2.1"), 403, error="ip-denied"),
        ],
        policies(ip={"allow": ["10.0.0.0/8"], "deny": ["10.9.0.0/16"]}),
        server={"trusted_proxies": ["127.0.0.0/8"]},
    ),
)
