"""Which route takes a request."""

from collections.abc import Sequence
from typing import Any

from toska_tests.conformance.case import Case
from toska_tests.conformance.steps import Ask
from toska_tests.raw_http import get, request


def taking(name: str, to: str, **match: Any) -> dict[str, Any]:
    """A route with this match."""
    return {"name": name, "match": {"path_prefix": "/", **match}, "to": to}


def at(name: str, path: str, to: str) -> dict[str, Any]:
    """A route of exactly this path."""
    return {"name": name, "match": {"path": path}, "to": to}


_HOSTS = [
    taking("exact", "a", host="shop.test"),
    taking("wildcard", "b", host="*.test"),
    taking("longer", "c", host="*.shop.test"),
    taking("any", "d"),
]
_PATHS = [
    taking("all", "a"),
    taking("orders", "b", path_prefix="/orders"),
    taking("deep", "c", path_prefix="/orders/old"),
    at("exact", "/orders/old/1", "d"),
]

CASES: Sequence[Case] = (
    Case(
        "an exact host goes before a wildcard, a longer wildcard before a shorter, and no host comes last",
        [
            Ask(get(host="shop.test"), by="a"),
            Ask(get(host="x.test"), by="b"),
            Ask(get(host="x.shop.test"), by="c"),
            Ask(get(host="x.y.shop.test"), by="c"),
            Ask(get(host="test"), by="d"),
            Ask(get(host="other"), by="d"),
        ],
        _HOSTS,
    ),
    Case(
        "a host is matched without its port, its final dot and its case",
        [Ask(get(host=host), by="a") for host in ("SHOP.test", "shop.test:8080", "shop.test.", "Shop.Test.:81")],
        _HOSTS,
    ),
    Case(
        "an exact path goes before a prefix, and a longer prefix before a shorter",
        [
            Ask(get("/"), by="a"),
            Ask(get("/orders"), by="b"),
            Ask(get("/orders/1"), by="b"),
            Ask(get("/orders/old"), by="c"),
            Ask(get("/orders/old/2"), by="c"),
            Ask(get("/orders/old/1"), by="d"),
            Ask(get("/orders/old/1?x=1"), by="d"),
            Ask(get("/orders/old/1/"), by="c"),
        ],
        _PATHS,
    ),
    Case(
        "a prefix ends with a segment",
        [Ask(get("/ordersx"), by="a"), Ask(get("/orders/"), by="b"), Ask(get("/orders/oldx"), by="b")],
        _PATHS,
    ),
    Case(
        "paths are matched in their decoded and normal form",
        [
            Ask(get("/%6frders/1"), by="b"),
            Ask(get("/x/../orders"), by="b"),
            Ask(get("/./orders//old/"), by="c"),
            Ask(get("/orders/%6Fld/%31"), by="d"),
            Ask(get("/orders/.."), by="a"),
        ],
        _PATHS,
    ),
    Case(
        "paths that are excepted go to others",
        [
            Ask(get("/orders"), by="a"),
            Ask(get("/orders/admin"), by="b"),
            Ask(get("/orders/admin/x"), by="b"),
            Ask(get("/orders/admins"), by="a"),
        ],
        [taking("orders", "a", path_prefix="/orders", except_prefixes=["/orders/admin"]), taking("all", "b")],
    ),
    Case(
        "a regular expression takes whole paths",
        [Ask(get("/items/17"), by="a"), Ask(get("/items/x"), by="b"), Ask(get("/items/17/x"), by="b")],
        [{"name": "number", "match": {"path_regex": r"/items/\d+"}, "to": "a"}, taking("all", "b")],
    ),
    Case(
        "of two routes for one path the one with more conditions goes first",
        [
            Ask(get("/"), by="a"),
            Ask(get("/", "x-beta: 1"), by="b"),
            Ask(get("/?v=2", "x-beta: 1"), by="c"),
            Ask(request("POST", "/", body=b""), by="d"),
        ],
        [
            taking("plain", "a"),
            taking("beta", "b", headers={"x-beta": "1"}),
            taking("both", "c", headers={"x-beta": "1"}, query={"v": "2"}),
            taking("posts", "d", methods=["POST"]),
        ],
    ),
    Case(
        "of two routes with as many conditions the one that was written first goes first",
        [Ask(get("/", "x-a: 1", "x-b: 1"), by="b"), Ask(get("/", "x-a: 1"), by="a")],
        [taking("one", "b", headers={"x-b": "1"}), taking("two", "a", headers={"x-a": "1"}), taking("none", "c")],
    ),
    Case(
        "a header has to have exactly the value, whatever the case of its name",
        [
            Ask(get("/", "X-BETA: 1"), by="b"),
            Ask(get("/", "x-beta:   1  "), by="b"),
            Ask(get("/", "x-beta: 11"), by="a"),
            Ask(get("/", "x-beta:"), by="a"),
        ],
        [taking("plain", "a"), taking("beta", "b", headers={"x-beta": "1"})],
    ),
    Case(
        "a query parameter has to be among those given, decoded",
        [
            Ask(get("/?a=0&v=2&b"), by="b"),
            Ask(get("/?v=1&v=2"), by="b"),
            Ask(get("/?%76=%32"), by="b"),
            Ask(get("/?v=22"), by="a"),
            Ask(get("/?x=v=2"), by="a"),
            Ask(get("/"), by="a"),
        ],
        [taking("plain", "a"), taking("second", "b", query={"v": "2"})],
    ),
    Case(
        "a path that takes other methods says which",
        [
            Ask(get("/a"), by="a"),
            Ask(request("DELETE", "/a"), 405, error="method-not-allowed", gets={"allow": b"GET, POST"}),
            Ask(get("/b"), 404, error="no-route", gets={"allow": None}),
        ],
        [taking("a", "a", path_prefix="/a", methods=["POST", "GET"])],
    ),
    Case(
        "what no route takes is not found, and the connection stays of use",
        [
            Ask(get("/x"), 404, error="no-route"),
            Ask(get("/a"), by="a"),
            Ask(request("HEAD", "/x"), 404, error="no-route", body=b""),
            Ask(get("/a"), by="a"),
        ],
        [taking("a", "a", path_prefix="/a")],
    ),
    Case(
        "escaped slashes are kept where the route says so, and separate nothing",
        [
            Ask(get("/kept/a%2fb"), by="a", target="/kept/a%2Fb"),
            Ask(get("/kept%2Fa"), 400, error="bad-target", closes=True),
        ],
        [
            taking("kept", "a", path_prefix="/kept") | {"policies": {"escaped_slashes": "keep"}},
            taking("rest", "b"),
        ],
    ),
    Case(
        "a target in absolute form stands for its host and path",
        [Ask(get("http://shop.test/x?y", host="other"), by="a", target="/x?y", sees={"host": b"shop.test"})],
        _HOSTS,
    ),
)
