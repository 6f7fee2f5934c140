"""Other paths and hosts for the upstream."""

from collections.abc import Sequence

from toska_tests.conformance.case import Case, policies
from toska_tests.conformance.steps import Ask
from toska_tests.gateways import route
from toska_tests.raw_http import get

CASES: Sequence[Case] = (
    Case(
        "a prefix is rewritten by segment",
        [
            Ask(get("/v1/items?x=/v1"), target="/v2/items?x=/v1"),
            Ask(get("/v1"), target="/v2"),
            Ask(get("/v1/v1"), target="/v2/v1"),
        ],
        [route("v1", "/v1", "a", policies={"rewrite": {"prefix": "/v2"}})],
    ),
    Case(
        "a path is rewritten by a regular expression and what it captured",
        [
            Ask(get("/users/7/orders?a=1"), target="/orders/of/7?a=1"),
            Ask(get("/users/x/orders"), target="/users/x/orders"),
        ],
        policies(rewrite={"regex": r"/users/(\d+)/orders", "replacement": r"/orders/of/\1"}),
    ),
    Case(
        "a host is rewritten, and the client's is told beside it",
        [Ask(get(host="shop.test"), sees={"host": b"inner.test", "x-forwarded-host": b"shop.test"})],
        policies(rewrite={"host": "inner.test"}),
    ),
)
