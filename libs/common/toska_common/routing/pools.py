"""The endpoints of clusters: each cluster's under a version of its own, and a snapshot with those of a few changed."""

from collections.abc import Iterable, Mapping
from typing import Final

from toska_common.contracts.routing import ClusterEndpoints, Endpoint, RouteTable, Snapshot
from toska_common.routing.memory import Lineage
from toska_common.routing.versions import endpoints_version, pool_weight, pools_sum, remember_pools

Pools = Mapping[str, ClusterEndpoints]

_SNAPSHOTS: Final = Lineage[Snapshot, frozenset[str]]()


def pool(endpoints: Iterable[Endpoint]) -> ClusterEndpoints:
    """Endpoints under their version, sorted by key, so that it does not matter who was first."""
    found = tuple(sorted(endpoints, key=lambda endpoint: endpoint.key))
    return ClusterEndpoints(version=endpoints_version(found), endpoints=found)


EMPTY = pool(())
"""A cluster without endpoints."""


def with_pools(before: Snapshot, table: RouteTable, routes_version: str, pools: Pools) -> Snapshot:
    """The snapshot after another: its table, and the endpoints of the clusters that have others or are new.

    Raises:
        KeyError: A cluster of the table has no endpoints, not even an empty list; its name.
    """
    endpoints, total = dict(before.endpoints), pools_sum(before)
    same_clusters = table.clusters.keys() == before.table.clusters.keys()
    gone = frozenset[str]() if same_clusters else before.endpoints.keys() - table.clusters.keys()
    changed: set[str] = set()
    for name in (*gone, *pools):
        had = endpoints.pop(name, None) if name in gone else endpoints.get(name)
        if had is not None:
            total -= pool_weight(name, had.version)
    for name, found in pools.items():
        if name in table.clusters:
            total += pool_weight(name, found.version)
            endpoints[name] = found
            changed.add(name)
    if not same_clusters:
        endpoints = {name: endpoints[name] for name in table.clusters}
    # Not validated: it is made of what has been, and 10,000 clusters would take 10 ms with each change.
    after = Snapshot.model_construct(routes_version=routes_version, table=table, endpoints=endpoints)
    remember_pools(after, total)
    _SNAPSHOTS.record(before, after, frozenset(changed))
    return after


def changed_pools(before: Snapshot, after: Snapshot) -> frozenset[str]:
    """The clusters of `after` whose endpoints are others than in `before`, or that were not there."""
    if before.endpoints is after.endpoints:
        return frozenset()
    known = _SNAPSHOTS.find(before, after)
    if known is not None:
        return known
    had = before.endpoints
    changed = frozenset(
        name
        for name, now in after.endpoints.items()
        if (then := had.get(name)) is not now and (then is None or then.version != now.version)
    )
    return _SNAPSHOTS.record(before, after, changed)
