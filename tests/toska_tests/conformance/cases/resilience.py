"""What becomes of requests when upstreams fail."""

import re
from collections.abc import Sequence

from toska_tests.conformance.case import DEAD, Case, policies
from toska_tests.conformance.steps import Ask
from toska_tests.gateways import route
from toska_tests.raw_http import Conversation, get, request, response

_AFTER = re.compile(rb"[1-9]\d*")


async def hanging_up(conversation: Conversation) -> None:
    """Read a request and close."""
    await conversation.request()


async def silent(conversation: Conversation) -> None:
    """Read requests and never answer."""
    while True:
        await conversation.request()


async def malformed(conversation: Conversation) -> None:
    """Answer with something that is no HTTP."""
    await conversation.request()
    await conversation.send(b"HTTP/1.1 banana\r\n\r\n")


_PAIR = {"a": {"endpoints": ["a", "b"], "balancer": "round_robin"}}
_BREAKER = {"failure_ratio": 0.5, "min_requests": 4, "cooldown": "60s"}

CASES: Sequence[Case] = (
    Case(
        "an upstream that refuses connections is a bad gateway",
        [Ask(get(), 502, error="upstream-connect-failed")] * 2,
        upstreams={"a": DEAD},
    ),
    Case(
        "a refused connection is tried elsewhere, whatever the method",
        [Ask(request(method, body=b"x"), by="b", takes=b"x") for method in ("POST", "PUT", "POST", "PATCH")],
        clusters=_PAIR,
        upstreams={"a": DEAD},
    ),
    Case(
        "a connection that breaks is tried elsewhere if the request may be repeated",
        [Ask(request(method, body=b"x"), gets={"x-served-by": b"b"}) for method in ("PUT", "GET", "DELETE", "PUT")],
        clusters=_PAIR,
        upstreams={"a": hanging_up},
    ),
    Case(
        "a connection that breaks under a POST is a bad gateway",
        [Ask(request("POST", body=b"x"), 502, by="a", error="upstream-reset")],
        upstreams={"a": hanging_up},
    ),
    Case(
        "an upstream that does not answer in time is a gateway timeout",
        [Ask(get(), 504, by="a", error="upstream-timeout")],
        policies(response_timeout="200ms"),
        upstreams={"a": silent},
    ),
    Case(
        "a request that takes too long as a whole is a gateway timeout",
        [Ask(get(), 504, by="a", error="upstream-timeout")],
        policies(timeout="200ms"),
        upstreams={"a": silent},
    ),
    Case(
        "an answer that is no HTTP is a bad gateway",
        [Ask(get(), 502, by="a", error="bad-upstream-response")],
        upstreams={"a": malformed},
    ),
    Case(
        "an upstream's own errors are passed on as they are",
        [Ask(get(), 503, by="a", body=b"mine", gets={"x-own": b"1"})],
        upstreams={"a": response(503, "x-own: 1", body=b"mine")},
    ),
    Case(
        "a circuit opens on failures, refuses without asking, and says when to come back",
        [
            *[Ask(get(), 500, by="a")] * 4,
            *[Ask(get(), 503, error="circuit-open", gets={"retry-after": _AFTER})] * 3,
            Ask(get("/other"), by="b"),
        ],
        [route("all", "/", "a"), route("other", "/other", "b")],
        clusters={"a": {"endpoints": ["a"], "breaker": _BREAKER}},
        upstreams={"a": response(500)},
    ),
    Case(
        "a circuit stays closed while enough goes well",
        [*[Ask(get("/well"), by="a")] * 3, *[Ask(get("/ill"), 400, by="b")] * 6],
        [route("well", "/well", "a"), route("ill", "/ill", "b")],
        clusters={
            "a": {"endpoints": ["a"], "breaker": _BREAKER},
            "b": {"endpoints": ["b"], "breaker": _BREAKER},
        },
        upstreams={"b": response(400)},
    ),
)
