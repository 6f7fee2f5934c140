"""Snapshots as workers take them: plain data with seconds for durations and times, and only what has changed."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

from toska_common.contracts.names import RESERVED_PREFIX
from toska_common.contracts.routing import ClusterEndpoints, Endpoint, Snapshot
from toska_common.targets import TargetRules

from toska_gateway.tls_material import NO_TLS, TlsMaterial
from toska_gateway.worker.plane import Plane
from toska_gateway.worker.staging import Staging

_SLICE = 40
"""Routes in one message: compiled by a worker in well under a millisecond."""
_ENDPOINT_SLICE = 500
_PARENTS_OWN: Any = {"tls": True, "tracing": {"endpoint", "headers", "header_files", "service_name"}}
"""Of the server's settings, what workers have no use for, or get in another form."""


@dataclass(slots=True)
class Known:
    """What a worker has been given so far."""

    routes_version: str = ""
    endpoints: dict[str, ClusterEndpoints] = field(default_factory=dict[str, ClusterEndpoints])
    tls_version: str = ""


def messages(
    known: Known, snapshot: Snapshot, mesh_owned: frozenset[str], tls: TlsMaterial = NO_TLS
) -> Iterator[dict[str, Any]]:
    """The messages that bring a worker from what it has to `snapshot`, without the commit; `known` is not changed."""
    table_changed = known.routes_version != snapshot.routes_version
    if table_changed:
        table = snapshot.table
        clusters = {
            name: {
                **plain(cluster.model_dump(exclude={"endpoints", "service", "tls"})),
                "mesh_owned": name in mesh_owned,
                "fixed": cluster.service is None,
            }
            for name, cluster in table.clusters.items()
        }
        yield {"op": "table", "server": plain(table.server.model_dump(exclude=_PARENTS_OWN)), "clusters": clusters}
        for start in range(0, len(table.routes), _SLICE):
            part = table.routes[start : start + _SLICE]
            yield {"op": "routes", "routes": [plain(route.model_dump()) for route in part]}
    if known.tls_version != tls.version or (table_changed and tls.version):
        yield {"op": "tls", "server": tls.server, "clusters": dict(tls.clusters)}
    for name, cluster in snapshot.endpoints.items():
        before = known.endpoints.get(name)
        if before is None or before.version != cluster.version:
            yield from _endpoint_messages(name, before, cluster)


def rehearse(snapshot: Snapshot, mesh_owned: frozenset[str], tls: TlsMaterial = NO_TLS) -> list[str]:
    """What is wrong with a snapshot, as a worker would say; for when there is no worker to ask."""
    staging = Staging(Plane(asyncio.get_running_loop(), TargetRules()))
    for message in messages(Known(), snapshot, mesh_owned, tls):
        staging.take(message)
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
    return frozenset(name for name in names if name.startswith(RESERVED_PREFIX))
