"""Snapshots as deltas: what a gateway lacks, and how it puts that on top of what it has.

    version or inventory ──▶ Difference + snapshot ── build_delta ──▶ SnapshotDelta ── apply_delta(has) ──▶ Snapshot

Both ends are pure. Versions are hashes of content, so applying checks the result against the version that it should
have; whatever goes wrong on the way ends in `DeltaMismatch`, and the gateway asks again with no version.
"""

from toska_common.contracts.routing import (
    ClusterEndpoints,
    Endpoint,
    EndpointsDelta,
    Inventory,
    RouteTable,
    Snapshot,
    SnapshotDelta,
)
from toska_common.routing.history import Difference, EndpointsChange
from toska_common.routing.pools import pool, with_pools
from toska_common.routing.tables import (
    DeltaMismatch,
    apply_table_delta,
    build_table_delta,
    compare_versions,
    whole_table_delta,
)
from toska_common.routing.versions import (
    inventory_digest,
    joined_version,
    resource_version,
    snapshot_version,
    sum_pools,
    table_version,
)

__all__ = ["DeltaMismatch", "apply_delta", "build_delta", "compare_inventory", "inventory_of", "inventory_version"]


NOTHING = Snapshot(routes_version="", table=RouteTable())
"""What a gateway has at first."""


def inventory_of(snapshot: Snapshot) -> Inventory:
    """Everything in a snapshot by its version."""
    table = snapshot.table
    return Inventory(
        server=resource_version(table.server),
        clusters={name: resource_version(cluster) for name, cluster in table.clusters.items()},
        routes={route.name: resource_version(route) for route in table.routes},
        endpoints={name: cluster.version for name, cluster in snapshot.endpoints.items()},
    )


def inventory_version(has: Inventory) -> str:
    """`Snapshot.version` of what is in an inventory."""
    return joined_version(inventory_digest(has.server, has.clusters, has.routes).version, sum_pools(has.endpoints))


def compare_inventory(has: Inventory, snapshot: Snapshot) -> Difference:
    """What a gateway with this inventory lacks; of a cluster whose endpoints differ that is all of them."""
    return Difference(
        table=compare_versions(has, snapshot.table),
        endpoints={
            name: EndpointsChange()
            for name, cluster in snapshot.endpoints.items()
            if has.endpoints.get(name) != cluster.version
        },
    )


def build_delta(base: str, difference: Difference | None, snapshot: Snapshot, version: str) -> SnapshotDelta:
    """What makes `snapshot`, which has `version`, of the one that has `base`; without a difference, of nothing."""
    if difference is None:
        base, table = "", whole_table_delta(snapshot.table, snapshot.routes_version)
        changes = dict.fromkeys(snapshot.endpoints, EndpointsChange())
    else:
        changed, changes = difference.table, difference.endpoints
        table = build_table_delta(changed, snapshot.table, snapshot.routes_version) if changed else None
    endpoints = {
        name: _endpoints_delta(change, snapshot.endpoints[name])
        for name, change in changes.items()
        if name in snapshot.endpoints
    }
    # Not validated: all of it has been, and 10,000 routes take a second.
    return SnapshotDelta.model_construct(version=version, base=base, table=table, endpoints=endpoints)


def apply_delta(snapshot: Snapshot | None, delta: SnapshotDelta) -> Snapshot:
    """Put a delta on top of what a gateway has (`None`: nothing), verifying every version that it changes.

    Raises:
        DeltaMismatch: It was made for something else; nothing of it holds.
    """
    base = "" if snapshot is None or not delta.base else snapshot.version
    if base != delta.base:
        raise DeltaMismatch(f"what is here is {base or 'nothing'}, not {delta.base}")
    has = NOTHING if snapshot is None or not delta.base else snapshot
    table, routes_version = _apply_table(has, delta)
    pools = {name: _apply_endpoints(name, has.endpoints.get(name), change) for name, change in delta.endpoints.items()}
    try:
        result = with_pools(has, table, routes_version, pools)
    except KeyError as error:
        raise DeltaMismatch(f"the cluster {error.args[0]} has no list of endpoints, not even an empty one") from error
    version = snapshot_version(result)
    if version != delta.version:
        raise DeltaMismatch(f"the snapshot comes to {version}, not to {delta.version}")
    return result


def _apply_table(has: Snapshot, delta: SnapshotDelta) -> tuple[RouteTable, str]:
    if delta.table is None:
        if has is NOTHING:
            raise DeltaMismatch("the delta has no routes, and there are none yet")
        return has.table, has.routes_version
    table = apply_table_delta(None if has is NOTHING else has.table, delta.table)
    version = table_version(table)
    if version != delta.table.version:
        raise DeltaMismatch(f"the routes are {version}, not {delta.table.version}")
    return table, version


def _endpoints_delta(change: EndpointsChange, cluster: ClusterEndpoints) -> EndpointsDelta:
    if not change.base:
        return EndpointsDelta.model_construct(version=cluster.version, upsert=cluster.endpoints)
    upsert = tuple(endpoint for endpoint in cluster.endpoints if endpoint.key in change.keys)
    gone = change.keys.difference(endpoint.key for endpoint in upsert)
    return EndpointsDelta(version=cluster.version, base=change.base, upsert=upsert, remove=tuple(sorted(gone)))


def _apply_endpoints(name: str, has: ClusterEndpoints | None, change: EndpointsDelta) -> ClusterEndpoints:
    by_key: dict[str, Endpoint] = {}
    if change.base:
        if has is None or has.version != change.base:
            raise DeltaMismatch(f"cluster {name} is at {has.version if has else 'nothing'}, not at {change.base}")
        by_key = {endpoint.key: endpoint for endpoint in has.endpoints}
    for key in change.remove:
        by_key.pop(key, None)
    by_key.update((endpoint.key, endpoint) for endpoint in change.upsert)
    result = pool(by_key.values())
    if result.version != change.version:
        raise DeltaMismatch(f"the endpoints of cluster {name} come to {result.version}, not to {change.version}")
    return result
