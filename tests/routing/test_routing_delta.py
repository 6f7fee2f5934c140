"""Deltas: whatever a gateway has, what it makes of a delta is the router's snapshot."""

import itertools
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toska_common.contracts.routing import (
    Cluster,
    ClusterEndpoints,
    Endpoint,
    Match,
    PlacedRoute,
    Respond,
    Route,
    RoutingDocument,
    Snapshot,
    SnapshotDelta,
    TableDelta,
)
from toska_common.routing.delta import (
    DeltaMismatch,
    apply_delta,
    build_delta,
    compare_inventory,
    inventory_of,
    inventory_version,
)
from toska_common.routing.history import History
from toska_common.routing.pools import pool
from toska_common.routing.snapshot import build_snapshot, build_table

SERVICES = ("orders", "payments", "stock")
LIMIT = 3

Pools = dict[str, dict[str, Endpoint]]


@dataclass(frozen=True)
class Edit:
    """One change of the inputs: an endpoint set or taken away, or clusters and routes replaced."""

    service: str
    key: str
    port: int | None
    clusters: frozenset[str] | None
    automatic: frozenset[str]
    paths: tuple[str, ...]


some_services = st.frozensets(st.sampled_from(SERVICES))
edits = st.builds(
    Edit,
    service=st.sampled_from(SERVICES),
    key=st.sampled_from("abcd"),
    port=st.none() | st.integers(1, 3),
    clusters=st.none() | st.none() | st.none() | some_services,
    automatic=some_services,
    paths=st.lists(st.sampled_from("xyz"), unique=True).map(tuple),
)
histories = st.lists(edits, min_size=1, max_size=12)


def document_of(names: frozenset[str], paths: tuple[str, ...]) -> RoutingDocument:
    return RoutingDocument(
        clusters={name: Cluster(service=name) for name in names},
        routes=tuple(Route(name=path, match=Match(path=f"/{path}"), respond=Respond(body=path)) for path in paths),
    )


def replay(history: list[Edit]) -> list[tuple[RoutingDocument, frozenset[str], Pools]]:
    """The inputs after each edit, beginning with every service and no endpoint."""
    document, automatic = document_of(frozenset(SERVICES), ()), frozenset[str]()
    pools: Pools = {service: {} for service in SERVICES}
    states: list[tuple[RoutingDocument, frozenset[str], Pools]] = []
    for edit in history:
        pools = {service: dict(members) for service, members in pools.items()}
        if edit.clusters is not None:
            document, automatic = document_of(edit.clusters, edit.paths), edit.automatic
        elif edit.port is None:
            pools[edit.service].pop(edit.key, None)
        else:
            pools[edit.service][edit.key] = Endpoint(id=edit.key, address="127.0.0.1", port=edit.port)
        states.append((document, automatic, pools))
    return states


def delta_of(has: Snapshot | None, newest: Snapshot, history: History) -> SnapshotDelta | None:
    """What a router with this history answers; `None` if it does not know what the gateway has."""
    if has is None:
        return build_delta("", None, newest, newest.version)
    difference = history.since(has.version)
    return None if difference is None else build_delta(has.version, difference, newest, newest.version)


def delta_for_a_stranger(has: Snapshot, newest: Snapshot) -> SnapshotDelta:
    """What a router answers to the inventory of a gateway that another router has served."""
    inventory = inventory_of(has)
    assert inventory_version(inventory) == has.version
    return build_delta(has.version, compare_inventory(inventory, newest), newest, newest.version)


def over_the_wire(delta: SnapshotDelta) -> SnapshotDelta:
    return SnapshotDelta.model_validate_json(delta.model_dump_json(exclude_defaults=True))


def pooled(found: Mapping[str, Iterable[Endpoint]]) -> dict[str, ClusterEndpoints]:
    return {name: pool(members) for name, members in found.items()}


def follow(history: list[Edit]) -> list[Snapshot]:
    snapshots: list[Snapshot] = []
    for document, automatic, pools in replay(history):
        previous = snapshots[-1] if snapshots else None
        found = pooled({name: members.values() for name, members in pools.items()})
        snapshots.append(build_snapshot(build_table(document, automatic), found, previous=previous))
    return snapshots


def remember(snapshots: list[Snapshot], steps: int = LIMIT) -> History:
    history = History(steps=steps)
    for before, after in itertools.pairwise(snapshots):
        if before.version != after.version:
            history.record(before.version, before, after)
    return history


