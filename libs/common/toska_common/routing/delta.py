"""Snapshots as deltas: what a gateway lacks, and how it puts that on top of what it has.

    known versions + snapshot + history ── build_delta ──▶ SnapshotDelta ── apply_delta(has) ──▶ Snapshot

Both ends are pure. Versions are hashes of content, so applying checks the result against the version that it should
have; whatever goes wrong on the way ends in `DeltaMismatch`, and the gateway asks again with no versions.
"""

from collections import deque
from collections.abc import Mapping

from toska_common.contracts.routing import (
    ClusterEndpoints,
    Endpoint,
    EndpointsDelta,
    Snapshot,
    SnapshotDelta,
)
from toska_common.errors import MeshError
from toska_common.routing.snapshot import pool
from toska_common.routing.versions import table_version


class DeltaMismatch(MeshError):
    """A delta does not fit what it was applied to, or its result is not what its version says."""

    status, code, title = 500, "delta-mismatch", "Delta does not fit"


class EndpointHistory:
    """Which endpoints changed since which version of a cluster, bounded to the last `limit` changes of each.

    Only keys are kept: what they stand for now is in the current snapshot.
    """

    def __init__(self, limit: int = 128) -> None:
        self._limit = limit
        self._steps: dict[str, deque[tuple[str, frozenset[str]]]] = {}

    def record(self, before: Snapshot, after: Snapshot) -> None:
        """Remember what changed from one snapshot to the next."""
        for name in before.endpoints.keys() - after.endpoints.keys():
            self._steps.pop(name, None)
        for name, cluster in after.endpoints.items():
            base = before.endpoints.get(name)
            if base is not None and base.version != cluster.version:
                steps = self._steps.setdefault(name, deque(maxlen=self._limit))
                steps.append((base.version, _changed_keys(base.endpoints, cluster.endpoints)))

    def changed_since(self, cluster: str, version: str) -> frozenset[str] | None:
        """Keys of endpoints that may differ between `version` and now; `None` if that is no longer known."""
        changed: frozenset[str] = frozenset()
        for base, keys in reversed(self._steps.get(cluster, ())):
            changed |= keys
            if base == version:
                return changed
        return None


def build_delta(
    routes_version: str, endpoints: Mapping[str, str], snapshot: Snapshot, history: EndpointHistory
) -> SnapshotDelta:
    """What is missing in a gateway that has `routes_version` and, by cluster, these versions of `endpoints`."""
    return SnapshotDelta(
        routes_version=snapshot.routes_version,
        table=None if routes_version == snapshot.routes_version else snapshot.table,
        endpoints={
            name: _endpoints_delta(name, endpoints.get(name, ""), cluster, history)
            for name, cluster in snapshot.endpoints.items()
            if endpoints.get(name) != cluster.version
        },
        removed_clusters=tuple(sorted(endpoints.keys() - snapshot.endpoints.keys())),
    )


def is_empty(delta: SnapshotDelta) -> bool:
    """Whether a delta says that nothing has changed."""
    return delta.table is None and not delta.endpoints and not delta.removed_clusters


def apply_delta(snapshot: Snapshot | None, delta: SnapshotDelta) -> Snapshot:
    """Put a delta on top of what a gateway has (`None`: nothing), verifying every version that it changes.

    Raises:
        DeltaMismatch: It was made for something else; nothing of it holds.
    """
    if delta.table is not None:
        table, routes_version = delta.table, table_version(delta.table)
    elif snapshot is not None:
        table, routes_version = snapshot.table, snapshot.routes_version
    else:
        raise DeltaMismatch("the delta has no routes, and there are none yet")
    if routes_version != delta.routes_version:
        raise DeltaMismatch(f"the routes are {routes_version}, not {delta.routes_version}")
    endpoints = dict(snapshot.endpoints) if snapshot is not None else {}
    for name in delta.removed_clusters:
        endpoints.pop(name, None)
    for name, change in delta.endpoints.items():
        endpoints[name] = _apply_endpoints(name, endpoints.get(name), change)
    if endpoints.keys() != table.clusters.keys():
        odd = ", ".join(sorted(endpoints.keys() ^ table.clusters.keys()))
        raise DeltaMismatch(f"routes and endpoints do not name the same clusters: {odd}")
    ordered = {name: endpoints[name] for name in table.clusters}
    return Snapshot(routes_version=routes_version, table=table, endpoints=ordered)


def _endpoints_delta(name: str, base: str, cluster: ClusterEndpoints, history: EndpointHistory) -> EndpointsDelta:
    changed = history.changed_since(name, base) if base else None
    if changed is None:
        return EndpointsDelta(version=cluster.version, upsert=cluster.endpoints)
    upsert = tuple(endpoint for endpoint in cluster.endpoints if endpoint.key in changed)
    remove = changed.difference(endpoint.key for endpoint in upsert)
    return EndpointsDelta(version=cluster.version, base=base, upsert=upsert, remove=tuple(sorted(remove)))


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


def _changed_keys(before: tuple[Endpoint, ...], after: tuple[Endpoint, ...]) -> frozenset[str]:
    old = {endpoint.key: endpoint for endpoint in before}
    new = {endpoint.key: endpoint for endpoint in after}
    return frozenset(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
