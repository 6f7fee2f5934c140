"""Finding the route of a request: always what trying all routes in order would find."""

import json
import re
import time
from collections.abc import Callable
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toska_common.contracts.routing import Match, WeightedCluster
from toska_common.contracts.routing import Route as RouteWords
from toska_common.routing.document import load_document
from toska_common.routing.snapshot import build_snapshot, build_table
from toska_gateway.wire import Known, messages, plain
from toska_gateway.worker.explaining import reasons_against
from toska_gateway.worker.forwarding import Forwarding
from toska_gateway.worker.http1 import RequestHead, read_request
from toska_gateway.worker.route import Route
from toska_gateway.worker.table import RoutingTable, bare_host
from toska_tests.gateways import idle_plane

HOSTS = [None, "a.test", "b.a.test", "*.test", "*.a.test"]
REGEXES = ["/a.?", "/a/.*", "/a/b|/b", "/a(/b)?/c/?", ".*", "/[ab]", "/(?:a/)+.", "/a"]
TEMPLATES = ["/{x}", "/a/{x}", "/{y}/b", "/a/{x}/c", "/{x}/{y}", "/a/{rest=**}", "/{rest=**}", "/a/b/{x}/{rest=**}"]
PATHS = ["/", "/a", "/a/b", "/a/b/c", "/b", "/ab"]
VALUES: list[str | dict[str, Any]] = [
    "1", "2", "12", {"prefix": "1"}, {"suffix": "2"}, {"contains": "1"}, {"regex": "[12]+"}, {"present": True},
    {"present": False}, {"exact": "1", "invert": True}, {"regex": "1.*", "invert": True},
]  # fmt: skip
NETWORKS = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "2001:db8::/32", "unix:"]
CLIENTS = ["10.1.2.3", "10.2.0.1", "127.0.0.1", "2001:db8::1", "unix"]


def compiled(document: dict[str, Any]) -> tuple[RoutingTable, list[dict[str, Any]]]:
    """The table of a document as a worker builds it, and its routes in order of precedence."""
    snapshot = build_snapshot(build_table(load_document(json.dumps(document), source="test")))
    routes = [route for message in messages(Known(), snapshot, frozenset()) for route in message.get("routes", ())]
    table = RoutingTable()
    plane = idle_plane()
    for route in routes:
        table.add(route, plane)
    return table, routes


@cache
def connection_from(client: str) -> Forwarding:
    """As much of a client's connection as a look-up needs."""
    return Forwarding(idle_plane(), client, b"http")


def find(table: RoutingTable, request: RequestHead) -> Route | None:
    """The route of a request that came from this machine."""
    return table.find(request, connection_from("127.0.0.1"))


def head(target: str = "/", method: str = "GET", host: str = "a.test", fields: list[str] | None = None) -> RequestHead:
    """A request's head."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(fields or []), "", ""]
    return read_request("\r\n".join(lines).encode(), 100, 8192)


def takes(route: dict[str, Any], request: RequestHead, client: str = "127.0.0.1") -> bool:
    """What a route's match means, in so many words."""
    match = route["match"]
    return (
        takes_host(match.get("host"), bare_host(request.host).decode())
        and takes_path(match, request.path.decode())
        and not any(below(request.path.decode(), prefix) for prefix in match.get("except_prefixes", ()))
        and (not match.get("methods") or request.method.decode() in match["methods"])
        and all(fits(v, request.field(k.encode())) for k, v in match.get("headers", {}).items())
        and all(fits(v, cookie(request, k)) for k, v in match.get("cookies", {}).items())
        and all(fits_one(v, parameters(request, k)) for k, v in match.get("query", {}).items())
        and (not match.get("client_ip") or any(is_in(client, one) for one in match["client_ip"]))
    )


def takes_host(wanted: str | None, host: str) -> bool:
    """Whether a host is that of a match."""
    if wanted is not None and wanted.startswith("*."):
        return host.endswith(wanted[1:]) and host != wanted[1:]
    return wanted is None or host == wanted


def takes_path(match: dict[str, Any], path: str) -> bool:
    """Whether a path is that of a match."""
    if match.get("path") is not None:
        return path == match["path"]
    if match.get("path_template") is not None:
        pattern = re.sub(r"\{[a-z]+\}", "[^/]+", match["path_template"])
        return re.fullmatch(re.sub(r"\{[a-z]+=\*\*\}", ".*", pattern), path) is not None
    if match.get("path_regex") is not None:
        return re.fullmatch(match["path_regex"], path) is not None
    return below(path, match["path_prefix"])