@settings(deadline=None)
@given(histories)
def test_a_delta_from_any_earlier_snapshot_comes_to_the_newest(edited: list[Edit]) -> None:
    snapshots = follow(edited)
    history, newest = remember(snapshots), snapshots[-1]
    for has in [None, *snapshots]:
        delta = delta_of(has, newest, history)
        if delta is None:
            assert has is not None
            delta = delta_for_a_stranger(has, newest)
        assert apply_delta(has, over_the_wire(delta)) == newest


@settings(deadline=None)
@given(histories, histories)
def test_a_gateway_of_another_router_gets_what_it_lacks(edited: list[Edit], elsewhere: list[Edit]) -> None:
    newest = follow(edited)[-1]
    for has in follow(elsewhere):
        delta = over_the_wire(delta_for_a_stranger(has, newest))
        assert apply_delta(has, delta) == newest
        if has.version == newest.version:
            assert (delta.table, delta.endpoints) == (None, {})


@settings(deadline=None)
@given(histories)
def test_a_gateway_that_follows_every_change_has_the_router_s_snapshot(edited: list[Edit]) -> None:
    has: Snapshot | None = None
    history = History()
    previous: Snapshot | None = None
    for snapshot in follow(edited):
        if previous is not None and previous.version != snapshot.version:
            history.record(previous.version, previous, snapshot)
        if has is None or has.version != snapshot.version:
            delta = delta_of(has, snapshot, history)
            assert delta is not None
            has = apply_delta(has, over_the_wire(delta))
        assert has == snapshot
        previous = snapshot


@settings(deadline=None)
@given(histories, st.integers())
def test_two_routers_of_the_same_inputs_have_the_same_versions(edited: list[Edit], seed: int) -> None:
    document, automatic, pools = replay(edited)[-1]
    shuffle = random.Random(seed)
    shuffled = {name: shuffle.sample([*members.values()], len(members)) for name, members in reversed(pools.items())}
    other = RoutingDocument(clusters=dict(reversed([*document.clusters.items()])), routes=document.routes)
    fresh = build_snapshot(build_table(other, sorted(automatic, reverse=True)), pooled(shuffled))
    followed = follow(edited)[-1]
    assert fresh.routes_version == followed.routes_version
    assert fresh.version == followed.version


def endpoint(number: int, port: int = 9000) -> Endpoint:
    return Endpoint(id=f"orders-{number:05}", address="127.0.0.1", port=port)


def orders(*members: Endpoint) -> Snapshot:
    return build_snapshot(TABLE, pooled({"orders": members}))


TABLE = build_table(RoutingDocument(clusters={"orders": Cluster(service="orders")}))


def only_delta(before: Snapshot, after: Snapshot) -> SnapshotDelta:
    delta = delta_of(before, after, remember([before, after]))
    assert delta is not None
    return delta


def test_one_endpoint_s_change_sends_one_endpoint() -> None:
    many = [endpoint(number) for number in range(1000)]
    before, after = orders(*many), orders(*many[:-1], endpoint(999, port=9001))
    delta = only_delta(before, after)
    assert delta.table is None
    assert delta.endpoints["orders"].upsert == (endpoint(999, port=9001),)
    assert delta.endpoints["orders"].remove == ()
    assert apply_delta(before, delta) == after


def test_an_endpoint_that_goes_is_sent_as_its_key() -> None:
    before, after = orders(endpoint(1), endpoint(2)), orders(endpoint(1))
    change = only_delta(before, after).endpoints["orders"]
    assert (change.upsert, change.remove) == ((), ("orders-00002",))


def test_an_endpoint_that_moves_to_another_zone_is_a_change() -> None:
    before = orders(endpoint(1))
    after = orders(endpoint(1).model_copy(update={"zone": "b"}))
    assert apply_delta(before, only_delta(before, after)).endpoints["orders"].endpoints[0].zone == "b"


def test_a_cluster_that_left_and_came_back_is_sent_whole() -> None:
    both = {"orders": Cluster(service="orders"), "stock": Cluster(service="stock")}
    pools = pooled({"orders": [endpoint(1)], "stock": [endpoint(2)]})
    before = build_snapshot(build_table(RoutingDocument(clusters=both)), pools)
    without = build_snapshot(build_table(RoutingDocument(clusters={"orders": both["orders"]})), pools)
    pools |= pooled({"stock": [endpoint(3)]})
    after = build_snapshot(build_table(RoutingDocument(clusters=both)), pools)
    delta = delta_of(before, after, remember([before, without, after]))
    assert delta is not None
    assert apply_delta(before, delta) == after
    assert (delta.endpoints["stock"].base, delta.endpoints["stock"].upsert) == ("", (endpoint(3),))


