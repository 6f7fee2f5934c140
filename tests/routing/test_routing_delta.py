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
    Respond,
    Route,
    RoutingDocument,
    Snapshot,
    SnapshotDelta,
)
from toska_common.routing.delta import DeltaMismatch, EndpointHistory, apply_delta, build_delta, is_empty
from toska_common.routing.snapshot import build_snapshot, build_table, pool

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


def known(snapshot: Snapshot | None) -> tuple[str, dict[str, str]]:
    if snapshot is None:
        return "", {}
    return snapshot.routes_version, {name: cluster.version for name, cluster in snapshot.endpoints.items()}


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


def remember(snapshots: list[Snapshot]) -> EndpointHistory:
    history = EndpointHistory(limit=LIMIT)
    for before, after in itertools.pairwise(snapshots):
        history.record(before, after)
    return history


@settings(deadline=None)
@given(histories)
def test_a_delta_from_any_earlier_snapshot_comes_to_the_newest(edited: list[Edit]) -> None:
    snapshots = follow(edited)
    history, newest = remember(snapshots), snapshots[-1]
    for has in [None, *snapshots]:
        delta = over_the_wire(build_delta(*known(has), newest, history))
        assert apply_delta(has, delta) == newest
        assert is_empty(delta) == (known(has) == known(newest))


@settings(deadline=None)
@given(histories)
def test_a_gateway_that_follows_every_change_has_the_router_s_snapshot(edited: list[Edit]) -> None:
    has: Snapshot | None = None
    history = EndpointHistory(limit=LIMIT)
    previous: Snapshot | None = None
    for snapshot in follow(edited):
        if previous is not None:
            history.record(previous, snapshot)
        has = apply_delta(has, over_the_wire(build_delta(*known(has), snapshot, history)))
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
    assert known(fresh) == known(followed)
    assert fresh.version == followed.version


def endpoint(number: int, port: int = 9000) -> Endpoint:
    return Endpoint(id=f"orders-{number:05}", address="127.0.0.1", port=port)


def orders(*members: Endpoint) -> Snapshot:
    return build_snapshot(TABLE, pooled({"orders": members}))


TABLE = build_table(RoutingDocument(clusters={"orders": Cluster(service="orders")}))


def test_one_endpoint_s_change_sends_one_endpoint() -> None:
    many = [endpoint(number) for number in range(1000)]
    before, after = orders(*many), orders(*many[:-1], endpoint(999, port=9001))
    delta = build_delta(*known(before), after, remember([before, after]))
    assert delta.table is None
    assert delta.endpoints["orders"].upsert == (endpoint(999, port=9001),)
    assert delta.endpoints["orders"].remove == ()
    assert apply_delta(before, delta) == after


def test_an_endpoint_that_goes_is_sent_as_its_key() -> None:
    before, after = orders(endpoint(1), endpoint(2)), orders(endpoint(1))
    change = build_delta(*known(before), after, remember([before, after])).endpoints["orders"]
    assert (change.upsert, change.remove) == ((), ("orders-00002",))


def test_what_is_older_than_the_history_gets_the_whole_cluster() -> None:
    snapshots = [orders(endpoint(number)) for number in range(LIMIT + 2)]
    delta = build_delta(*known(snapshots[0]), snapshots[-1], remember(snapshots))
    assert delta.endpoints["orders"].base == ""
    assert apply_delta(snapshots[0], delta) == snapshots[-1]


def test_a_delta_for_something_else_is_refused() -> None:
    first, second, third = orders(endpoint(1)), orders(endpoint(2)), orders(endpoint(3))
    delta = build_delta(*known(second), third, remember([second, third]))
    with pytest.raises(DeltaMismatch, match="orders"):
        apply_delta(first, delta)
    with pytest.raises(DeltaMismatch, match="no routes"):
        apply_delta(None, delta)


def test_a_result_that_is_not_what_its_version_says_is_refused() -> None:
    before, after = orders(endpoint(1)), orders(endpoint(1), endpoint(2))
    delta = build_delta(*known(before), after, remember([before, after]))
    change = delta.endpoints["orders"].model_copy(update={"upsert": (endpoint(3),)})
    with pytest.raises(DeltaMismatch, match="orders"):
        apply_delta(before, delta.model_copy(update={"endpoints": {"orders": change}}))
    with pytest.raises(DeltaMismatch, match="the routes are"):
        apply_delta(
            None, build_delta(*known(None), after, EndpointHistory()).model_copy(update={"routes_version": "x"})
        )
