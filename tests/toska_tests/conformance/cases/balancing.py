"""Who takes the next request."""

from collections.abc import Callable, Sequence
from typing import Any

from toska_tests.conformance.case import DEAD, Case
from toska_tests.conformance.steps import Alike, ComeBack, Spread
from toska_tests.gateways import route
from toska_tests.raw_http import get

_ABC = ["a", "b", "c"]
_SPLIT = [{"cluster": "a", "weight": 4}, {"cluster": "b", "weight": 1}, {"cluster": "c", "weight": 0}]


def _with_field(template: str) -> Callable[[int], bytes]:
    return lambda number: get("/", template.format(number))


def _with_target(template: str) -> Callable[[int], bytes]:
    return lambda number: get(template.format(number))


_KEYS: tuple[tuple[str, dict[str, Any], Callable[[int], bytes]], ...] = (
    ("a header", {"header": "x-user"}, _with_field("x-user: {}")),
    ("a cookie", {"cookie": "sid"}, _with_field("cookie: x=1; sid=s{}")),
    ("the query", {"query": "user"}, _with_target("/?x=1&user=u{}")),
    ("the path", {"path": True}, _with_target("/items/{}")),
)

CASES: Sequence[Case] = (
    Case(
        "a split shares requests by weight, and a weight of 0 gets none",
        [Spread(get(), 400, {"a": (270, 370), "b": (30, 130)})],
        [route("all", "/", _SPLIT)],
    ),
    Case(
        "in turn every endpoint gets its share exactly",
        [Spread(get(), 40, {"a": (30, 30), "b": (10, 10)})],
        clusters={"a": {"endpoints": [{"upstream": "a", "weight": 3}, "b"], "balancer": "round_robin"}},
    ),
    *(
        Case(
            f"without load {balancer} spreads requests over all endpoints",
            [Spread(get(), 300, dict.fromkeys(_ABC, (60, 145)))],
            clusters={"a": {"endpoints": _ABC, "balancer": balancer}},
        )
        for balancer in ("random", "least_request")
    ),
    *(
        Case(
            f"{balancer} goes by {name}",
            [Alike(group)],
            clusters={"a": {"endpoints": _ABC, "balancer": balancer, "hash_key": key}},
        )
        for balancer in ("ring_hash", "maglev")
        for name, key, group in _KEYS
    ),
    Case(
        "requests of one address go to one endpoint",
        [Alike(_with_field("x-forwarded-for: 192.0.2.{}"))],
        clusters={"a": {"endpoints": _ABC, "balancer": "ip_hash"}},
        server={"trusted_proxies": ["127.0.0.0/8"]},
    ),
    Case(
        "a client with an affinity cookie comes back to its endpoint",
        [ComeBack(get(), b"home"), ComeBack(get(), b"home")],
        clusters={"a": {"endpoints": _ABC, "balancer": "round_robin", "affinity": {"cookie": "home"}}},
    ),
    Case(
        "an endpoint that refuses connections is left out",
        [Spread(get(), 60, {"a": (15, 45), "c": (15, 45)})],
        clusters={"a": {"endpoints": _ABC, "balancer": "round_robin"}},
        upstreams={"b": DEAD},
    ),
)
