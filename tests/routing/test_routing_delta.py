"""Deltas: whatever a gateway has, what it makes of a delta is the router's snapshot."""

import itertools
import random
from collections.abc import Mapping, Sequence

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

endpoints = st.builds(
    Endpoint,
    id=st.sampled_from(["a", "b", "c", "d"]),
    address=st.sampled_from(["127.0.0.1", "10.0.0.1", "::1"]),
    port=st.integers(1, 65535),
    weight=st.integers(1, 9),
)
pools = st.lists(endpoints, max_size=4, unique_by=lambda endpoint: endpoint.key)
found_instances = st.dictionaries(st.sampled_from(SERVICES), pools)


def document_of(names: frozenset[str], paths: list[str]) -> RoutingDocument:
    return RoutingDocument(
        clusters={name: Cluster(service=name) for name in names},
        routes=tuple(Route(name=path, match=Match(path=f"/{path}"), respond=Respond(body=path)) for path in paths),
    )


documents = st.builds(
    document_of, st.frozensets(st.sampled_from(SERVICES)), st.lists(st.sampled_from(["x", "y", "z"]), unique=True)
)
steps = st.lists(
    st.tuples(documents, st.frozensets(st.sampled_from(SERVICES)), found_instances), min_size=1, max_size=8
)
Steps = list[tuple[RoutingDocument, frozenset[str], dict[str, list[Endpoint]]]]


def known(snapshot: Snapshot | None) -> tuple[str, dict[str, str]]:
    if snapshot is None:
        return "", {}
    return snapshot.routes_version, {name: cluster.version for name, cluster in snapshot.endpoints.items()}


def over_the_wire(delta: SnapshotDelta) -> SnapshotDelta:
    return SnapshotDelta.model_validate_json(delta.model_dump_json(exclude_defaults=True))


def pooled(found: Mapping[str, Sequence[Endpoint]]) -> dict[str, ClusterEndpoints]:
    return {name: pool(members) for name, members in found.items()}


def follow(steps: Steps) -> list[Snapshot]:
    snapshots: list[Snapshot] = []
    for document, automatic, found in steps:
        previous = snapshots[-1] if snapshots else None
        snapshots.append(build_snapshot(build_table(document, automatic), pooled(found), previous=previous))
    return snapshots


def remember(snapshots: list[Snapshot]) -> EndpointHistory:
    history = EndpointHistory(limit=LIMIT)
    for before, after in itertools.pairwise(snapshots):
        history.record(before, after)
    return history


@settings(deadline=None)
@given(steps)
def test_a_delta_from_any_earlier_snapshot_comes_to_the_newest(steps: Steps) -> None:
    snapshots = follow(steps)
    history, newest = remember(snapshots), snapshots[-1]
    for has in [None, *snapshots]:
        delta = over_the_wire(build_delta(*known(has), newest, history))
        assert apply_delta(has, delta) == newest
        assert is_empty(delta) == (known(has) == known(newest))


@settings(deadline=None)
@given(steps)
def test_a_gateway_that_follows_every_change_has_the_router_s_snapshot(steps: Steps) -> None:
    has: Snapshot | None = None
    history = EndpointHistory(limit=LIMIT)
    previous: Snapshot | None = None
    for snapshot in follow(steps):
        if previous is not None:
            history.record(previous, snapshot)
        has = apply_delta(has, over_the_wire(build_delta(*known(has), snapshot, history)))
        assert has == snapshot
        previous = snapshot


@settings(deadline=None)
@given(steps, st.integers())
def test_two_routers_of_the_same_inputs_have_the_same_versions(steps: Steps, seed: int) -> None:
    document, automatic, found = steps[-1]
    shuffle = random.Random(seed)
    shuffled = {name: shuffle.sample(members, len(members)) for name, members in reversed([*found.items()])}
    other = RoutingDocument(clusters=dict(reversed([*document.clusters.items()])), routes=document.routes)
    fresh = build_snapshot(build_table(other, sorted(automatic, reverse=True)), pooled(shuffled))
    followed = follow(steps)[-1]
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
