"""Finding the route of a request: always what trying all routes in order would find."""

import asyncio
import json
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toska_common.routing.document import load_document
from toska_common.routing.snapshot import build_snapshot, build_table
from toska_common.targets import TargetRules
from toska_gateway.wire import Known, messages
from toska_gateway.worker.explaining import reasons_against
from toska_gateway.worker.http1 import RequestHead, read_request
from toska_gateway.worker.plane import Plane
from toska_gateway.worker.table import Route, RoutingTable, bare_host

HOSTS = [None, "a.test", "b.a.test", "*.test", "*.a.test"]
REGEXES = ["/a.?", "/a/.*", "/a/b|/b", "/a(/b)?/c/?", ".*", "/[ab]", "/(?:a/)+.", "/a"]
PATHS = ["/", "/a", "/a/b", "/a/b/c", "/b", "/ab"]


def compiled(document: dict[str, Any]) -> tuple[RoutingTable, list[dict[str, Any]]]:
    """The table of a document as a worker builds it, and its routes in order of precedence."""
    snapshot = build_snapshot(build_table(load_document(json.dumps(document), source="test")))
    routes = [route for message in messages(Known(), snapshot, frozenset()) for route in message.get("routes", ())]
    table = RoutingTable()
    loop = asyncio.new_event_loop()
    plane = Plane(loop, TargetRules())
    loop.close()
    for route in routes:
        table.add(route, plane)
    return table, routes


def head(target: str = "/", method: str = "GET", host: str = "a.test", fields: list[str] | None = None) -> RequestHead:
    """A request's head."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(fields or []), "", ""]
    return read_request("\r\n".join(lines).encode(), 100, 8192)


def takes(route: dict[str, Any], request: RequestHead) -> bool:
    """What a route's match means, in so many words."""
    match = route["match"]
    host = bare_host(request.host).decode()
    wanted = match.get("host")
    if wanted is not None and wanted.startswith("*."):
        if not host.endswith(wanted[1:]) or host == wanted[1:]:
            return False
    elif wanted is not None and host != wanted:
        return False
    path = request.path.decode()
    if match.get("path") is not None:
        if path != match["path"]:
            return False
    elif match.get("path_regex") is not None:
        if not re.fullmatch(match["path_regex"], path):
            return False
    elif not below(path, match["path_prefix"]):
        return False
    if any(below(path, prefix) for prefix in match.get("except_prefixes", ())):
        return False
    if match.get("methods") and request.method.decode() not in match["methods"]:
        return False
    if any(request.field(k.encode()) != v.encode() for k, v in match.get("headers", {}).items()):
        return False
    pairs = request.query[1:].decode().split("&")
    return all(f"{key}={value}" in pairs for key, value in match.get("query", {}).items())


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
CONDITIONS = optional(
    host=st.sampled_from([host for host in HOSTS if host]),
    methods=st.lists(st.sampled_from(["GET", "POST", "PUT"]), min_size=1, unique=True),
    headers=st.fixed_dictionaries({}, optional={"x-a": st.sampled_from(["1", "2"]), "x-b": st.just("1")}),
    query=st.fixed_dictionaries({}, optional={"v": st.sampled_from(["1", "2"])}),
)
MATCH: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(with_path, CONDITIONS, PREFIX, st.just("path")),
    st.builds(with_path, CONDITIONS, PREFIX, st.just("path_prefix")),
    st.builds(with_path, CONDITIONS, st.sampled_from(REGEXES), st.just("path_regex")),
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
    fields=st.lists(st.sampled_from(["x-a: 1", "X-A: 2", "x-b: 1"]), max_size=2),
)


@settings(max_examples=150, deadline=None)
@given(matches=st.lists(MATCH, max_size=12), requests=st.lists(REQUEST, min_size=1, max_size=5))
def test_the_route_found_is_the_first_in_order_that_takes_the_request(
    matches: list[dict[str, Any]], requests: list[RequestHead]
) -> None:
    unique = {json.dumps(match, sort_keys=True): match for match in matches}
    kept: list[dict[str, Any]] = []
    for match in unique.values():
        # Two routes that take the same requests are refused when a document is read; a set of methods has no order.
        if not any(same(match, other) for other in kept):
            kept.append(match)
    document = {
        "clusters": {"app": {"endpoints": [{"address": "127.0.0.1", "port": 1}]}},
        "routes": [{"name": f"r{i}", "match": match, "to": "app"} for i, match in enumerate(kept)],
    }
    table, routes = compiled(document)
    for request in requests:
        expected = next((route["name"] for route in routes if takes(route, request)), None)
        found = table.find(request)
        assert (None if found is None else found.name) == expected
        # What is told of a request is what becomes of it.
        unopposed = next((route for route in table.routes if not reasons_against(route, request)), None)
        assert unopposed is found
        if found is None:
            others = [route for route in routes if takes({"match": {**route["match"], "methods": []}}, request)]
            allowed = {method.encode() for route in others for method in route["match"]["methods"]}
            assert table.allowed_methods(request) == sorted(allowed)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two matches are the same."""

    def normal(match: dict[str, Any]) -> dict[str, Any]:
        return {key: sorted(value) if key == "methods" else value for key, value in match.items() if value}

    return normal(one) == normal(other)


def one_route(match: dict[str, Any], **more: Any) -> tuple[RoutingTable, Route]:
    """A table of one route."""
    route = {"name": "one", "match": match, "to": "app", **more}
    document = {"clusters": {"app": {"endpoints": [{"address": "127.0.0.1", "port": 1}]}}, "routes": [route]}
    table, _ = compiled(document)
    found = table.find(head("/a?v=1", fields=["x-a: 1"]))
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
    assert (table.find(head("/" + query)) is not None) is taken


def test_prefixes_are_matched_by_segment_and_stripped_without_their_slash() -> None:
    table, route = one_route({"path_prefix": "/a/"}, strip_prefix=True)
    assert table.find(head("/a")) is route
    assert table.find(head("/a/b")) is route
    assert table.find(head("/ab")) is None
    assert route.strip == 2


def test_splits_share_requests_by_weight_and_leave_out_a_weight_of_0() -> None:
    clusters = {name: {"endpoints": [{"address": "127.0.0.1", "port": 1}]} for name in ("a", "b", "c")}
    to = [{"cluster": "a", "weight": 90}, {"cluster": "b", "weight": 10}, {"cluster": "c", "weight": 0}]
    table, _ = compiled({"clusters": clusters, "routes": [{"name": "s", "match": {"path_prefix": "/"}, "to": to}]})
    route = table.find(head("/"))
    assert route is not None
    chosen = [route.choose_cluster() for _ in range(10_000)]
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
        started = time.perf_counter()
        for _ in range(20):
            assert table.find(request) is None
        return time.perf_counter() - started

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
        started = time.perf_counter()
        for _ in range(2000):
            assert table.find(request) is not None
        return time.perf_counter() - started

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
        started = time.perf_counter()
        for _ in range(500):
            assert table.find(request) is not None
        return time.perf_counter() - started

    assert min(cost("/plain/1") for _ in range(5)) < 500 * 0.00002
    assert min(cost("/s4/1") for _ in range(5)) < 500 * 0.00004
