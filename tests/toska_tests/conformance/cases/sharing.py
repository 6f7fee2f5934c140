"""Who gets which part of a split and keeps it, and which cluster takes over from another."""

from collections.abc import Sequence
from typing import Any

from toska_tests.conformance.case import DEAD, Case
from toska_tests.conformance.steps import Alike, ComeBack, Eventually
from toska_tests.gateways import route
from toska_tests.raw_http import get


def split(**sticky: Any) -> tuple[dict[str, Any]]:
    """A route to two clusters alike, whose callers stay with theirs."""
    return (route("shop", to=[{"cluster": "a"}, {"cluster": "b"}], sticky=sticky),)


CASES: Sequence[Case] = (
    Case("callers stay with their part of a split by a header", [Alike(lambda user: get("/", f"X-User: {user}"))],
         split(header="x-user")),
    Case("callers stay with their part of a split by a cookie of the application's",
         [Alike(lambda user: get("/", f"Cookie: a=1; sid={user}"))], split(cookie="sid")),
    Case("callers stay with their part of a split by their address",
         [Alike(lambda user: get("/", f"X-Forwarded-For: 192.0.2.{user}"))], split(client_ip=True),
         server={"trusted_proxies": ["127.0.0.1/32"]}),
    Case("a cookie that is set keeps a browser with its part of a split", [ComeBack(get("/"), b"part")],
         split(set_cookie="part")),
    Case(
        "another cluster takes over from one whose endpoints cannot be reached",
        [Eventually(get("/"), by="b")],
        [route("shop", to="a")],
        {"a": {"endpoints": ["a"], "failover": {"to": "b"}}, "b": {"endpoints": ["b"]}},
        {"a": DEAD},
    ),
)  # fmt: skip
