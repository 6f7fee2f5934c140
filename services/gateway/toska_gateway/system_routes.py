"""The mesh's own routes on the data listener: its APIs and docs, ahead of every other route.

They are added here and never come from a router, so that only this gateway's settings say where requests with a mesh
token go. A snapshot that brings a cluster under one of the mesh's names is refused.
"""

from dataclasses import dataclass
from datetime import timedelta

from toska_common.contracts.routing import (
    Cluster,
    ClusterEndpoints,
    Endpoint,
    Match,
    Policies,
    Route,
    RouteTable,
    Snapshot,
    WeightedCluster,
)
from toska_common.routing.versions import content_version, endpoints_version, table_version

from toska_gateway.addresses import reachable_host, split_url
from toska_gateway.settings import Settings

DISCOVERY, ROUTER, GATEWAY = "toska-discovery", "toska-router", "toska-gateway"

MESH_ROUTE_PREFIX = "toska:"
"""How the names of these routes begin."""

_PREFIXES = {
    DISCOVERY: ("/api/v1/services",),
    ROUTER: (
        *("/api/v1/routes", "/api/v1/clusters", "/api/v1/policies", "/api/v1/schemas"),
        *("/api/v1/revisions", "/api/v1/diff", "/api/v1/rollback"),
        *("/api/v1/rollouts", "/api/v1/experiments", "/api/v1/select", "/api/v1/xds"),
        *("/api/v1/snapshot", "/api/v1/gateways"),
    ),
    GATEWAY: ("/api/v1/gateway", "/api/v1/openapi", "/openapi.json", "/docs", "/problems"),
}
_LONGEST_WAIT = timedelta(seconds=620)
"""A blocking query may wait 600 s (`SnapshotPoll.wait_seconds`)."""


@dataclass(frozen=True, slots=True)
class SystemRoutes:
    """Routes and clusters that are put in front of every snapshot; both empty where the mesh is not served."""

    table: RouteTable
    version: str

    def put_in_front(self, snapshot: Snapshot, table: RouteTable | None = None) -> Snapshot:
        """The snapshot as it is served; `table` is that of one before it which had the same routes and clusters."""
        if not self.table.routes:
            return snapshot
        own = self.table.clusters
        endpoints = {
            name: ClusterEndpoints(version=endpoints_version(cluster.endpoints), endpoints=cluster.endpoints)
            for name, cluster in own.items()
        }
        # Not validated again: that takes longer than the rest of a change of 10,000 routes.
        table = table or RouteTable.model_construct(
            server=snapshot.table.server,
            clusters={**snapshot.table.clusters, **own},
            routes=(*self.table.routes, *snapshot.table.routes),
        )
        return Snapshot.model_construct(
            routes_version=content_version([self.version, snapshot.routes_version]),
            table=table,
            endpoints={**snapshot.endpoints, **endpoints},
        )


def build_system_routes(settings: Settings) -> SystemRoutes:
    """The routes that these settings ask for."""
    if not settings.management_on_data_listener:
        return SystemRoutes(RouteTable(), "")
    places = {
        DISCOVERY: split_url(settings.discovery_url),
        ROUTER: split_url(settings.router_url),
        GATEWAY: (settings.bound_admin_host, settings.admin_port),
    }
    table = RouteTable(
        clusters={name: _cluster(*place) for name, place in places.items()},
        routes=tuple(_route(name, prefix) for name, prefixes in _PREFIXES.items() for prefix in prefixes),
    )
    return SystemRoutes(table, table_version(table))


def _cluster(host: str, port: int) -> Cluster:
    # One endpoint, so ejecting it would help nobody: every request that comes tries it.
    return Cluster(endpoints=(Endpoint(address=reachable_host(host), port=port),))


def _route(cluster: str, prefix: str) -> Route:
    return Route(
        name=f"{MESH_ROUTE_PREFIX}{prefix.removeprefix('/api/v1').strip('/')}",
        match=Match(path_prefix=prefix),
        to=(WeightedCluster(cluster=cluster),),
        policies=Policies(response_timeout=_LONGEST_WAIT),
    )