def routes_of(*names: str, **bodies: str) -> Snapshot:
    """A table with these routes in this order, which precedence leaves as it is."""
    return build_snapshot(
        build_table(
            RoutingDocument(
                routes=tuple(
                    Route(name=name, match=Match(path=f"/{name}"), respond=Respond(body=bodies.get(name, name)))
                    for name in names
                )
            )
        )
    )


@pytest.mark.parametrize(
    ("after", "sent", "removed"),
    [
        (routes_of("a", "b", "c", "d", b="changed"), [("b", "a")], ()),
        (routes_of("a", "b", "d"), [], ("c",)),
        (routes_of("new", "a", "b", "c", "d"), [("new", "")], ()),
        (routes_of("d", "a", "b", "c"), [("d", "")], ()),
        (routes_of("a", "x", "y", "b", "c", "d"), [("x", "a"), ("y", None)], ()),
        (routes_of("c", "a", "b"), [("c", "")], ("d",)),
    ],
)
def test_only_the_routes_that_changed_or_moved_travel(
    after: Snapshot, sent: list[tuple[str, str | None]], removed: tuple[str, ...]
) -> None:
    before = routes_of("a", "b", "c", "d")
    delta = only_delta(before, after)
    assert delta.table is not None
    # One that stands first in the table has nobody before it, so nothing needs to be said.
    assert [(item.route.name, item.after or "") for item in delta.table.routes] == [
        (name, where or "") for name, where in sent
    ]
    assert delta.table.removed_routes == removed
    assert apply_delta(before, over_the_wire(delta)) == after


def test_a_change_is_as_large_as_what_changed() -> None:
    names = [f"route-{number:05}" for number in range(2000)]
    before, after = routes_of(*names), routes_of(*names, **{names[7]: "changed"})
    assert len(only_delta(before, after).model_dump_json(exclude_defaults=True)) < 400


def test_what_is_older_than_the_history_is_not_guessed_at() -> None:
    snapshots = [orders(endpoint(number)) for number in range(LIMIT + 2)]
    assert delta_of(snapshots[0], snapshots[-1], remember(snapshots)) is None
    assert delta_of(snapshots[1], snapshots[-1], remember(snapshots)) is not None


def test_a_history_of_changes_of_everything_does_not_grow() -> None:
    snapshots = [routes_of(*"abcdefgh", **dict.fromkeys("abcdefgh", str(number))) for number in range(5)]
    history = History(names=20)
    for before, after in itertools.pairwise(snapshots):
        history.record(before.version, before, after)
    assert history.since(snapshots[1].version) is None
    assert history.since(snapshots[2].version) is not None


def test_a_delta_for_something_else_is_refused() -> None:
    first, second, third = orders(endpoint(1)), orders(endpoint(2)), orders(endpoint(3))
    delta = only_delta(second, third)
    for has in (first, None):
        with pytest.raises(DeltaMismatch, match=f"not {second.version}"):
            apply_delta(has, delta)


def test_a_result_that_is_not_what_its_version_says_is_refused() -> None:
    before, after = orders(endpoint(1)), orders(endpoint(1), endpoint(2))
    delta = only_delta(before, after)
    change = delta.endpoints["orders"].model_copy(update={"upsert": (endpoint(3),)})
    with pytest.raises(DeltaMismatch, match="orders"):
        apply_delta(before, delta.model_copy(update={"endpoints": {"orders": change}}))
    with pytest.raises(DeltaMismatch, match="the snapshot comes to"):
        apply_delta(before, delta.model_copy(update={"version": "x"}))


def placed(name: str, after: str | None = None) -> PlacedRoute:
    return PlacedRoute(route=Route(name=name, match=Match(path=f"/{name}"), respond=Respond()), after=after)


@pytest.mark.parametrize(
    "routes",
    [
        (placed("new", "nobody"),),
        (placed("x", "a"), placed("y", "a")),
        (placed("x", "y"), placed("y", "x")),
        (placed("x", "x"),),
        (placed("x", "a"), placed("x", "b")),
    ],
    ids=["after nobody", "two in one place", "after one another", "after itself", "twice"],
)
def test_a_place_that_cannot_be_is_refused(routes: tuple[PlacedRoute, ...]) -> None:
    before = routes_of("a", "b")
    delta = SnapshotDelta(version="v", base=before.version, table=TableDelta(version="t", routes=routes))
    with pytest.raises(DeltaMismatch):
        apply_delta(before, delta)