def fits(wanted: Any, value: bytes | None) -> bool:
    """Whether a value is what a match wants."""
    return fits_one(wanted, [] if value is None else [value.decode()])


def fits_one(wanted: Any, values: list[str]) -> bool:
    """Whether one of several is."""
    if isinstance(wanted, str):
        return wanted in values
    if wanted.get("present") is not None:
        return bool(values) is wanted["present"]
    tests: dict[str, Callable[[str, str], bool]] = {
        "exact": str.__eq__,
        "prefix": str.startswith,
        "suffix": str.endswith,
        "contains": str.__contains__,
        "regex": lambda value, pattern: re.fullmatch(pattern, value) is not None,
    }
    held = any(test(value, wanted[kind]) for kind, test in tests.items() if wanted.get(kind) for value in values)
    return held is not wanted.get("invert", False)


def cookie(request: RequestHead, name: str) -> bytes | None:
    """The first cookie of a name."""
    pairs = (request.field(b"cookie") or b"").decode().split("; ")
    return next((pair.partition("=")[2].encode() for pair in pairs if pair.startswith(name + "=")), None)


def parameters(request: RequestHead, name: str) -> list[str]:
    """The parameters of a name."""
    return [pair.partition("=")[2] for pair in request.query[1:].decode().split("&") if pair.startswith(name + "=")]


def is_in(client: str, network: str) -> bool:
    """Whether a client is in a network."""
    if "unix" in (client, network.rstrip(":")):
        return client == network.rstrip(":")
    return ip_address(client) in ip_network(network)


def below(path: str, prefix: str) -> bool:
    """Whether a path is the prefix or lies below it, by segment."""
    stem = prefix.rstrip("/")
    return path == stem or path.startswith(stem + "/")


