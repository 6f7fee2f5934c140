"""Further attempts, and answers from elsewhere."""

import asyncio
from collections.abc import Sequence

from toska_tests.conformance.case import DEAD, Case, policies
from toska_tests.conformance.steps import Ask, Eventually
from toska_tests.gateways import route
from toska_tests.raw_http import Conversation, get, request, response

_TURNS = {"a": {"endpoints": ["a", "b"], "balancer": "round_robin"}}
_BUSY = response(503, body=b"busy")


async def ill(conversation: Conversation) -> None:
    """Answer requests, and fail health checks."""
    while True:
        message = await conversation.request()
        well = not message.target.startswith("/health")
        await conversation.send(response(200 if well else 500, "x-served-by: a", body=b"ok"))


async def slow(conversation: Conversation) -> None:
    """Take a second for each answer."""
    while True:
        await conversation.request()
        await asyncio.sleep(1)
        await conversation.send(response(200, "x-served-by: a", body=b"late"))


CASES: Sequence[Case] = (
    Case(
        "an endpoint that fails its health check is left out",
        [Eventually(get("/x"), by="b")],
        clusters={
            "a": {
                "endpoints": ["a", "b"],
                "balancer": "round_robin",
                "health_check": {"path": "/health", "interval": "500ms", "timeout": "500ms", "rise": 1, "fall": 1},
            }
        },
        upstreams={"a": ill},
    ),
    Case(
        "an endpoint that answers with failures in a row is left out",
        [Eventually(get(), by="b")],
        clusters={
            "a": {
                "endpoints": ["a", "b"],
                "balancer": "round_robin",
                "outlier": {"consecutive_5xx": 2, "base_ejection": "60s"},
            }
        },
        upstreams={"a": response(500)},
    ),
    Case(
        "a status that is to be retried is tried elsewhere",
        [Ask(request(method), gets={"x-served-by": b"b"}) for method in ("GET", "GET", "PUT", "DELETE", "GET")],
        policies(retry={"attempts": 2, "retry_on": ["503"]}),
        clusters=_TURNS,
        upstreams={"a": _BUSY},
    ),
    Case(
        "a status is not retried where nobody said so, and the last answer is passed on",
        [Ask(get(), 503, by="a", body=b"busy")],
        policies(retry={"attempts": 3, "retry_on": ["502"]}),
        upstreams={"a": _BUSY},
    ),
    Case(
        "attempts are bounded, and the last answer is passed on",
        [Ask(get(), 503, by="a", seen=3, body=b"busy")],
        policies(retry={"attempts": 3, "retry_on": ["503"], "backoff": {"base": "1ms", "max": "2ms"}}),
        upstreams={"a": _BUSY},
    ),
    Case(
        "a POST is not sent twice",
        [Ask(request("POST", body=b"x"), 503, by="a")],
        policies(retry={"attempts": 3, "retry_on": ["503"]}),
        upstreams={"a": _BUSY},
    ),
    Case(
        "a try that takes too long is followed by another",
        [Ask(get(), gets={"x-served-by": b"b"})] * 4,
        policies(retry={"attempts": 2, "retry_on": ["timeout"], "per_try_timeout": "200ms"}),
        clusters=_TURNS,
        upstreams={"a": slow},
    ),
    Case(
        "a hedge answers for a slow first attempt",
        [Ask(get(), gets={"x-served-by": b"b"})] * 4,
        policies(hedge={"after": "50ms"}),
        clusters=_TURNS,
        upstreams={"a": slow},
    ),
    Case(
        "a fallback cluster answers for one that cannot be reached",
        [Ask(get("/x?y"), by="b", target="/x?y"), Ask(request("POST", body=b"x"), by="b", takes=b"x")],
        [
            route("all", "/", "a", policies={"fallback": {"cluster": "b"}}),
            route("other", "/never", "b"),
        ],
        upstreams={"a": DEAD},
    ),
    Case(
        "a fallback may be a fixed answer",
        [Ask(get(), body=b"later", gets={"content-type": b"text/plain"})],
        policies(fallback={"respond": {"body": "later", "content_type": "text/plain"}}),
        upstreams={"a": DEAD},
    ),
)
