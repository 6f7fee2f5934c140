"""Snapshots as workers take them: plain data with seconds for durations and times, and only what has changed."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from anyio.lowlevel import checkpoint
from toska_common.contracts.names import RESERVED_PREFIX
from toska_common.contracts.routing import Cluster, ClusterEndpoints, Endpoint, RouteTable, Snapshot
from toska_common.routing.pools import changed_pools
from toska_common.routing.tables import TableChange, build_table_delta, compare, whole_table_delta
from toska_common.targets import TargetRules

from toska_gateway.tls_material import NO_TLS, TlsMaterial
from toska_gateway.worker.plane import Plane
from toska_gateway.worker.staging import Staging

_SLICE = 40
"""Routes or clusters in one message: compiled by a worker in well under a millisecond."""
_PLACES_SLICE = 500
_ENDPOINT_SLICE = 500
_PARENTS_OWN: Any = {"tls": True, "tracing": {"endpoint", "headers", "header_files", "service_name"}}
"""Of the server's settings, what workers have no use for, or get in another form."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a worker has been given so far.

    Attributes:
        snapshot: In force there; `None` before the first.
        tls_version: Of the certificates and keys that it has.
        crowded: Whether it has no room left between two routes, so that all have to be placed anew.
    """

    snapshot: Snapshot | None = None
    tls_version: str = ""
    crowded: bool = False


def messages(
    known: Known, snapshot: Snapshot, mesh_owned: frozenset[str], tls: TlsMaterial = NO_TLS
) -> Iterator[dict[str, Any]]:
    """The messages that bring a worker from what it has to `snapshot`, without the commit."""
    before = known.snapshot
    table_changed = known.crowded or before is None or before.routes_version != snapshot.routes_version
    if table_changed:
        yield from _table_messages(before, snapshot.table, mesh_owned, crowded=known.crowded)
    if known.tls_version != tls.version or (table_changed and tls.version):
        yield {"op": "tls", "server": tls.server, "clusters": dict(tls.clusters)}
    if before is None:
        for name, pool in snapshot.endpoints.items():
            yield from _endpoint_messages(name, None, pool)
    else:
        for name in changed_pools(before, snapshot):
            yield from _endpoint_messages(name, before.endpoints.get(name), snapshot.endpoints[name])


def _table_messages(
    before: Snapshot | None, table: RouteTable, mesh_owned: frozenset[str], *, crowded: bool
) -> Iterator[dict[str, Any]]:
    # (comparing with nothing would put 10,000 routes in order, for longer than others should have to wait)
    change = TableChange(clusters=frozenset(table.clusters)) if before is None else compare(before.table, table)
    anew = crowded or before is None
    delta = whole_table_delta(table, "") if anew else build_table_delta(change, table, "")
    yield {
        "op": "table",
        "server": plain(table.server.model_dump(exclude=_PARENTS_OWN)),
        "removed_clusters": sorted(change.clusters - table.clusters.keys()),
        "anew": anew,
        "removed_routes": list(delta.removed_routes),
    }
    clusters = sorted(change.clusters & table.clusters.keys())
    for start in range(0, len(clusters), _SLICE):
        part = {name: table.clusters[name] for name in clusters[start : start + _SLICE]}
        yield {"op": "clusters", "clusters": {name: _cluster(one, name in mesh_owned) for name, one in part.items()}}
    for start in range(0, len(delta.routes), _SLICE):
        yield {
            "op": "routes",
            "routes": [plain(one.route.model_dump()) for one in delta.routes[start : start + _SLICE]],
        }
    for start in range(0, len(delta.routes), _PLACES_SLICE):
        part = delta.routes[start : start + _PLACES_SLICE]
        yield {"op": "places", "places": [[one.route.name, one.after] for one in part]}


async def rehearse(snapshot: Snapshot, mesh_owned: frozenset[str], tls: TlsMaterial = NO_TLS) -> list[str]:
    """What is wrong with a snapshot, as a worker would say; for when there is no worker to ask."""
    staging = Staging(Plane(asyncio.get_running_loop(), TargetRules()))
    for message in messages(Known(), snapshot, mesh_owned, tls):
        staging.take(message)
        await checkpoint()  # others have this loop too
    while staging.prepare():
        await checkpoint()
    return staging.commit()


def _endpoint_messages(name: str, before: ClusterEndpoints | None, now: ClusterEndpoints) -> Iterator[dict[str, Any]]:
    old: Mapping[str, Endpoint] = {} if before is None else {item.key: item for item in before.endpoints}
    new = {item.key: item for item in now.endpoints}
    upsert = [_endpoint(item) for key, item in new.items() if old.get(key) != item]
    remove = [key for key in old if key not in new]
    # The first part says whether it builds on what the worker has; a worker that has no such cluster starts anew.
    for start in range(0, max(1, len(upsert)), _ENDPOINT_SLICE):
        yield {
            "op": "endpoints",
            "cluster": name,
            "version": now.version,
            "reset": before is None and start == 0,
            "upsert": upsert[start : start + _ENDPOINT_SLICE],
            "remove": remove if start == 0 else [],
        }


def _cluster(cluster: Cluster, mesh_owned: bool) -> dict[str, Any]:
    settings = plain(cluster.model_dump(exclude={"endpoints", "service", "tls"}))
    return {**settings, "mesh_owned": mesh_owned, "fixed": cluster.service is None}


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "key": endpoint.key,
        "address": endpoint.address,
        "port": endpoint.port,
        "weight": endpoint.weight,
        "zone": endpoint.zone,
    }


def plain(value: Any) -> Any:
    """A dumped model as the wire has it: durations in seconds, tuples as lists."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast("list[Any]", value)]
    return value


def owned_by_the_mesh(names: Mapping[str, Any]) -> frozenset[str]:
    """Clusters whose names only the mesh itself can give."""
    return frozenset(name for name in names if is_owned_by_the_mesh(name))


def is_owned_by_the_mesh(cluster: str) -> bool:
    """Whether only the mesh itself can give a cluster this name."""
    return cluster.startswith(RESERVED_PREFIX)