def optional(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A dictionary with any of the keys."""
    return st.fixed_dictionaries({}, optional=values)


def with_path(conditions: dict[str, Any], path: str, kind: str) -> dict[str, Any]:
    """A match with its path."""
    return {**conditions, kind: path}


PREFIX = st.sampled_from(PATHS)
VALUE = st.sampled_from(VALUES)
CONDITIONS = optional(
    host=st.sampled_from([host for host in HOSTS if host]),
    methods=st.lists(st.sampled_from(["GET", "POST", "PUT"]), min_size=1, unique=True),
    headers=st.fixed_dictionaries({}, optional={"x-a": VALUE, "x-b": VALUE}),
    query=st.fixed_dictionaries({}, optional={"v": VALUE, "u": st.just("1")}),
    cookies=st.fixed_dictionaries({}, optional={"c": VALUE, "d": st.just("1")}),
    client_ip=st.lists(st.sampled_from(NETWORKS), min_size=1, max_size=2, unique=True),
)
MATCH: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(with_path, CONDITIONS, PREFIX, st.just("path")),
    st.builds(with_path, CONDITIONS, PREFIX, st.just("path_prefix")),
    st.builds(with_path, CONDITIONS, st.sampled_from(REGEXES), st.just("path_regex")),
    st.builds(with_path, CONDITIONS, st.sampled_from(TEMPLATES), st.just("path_template")),
    # Many of one place, so that they are told apart by what they want besides.
    st.builds(with_path, CONDITIONS, st.just("/a"), st.just("path_prefix")),
)
REQUEST = st.builds(
    head,
    target=st.tuples(
        st.sampled_from([*PATHS, "/a/c", "/a/b/c/d", "/x"]),
        st.sampled_from(["", "/"]),
        st.sampled_from(["", "?v=1", "?v=2&v=1", "?u=1"]),
    ).map("".join),
    method=st.sampled_from(["GET", "POST", "HEAD"]),
    host=st.sampled_from(["a.test", "A.test:80", "b.a.test.", "c.b.a.test", "test", "x.test", "other"]),
    fields=st.lists(
        st.sampled_from(["x-a: 1", "X-A: 2", "x-b: 1", "X-B: 12", "Cookie: c=1; d=1", "cookie: c=12"]),
        max_size=3,
        unique_by=lambda field: field[:3].lower(),
    ),
)


@settings(max_examples=150, deadline=None)
@given(
    matches=st.lists(MATCH, max_size=24),
    requests=st.lists(st.tuples(REQUEST, st.sampled_from(CLIENTS)), min_size=1, max_size=5),
)
def test_the_route_found_is_the_first_in_order_that_takes_the_request(
    matches: list[dict[str, Any]], requests: list[tuple[RequestHead, str]]
) -> None:
    unique = {json.dumps(match, sort_keys=True): match for match in matches}
    kept: list[dict[str, Any]] = []
    for match in unique.values():
        # Two routes that take the same requests are refused when a document is read; a set of methods has no order.
        if not any(same(match, other) for other in kept):
            kept.append(match)
    document = {
        "clusters": {"app": {"endpoints": [{"address": "127.0.0.1", "port": 1}]}},
        "routes": [{"name": f"r{i}", "match": match, "to": "app", "priority": i % 3} for i, match in enumerate(kept)],
    }
    table, routes = compiled(document)
    for request, client in requests:
        connection = connection_from(client)
        expected = next((route["name"] for route in routes if takes(route, request, client)), None)
        found = table.find(request, connection)
        assert (None if found is None else found.name) == expected
        # What is told of a request is what becomes of it.
        unopposed = next((route for route in table.routes if not reasons_against(route, request, connection)), None)
        assert unopposed is found
        if found is None:
            others = [route for route in routes if takes({"match": {**route["match"], "methods": []}}, request, client)]
            allowed = {method.encode() for route in others for method in route["match"]["methods"]}
            assert table.allowed_methods(request, connection) == sorted(allowed)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two matches are the same."""

    def normal(match: dict[str, Any]) -> dict[str, Any]:
        lists = ("methods", "client_ip")
        return {key: sorted(value) if key in lists else anonymous(key, value) for key, value in match.items() if value}

    def anonymous(key: str, value: Any) -> Any:
        return re.sub(r"\{[a-z]+", "{", value) if key == "path_template" else value

    return normal(one) == normal(other)


def one_route(match: dict[str, Any], **more: Any) -> tuple[RoutingTable, Route]:
    """A table of one route."""
    route = {"name": "one", "match": match, "to": "app", **more}
    document = {"clusters": {"app": {"endpoints": [{"address": "127.0.0.1", "port": 1}]}}, "routes": [route]}
    table, _ = compiled(document)
    found = find(table, head("/a?v=1", fields=["x-a: 1"]))
    assert found is not None
    return table, found


@pytest.mark.parametrize(
    ("query", "taken"),
    [
        ("?v=caf%C3%A9", True),
        ("?u=%C3%A9&v=caf%c3%a9", True),
        ("?v=caf%E9", False),
        ("?v=caf%", False),
        ("?v", False),
        ("?%C3%A9", False),
        ("", False),
    ],
)
def test_a_query_is_compared_decoded_whatever_it_holds(query: str, taken: bool) -> None:
    document = {
        "clusters": {"app": {"endpoints": [{"address": "127.0.0.1", "port": 1}]}},
        "routes": [{"name": "one", "match": {"path_prefix": "/", "query": {"v": "café"}}, "to": "app"}],
    }
    table, _ = compiled(document)
    assert (find(table, head("/" + query)) is not None) is taken


def test_prefixes_are_matched_by_segment_and_stripped_without_their_slash() -> None:
    table, route = one_route({"path_prefix": "/a/"}, strip_prefix=True)
    assert find(table, head("/a")) is route
    assert find(table, head("/a/b")) is route
    assert find(table, head("/ab")) is None
    assert route.strip == 2


def test_splits_share_requests_by_weight_and_leave_out_a_weight_of_0() -> None:
    clusters = {name: {"endpoints": [{"address": "127.0.0.1", "port": 1}]} for name in ("a", "b", "c")}
    to = [{"cluster": "a", "weight": 90}, {"cluster": "b", "weight": 10}, {"cluster": "c", "weight": 0}]
    table, _ = compiled({"clusters": clusters, "routes": [{"name": "s", "match": {"path_prefix": "/"}, "to": to}]})
    route = find(table, head("/"))
    assert route is not None
    assert route.split is not None
    chosen = [route.split.draw() for _ in range(10_000)]
    assert 8_700 < chosen.count("a") < 9_300  # ten standard deviations
    assert chosen.count("c") == 0


def test_a_path_of_many_segments_is_looked_up_at_the_cost_of_the_longest_prefix() -> None:
    document = {
        "clusters": {"app": {"endpoints": [{"address": "127.0.0.1", "port": 1}]}},
        "routes": [{"name": f"r{i}", "match": {"path_prefix": f"/{i}/x"}, "to": "app"} for i in range(500)],
    }
    table, _ = compiled(document)
    deep, flat = head("/a" * 4000), head("/" + "a" * 8000)

    def cost(request: RequestHead) -> float:
        started = time.process_time()
        for _ in range(20):
            assert find(table, request) is None
        return time.process_time() - started

    assert min(cost(deep) for _ in range(3)) < 20 * 0.0005
    assert min(cost(flat) for _ in range(3)) < 20 * 0.0005


def test_a_table_of_500_routes_is_searched_as_fast_as_one_of_5() -> None:
    def table_of(count: int) -> RoutingTable:
        document = {
            "clusters": {"app": {"endpoints": [{"address": "127.0.0.1", "port": 1}]}},
            "routes": [{"name": f"r{i}", "match": {"path_prefix": f"/s{i}"}, "to": "app"} for i in range(count)],
        }
        return compiled(document)[0]

    def cost(table: RoutingTable) -> float:
        started = time.process_time()
        for _ in range(2000):
            assert find(table, request) is not None
        return time.process_time() - started

    request = head("/s4/orders/1")
    small, large = table_of(5), table_of(500)
    assert min(cost(large) for _ in range(5)) < 3 * min(cost(small) for _ in range(5))


def test_expressions_cost_only_paths_that_begin_as_theirs_do() -> None:
    document = {
        "clusters": {"app": {"endpoints": [{"address": "127.0.0.1", "port": 1}]}},
        "routes": [
            {"name": "plain", "match": {"path_prefix": "/plain"}, "to": "app"},
            *({"name": f"r{i}", "match": {"path_regex": rf"/s{i}/\d+"}, "to": "app"} for i in range(500)),
        ],
    }
    table, _ = compiled(document)

    def cost(target: str) -> float:
        request = head(target)
        started = time.process_time()
        for _ in range(500):
            assert find(table, request) is not None
        return time.process_time() - started

    assert min(cost("/plain/1") for _ in range(5)) < 500 * 0.00002
    assert min(cost("/s4/1") for _ in range(5)) < 500 * 0.00004


WANTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "header": lambda n: {"headers": {"x-all": "1", "x-tenant": f"t{n}"}},
    "one of many headers": lambda n: {"headers": {f"x-tenant-{n}": "1"}},
    "cookie": lambda n: {"cookies": {"tenant": f"t{n}"}},
    "query": lambda n: {"query": {"tenant": f"t{n}"}},
    "client": lambda n: {"client_ip": [f"10.{n >> 8}.{n & 255}.0/24"]},
    "template": lambda n: {"path_prefix": None, "path_template": f"/a/{{x}}/t{n}"},
    "expression": lambda n: {"path_prefix": None, "path_regex": f"/a/t{n}-.+"},
}


