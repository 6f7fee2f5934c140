"""A change is checked as strictly as the whole, though only what has changed is looked at."""

from hypothesis import given, settings
from hypothesis import strategies as st
from toska_common.contracts.routing import (
    Cluster,
    ClusterEndpoints,
    Endpoint,
    Match,
    Route,
    RouteTable,
    Snapshot,
    WeightedCluster,
)
from toska_gateway.routing import check_change, check_snapshot

NAMES = ("one", "two", "auto:three", "toska:four")
CLUSTERS = {
    "a": Cluster(service="a"),
    "b": Cluster(endpoints=(Endpoint(address="127.0.0.1", port=1),)),
    "metadata": Cluster(endpoints=(Endpoint(address="169.254.169.254", port=80),)),
}


def route(name: str, path: str, to: list[str]) -> Route:
    return Route(name=name, match=Match(path=path), to=tuple(WeightedCluster(cluster=cluster) for cluster in to))


def table(clusters: frozenset[str], routes: list[Route]) -> RouteTable:
    return RouteTable(clusters={name: CLUSTERS[name] for name in clusters}, routes=tuple(routes))


destinations = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=2)
some_routes = st.builds(route, name=st.sampled_from(NAMES), path=st.sampled_from(["/x", "/y"]), to=destinations)
tables = st.builds(
    table,
    clusters=st.frozensets(st.sampled_from([*CLUSTERS])),
    routes=st.lists(some_routes, max_size=3, unique_by=lambda one: one.name),
)


right_routes = st.builds(
    route, name=st.sampled_from(NAMES[:3]), path=st.sampled_from(["/x", "/y"]), to=st.sampled_from([["a"], ["b"]])
)
right_tables = st.builds(
    table,
    clusters=st.just(frozenset({"a", "b"})),
    routes=st.lists(right_routes, max_size=2, unique_by=(lambda one: one.name, lambda one: one.match.path)),
)


def snapshot(table: RouteTable) -> Snapshot:
    endpoints = {name: ClusterEndpoints(version="") for name in table.clusters}
    return Snapshot(routes_version="", table=table, endpoints=endpoints)


@settings(deadline=None, max_examples=300)
@given(right_tables, tables)
def test_a_change_of_a_right_snapshot_is_refused_exactly_if_the_whole_would_be(
    before: RouteTable, after: RouteTable
) -> None:
    had = snapshot(before)
    assert not check_snapshot(had)
    assert check_change(had, snapshot(after)) == check_snapshot(snapshot(after))
