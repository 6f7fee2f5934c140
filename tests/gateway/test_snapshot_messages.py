"""Snapshots as workers take them: only what differs, and never anything else than what was meant."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toska_common.contracts.routing import Endpoint, HeaderEdits, Match, Respond, Route, Snapshot
from toska_common.routing.document import load_document
from toska_common.routing.pools import pool
from toska_common.routing.snapshot import build_snapshot, build_table
from toska_common.routing.versions import table_version
from toska_common.targets import TargetRules
from toska_gateway.wire import Known, messages, owned_by_the_mesh
from toska_gateway.worker.forwarding import Forwarding
from toska_gateway.worker.http1 import read_request
from toska_gateway.worker.plane import Plane
from toska_gateway.worker.staging import Staging
from toska_tests.gateways import cluster, load, route, snapshot_of

NAMES = ("a", "b", "c")
ENDPOINT = st.builds(
    Endpoint,
    id=st.sampled_from(["", "x", "y", "z"]),
    address=st.sampled_from(["127.0.0.1", "127.0.0.2"]),
    port=st.integers(min_value=1, max_value=4),
    weight=st.integers(min_value=1, max_value=3),
)
ENDPOINTS = st.lists(ENDPOINT, max_size=5, unique_by=lambda endpoint: endpoint.key)
STATE = st.dictionaries(st.sampled_from(NAMES), ENDPOINTS, max_size=3)


def snapshot(state: Mapping[str, list[Endpoint]]) -> Snapshot:
    """A snapshot with these clusters, which follow services, and their endpoints."""
    text = "clusters:\n" + "".join(f"  {name}: {{service: {name}}}\n" for name in state) if state else "routes: []"
    return build_snapshot(build_table(load_document(text, source="test")), {name: pool(state[name]) for name in state})


def held(plane: Plane) -> dict[str, dict[str, tuple[str, int, int]]]:
    """The endpoints that a plane has."""
    return {
        name: {key: (e.address, e.port, e.weight) for key, e in one.endpoints.items()}
        for name, one in plane.clusters.items()
    }


def fresh_plane() -> Plane:
    """A plane without anything."""
    loop = asyncio.new_event_loop()
    try:
        return Plane(loop, TargetRules())
    finally:
        loop.close()


@settings(deadline=None)
@given(st.lists(STATE, min_size=1, max_size=6))
def test_changes_in_steps_come_to_the_same_as_all_at_once(states: list[dict[str, list[Endpoint]]]) -> None:
    plane, known = fresh_plane(), Known()
    staging = Staging(plane)
    for state in states:
        now = snapshot(state)
        assert load(staging, now, known) == []
        known = Known(now)
        anew = fresh_plane()
        assert load(Staging(anew), now) == []
        assert held(plane) == held(anew)
        assert held(plane) == {
            name: {e.key: (e.address, e.port, e.weight) for e in endpoints} for name, endpoints in state.items()
        }


def test_only_what_differs_is_sent() -> None:
    one, two = (Endpoint(address="127.0.0.1", port=port) for port in (1, 2))
    before, after = snapshot({"a": [one], "b": [one]}), snapshot({"a": [one, two], "b": [one]})
    known = Known(before)
    assert list(messages(known, before, frozenset())) == []
    assert list(messages(known, after, frozenset())) == [
        {
            "op": "endpoints",
            "cluster": "a",
            "version": after.endpoints["a"].version,
            "reset": False,
            "upsert": [{"key": two.key, "address": "127.0.0.1", "port": 2, "weight": 1, "zone": ""}],
            "remove": [],
        }
    ]
    back = list(messages(Known(after), before, frozenset()))
    assert [(message["upsert"], message["remove"]) for message in back] == [([], [two.key])]


def test_many_endpoints_and_routes_are_sent_in_slices() -> None:
    endpoints = pool(Endpoint(address="127.0.0.1", port=port) for port in range(1, 1201))
    base = snapshot_of(
        {"clusters": {"app": cluster(1)}, "routes": [route(f"r{number}", f"/{number}") for number in range(100)]}
    )
    whole = base.model_copy(update={"endpoints": {"app": endpoints}})
    sent = list(messages(Known(), whole, frozenset()))
    assert [len(message["routes"]) for message in sent if message["op"] == "routes"] == [40, 40, 20]
    assert [message["reset"] for message in sent if message["op"] == "endpoints"] == [True, False, False]
    plane = fresh_plane()
    assert load(Staging(plane), whole) == []
    assert len(plane.clusters["app"].endpoints) == 1200


def test_routes_that_cannot_be_compiled_leave_everything_as_it_was() -> None:
    good = snapshot_of({"clusters": {"app": cluster(1)}, "routes": [route("good")]})
    plane = fresh_plane()
    staging = Staging(plane)
    assert load(staging, good) == []
    bad = unservable(snapshot_of({"clusters": {"app": cluster(2)}, "routes": [route("bad"), route("worse", "/b")]}))
    problems = load(staging, bad, Known(good))
    assert len(problems) == 2
    assert "bad" in problems[0] + problems[1]
    assert held(plane) == {"app": {"127.0.0.1:1": ("127.0.0.1", 1, 1)}}
    request = read_request(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n", 10, 100)
    found = plane.table.find(request, Forwarding(plane, "127.0.0.1", b"http"))
    assert found is not None
    assert found.name == "good"
    assert load(staging, good) == []  # nothing of the bad one is left


def unservable(snapshot: Snapshot) -> Snapshot:
    """The snapshot with header values in its routes that no contract would let pass."""
    edits = HeaderEdits.model_construct(set={"x-a": "€"}, add={}, remove=())
    routes: list[Any] = []
    for item in snapshot.table.routes:
        rules = item.policies.headers.model_copy(update={"request": edits})
        routes.append(item.model_copy(update={"policies": item.policies.model_copy(update={"headers": rules})}))
    table = snapshot.table.model_copy(update={"routes": tuple(routes)})
    return snapshot.model_copy(update={"table": table, "routes_version": "unservable"})


@pytest.mark.parametrize(("name", "owned"), [("toska-router", True), ("toska", False), ("app", False)])
def test_clusters_of_the_mesh_are_known_by_their_names(name: str, owned: bool) -> None:
    assert (name in owned_by_the_mesh({name: None})) is owned


def test_endpoints_keep_what_is_known_of_them_when_a_table_changes() -> None:
    plane = fresh_plane()
    staging = Staging(plane)
    first = snapshot_of({"clusters": {"app": cluster(1, 2)}, "routes": [route("one")]})
    load(staging, first)
    endpoint = plane.clusters["app"].endpoints["127.0.0.1:1"]
    endpoint.in_flight = 5
    second = snapshot_of({"clusters": {"app": cluster(1), "other": cluster(3)}, "routes": [route("two", "/two")]})
    load(staging, second, Known(first))
    assert plane.clusters["app"].endpoints == {"127.0.0.1:1": endpoint}
    assert endpoint.in_flight == 5
    assert plane.clusters.keys() == {"app", "other"}


ROUTES = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["one", "two"])), unique_by=lambda item: item[0])


def routes_of(*given: tuple[str, str]) -> Snapshot:
    """A snapshot with these routes in this order, by name and body; all of them take every path."""
    table = snapshot_of({"routes": []}).table
    routes = tuple(
        Route(name=name, match=Match(path_prefix="/"), respond=Respond(status=200, body=body)) for name, body in given
    )
    table = table.model_copy(update={"routes": routes})
    return Snapshot(routes_version=table_version(table), table=table)


def served(plane: Plane) -> list[tuple[str, str]]:
    """The routes that a plane has, in order of precedence, with their bodies."""
    ranks = [one.rank for one in plane.table.routes]
    assert ranks == sorted({*ranks})
    return [(one.name, one.direct[2].decode()) for one in plane.table.routes if one.direct is not None]


@settings(deadline=None)
@given(st.lists(ROUTES, min_size=2, max_size=8))
def test_a_table_that_changes_in_steps_is_the_same_as_one_made_anew(states: list[list[tuple[str, str]]]) -> None:
    plane = fresh_plane()
    staging = Staging(plane)
    known: Known | None = None
    for state in states:
        now = routes_of(*state)
        assert load(staging, now, known) == []
        assert served(plane) == state
        request = read_request(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n", 10, 100)
        found = plane.table.find(request, Forwarding(plane, "127.0.0.1", b"http"))
        assert (found.name if found else None) == (state[0][0] if state else None)
        known = Known(now)


def test_routes_that_are_as_they_were_are_not_compiled_again() -> None:
    plane = fresh_plane()
    staging = Staging(plane)
    before = routes_of(*((name, "one") for name in "abcd"))
    load(staging, before)
    compiled = {one.name: one for one in plane.table.routes}
    after = routes_of(("x", "one"), ("a", "one"), ("b", "two"), ("d", "one"))
    sent = list(messages(Known(before), after, frozenset()))
    assert [item["name"] for message in sent if message["op"] == "routes" for item in message["routes"]] == ["x", "b"]
    assert load(staging, after, Known(before)) == []
    kept = {one.name: one is compiled.get(one.name) for one in plane.table.routes}
    assert kept == {"x": False, "a": True, "b": False, "d": True}


def test_routes_that_always_come_at_the_same_place_find_room_there() -> None:
    plane = fresh_plane()
    staging = Staging(plane)
    state = [("first", "one"), ("last", "one")]
    known, crowded = Known(routes_of(*state)), 0
    load(staging, routes_of(*state))
    for number in range(60):
        state.insert(1, (f"r{number}", "one"))
        before = plane.table.routes[0]
        assert load(staging, routes_of(*state), known) == []
        crowded += plane.table.routes[0] is not before
        known = Known(routes_of(*state))
        assert served(plane) == state
    assert crowded in range(1, 6)


def test_a_worker_that_has_something_else_than_its_parent_believes_is_given_everything() -> None:
    plane = fresh_plane()
    staging = Staging(plane)
    load(staging, routes_of(("a", "one")))
    believed = Known(routes_of(("x", "one"), ("y", "one")))
    now = routes_of(("x", "one"), ("y", "one"), ("z", "one"))
    assert load(staging, now, believed) == []
    assert served(plane) == [("x", "one"), ("y", "one"), ("z", "one")]
