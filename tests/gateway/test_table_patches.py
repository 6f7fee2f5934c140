"""A worker's table that is patched takes every request as one made anew, and leaves the one before as it was."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from toska_common.routing.document import load_document
from toska_common.routing.snapshot import build_snapshot, build_table
from toska_gateway.wire import Known, messages
from toska_gateway.worker.forwarding import Forwarding
from toska_gateway.worker.http1 import read_request
from toska_gateway.worker.patching import MOST, RANK_STEP, patch
from toska_gateway.worker.route import Route
from toska_gateway.worker.table import RoutingTable
from toska_tests.gateways import idle_plane

HOSTS = (None, "a.test", "*.test", "*.a.test")
PLACES: tuple[dict[str, Any], ...] = (
    {"path": "/a"}, {"path_prefix": "/"}, {"path_prefix": "/a"}, {"path_prefix": "/a/b"}, {"path_template": "/{x}"},
    {"path_template": "/a/{x}"}, {"path_template": "/{rest=**}"}, {"path_regex": "/a.*"}, {"path_regex": "/[ab]/b"},
)  # fmt: skip
WANTS: tuple[dict[str, Any], ...] = (
    {}, {"methods": ["GET"]}, {"methods": ["PUT"]}, {"headers": {"x-v": "1"}}, {"headers": {"x-v": "2"}},
    {"query": {"q": "1"}}, {"cookies": {"c": "1"}}, {"client_ip": ["10.0.0.0/8"]},
)  # fmt: skip


def match_of(host: str | None, place: dict[str, Any], wants: dict[str, Any]) -> dict[str, Any]:
    return {**place, **wants, **({} if host is None else {"host": host})}


matches = st.builds(match_of, st.sampled_from(HOSTS), st.sampled_from(PLACES), st.sampled_from(WANTS))
states = st.dictionaries(st.sampled_from([f"r{number}" for number in range(14)]), matches, max_size=14)
histories = st.lists(states, min_size=2, max_size=6)

LINES = [f"{method} {path} HTTP/1.1\r\nhost: {host}\r\n{field}\r\n"
         for method in ("GET", "PUT") for path in ("/a", "/a?q=1", "/b", "/a/b", "/a/c/d", "/b/b")
         for host in ("a.test", "b.a.test", "c.test", "other")
         for field in ("", "x-v: 1\r\n", "x-v: 2\r\ncookie: c=1\r\n")]  # fmt: skip
REQUESTS = [read_request(line.encode(), 100, 8192) for line in LINES]


def in_order(state: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Routes as workers are told them; two with the same conditions do not go together, so the first counts."""
    told = {json.dumps(match, sort_keys=True): name for name, match in sorted(state.items(), reverse=True)}
    document = {
        "routes": [{"name": name, "match": state[name], "respond": {"body": name}} for name in sorted(told.values())]
    }
    snapshot = build_snapshot(build_table(load_document(json.dumps(document), source="test")))
    return [route for message in messages(Known(), snapshot, frozenset()) for route in message.get("routes", ())]


def found_by(table: RoutingTable) -> list[str | None]:
    plane = idle_plane()
    connections = [Forwarding(plane, client, b"http") for client in ("127.0.0.1", "10.1.1.1")]
    found = [table.find(request, one) for request in REQUESTS for one in connections]
    return [None if route is None else route.name for route in found]


def anew(routes: list[dict[str, Any]]) -> RoutingTable:
    table, plane = RoutingTable(), idle_plane()
    for number, route in enumerate(routes, 1):
        table.append(Route(number * RANK_STEP, route, plane))
    return table


def patched(before: RoutingTable, had: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> RoutingTable:
    """The table before, with what differs told as a parent tells it."""
    old = {route["name"]: route for route in had}
    staying = [route["name"] for route in wanted if old.get(route["name"]) == route]
    place = {name: number for number, name in enumerate(old)}
    kept: list[str] = []
    for name in staying:  # those that have moved among the rest come anew
        if not kept or place[name] > place[kept[-1]]:
            kept.append(name)
    new, follows, last = dict[str, Route](), dict[str, str](), ""
    for route in wanted:
        if route["name"] not in kept:
            new[route["name"]] = Route(0, route, idle_plane())
            follows[last] = route["name"]
        last = route["name"]
    leaving = {*(name for name in old if name not in kept), *new}
    after = patch(before, leaving, new, follows)
    assert after is not None
    return after


@settings(deadline=None, max_examples=60)
@given(histories)
def test_a_patched_table_takes_requests_as_one_that_is_made_anew(history: list[dict[str, dict[str, Any]]]) -> None:
    had = in_order(history[0])
    table = anew(had)
    for state in history[1:]:
        wanted, answers = in_order(state), found_by(table)
        after, fresh = patched(table, had, wanted), anew(wanted)
        assert [route.name for route in after.routes] == [route["name"] for route in wanted]
        assert after.by_name.keys() == fresh.by_name.keys()
        assert found_by(after) == found_by(fresh)
        assert found_by(table) == answers
        table, had = after, wanted


def test_a_table_is_made_anew_where_too_much_stands_at_one_place() -> None:
    state: dict[str, dict[str, Any]] = {f"r{n}": {"path": "/a", "headers": {"x-v": str(n)}} for n in range(MOST + 1)}
    routes = in_order(state)
    table = anew(routes)
    route = Route(0, routes[0], idle_plane())
    assert patch(table, {route.name}, {route.name: route}, {"": route.name}) is None