@pytest.mark.parametrize("wants", WANTS)
def test_routes_of_one_place_are_told_apart_in_the_same_time_however_many_they_are(wants: str) -> None:
    def table_of(count: int) -> RoutingTable:
        to = (WeightedCluster(cluster="app"),)
        matches = [
            Match.model_validate({"path_prefix": "/a", **WANTS[wants](n), "methods": ("GET",)}) for n in range(count)
        ]
        table, plane = RoutingTable(), idle_plane()
        for number, match in enumerate(matches):
            table.add(plain(RouteWords(name=f"r{number}", match=match, to=to).model_dump()), plane)
        return table

    fields = ["x-tenant: t4", "x-all: 1", "x-tenant-4: 1", "cookie: tenant=t4"]
    target = {"template": "/a/b/t4", "expression": "/a/t4-b"}.get(wants, "/a/b") + "?tenant=t4"
    taken, refused = head(target, fields=fields), head(target, "POST", fields=fields)
    caller = connection_from("10.0.4.7")

    def cost(table: RoutingTable) -> float:
        started = time.process_time()
        for _ in range(300):
            found = table.find(taken, caller)
            assert found is not None
            assert found.name == "r4"
            assert table.find(refused, caller) is None
            assert table.allowed_methods(refused, caller) == [b"GET"]
        return time.process_time() - started

    # A hundred times as many; a busy machine alone makes the difference of two or three.
    small, large = table_of(20), table_of(2_000)
    assert min(cost(large) for _ in range(5)) < 10 * min(cost(small) for _ in range(5))
