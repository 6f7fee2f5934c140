"""The mesh's own routes on the data listener: its APIs and docs, ahead of every other route.

They are added here and never come from a router, so that only this gateway's settings say where requests with a mesh
token go. A snapshot that brings a cluster under one of the mesh's names is refused.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from toska_common.contracts.routing import (
    Cluster,
    Endpoint,
    Match,
    PlacedRoute,
    Policies,
    Route,
    RouteTable,
    Snapshot,
    WeightedCluster,
)
from toska_common.routing.placing import FIRST
from toska_common.routing.pools import changed_pools, pool, with_pools
from toska_common.routing.tables import FEW, TableChange, apply_table_delta, build_table_delta, compare
from toska_common.routing.versions import content_version, table_version

from toska_gateway.addresses import reachable_host, split_url
from toska_gateway.settings import Settings

DISCOVERY, ROUTER, EVENTS = "toska-discovery", "toska-router", "toska-events"
GATEWAY = "toska-gateway"

MESH_ROUTE_PREFIX = "toska:"
"""How the names of these routes begin."""

_PREFIXES = {
    DISCOVERY: ("/api/v1/services",),
    ROUTER: (
        *("/api/v1/routes", "/api/v1/clusters", "/api/v1/policies", "/api/v1/schemas"),
        *("/api/v1/revisions", "/api/v1/diff", "/api/v1/rollback", "/api/v1/changes", "/api/v1/document"),
        *("/api/v1/rollouts", "/api/v1/experiments", "/api/v1/select", "/api/v1/xds"),
        *("/api/v1/snapshot", "/api/v1/gateways"),
    ),
    EVENTS: ("/api/v1/events",),
    GATEWAY: ("/api/v1/gateway", "/api/v1/openapi", "/openapi.json", "/docs", "/problems"),
}
_LONGEST_WAIT = timedelta(seconds=620)
"""A blocking query may wait 600 s (`SnapshotPoll.wait_seconds`)."""


@dataclass(frozen=True, slots=True)
class SystemRoutes:
    """Routes and clusters that are put in front of every snapshot; both empty where the mesh is not served."""

    table: RouteTable
    version: str

    def put_in_front(self, snapshot: Snapshot, before: tuple[Snapshot, Snapshot] | None = None) -> Snapshot:
        """The snapshot as it is served; `before` is an earlier one and what that was served as, or `None`."""
        if not self.table.routes:
            return snapshot
        version = content_version([self.version, snapshot.routes_version])
        if before is not None:
            given, served = before
            table = self._change(served.table, compare(given.table, snapshot.table), snapshot.table)
            pools = {name: snapshot.endpoints[name] for name in changed_pools(given, snapshot)}
            return with_pools(served, table, version, pools)
        own = {name: pool(cluster.endpoints) for name, cluster in self.table.clusters.items()}
        return Snapshot.model_construct(
            routes_version=version, table=self._in_front(snapshot.table), endpoints={**snapshot.endpoints, **own}
        )

    def _in_front(self, table: RouteTable) -> RouteTable:
        # Not validated again: that takes longer than the rest of a change of 10,000 routes.
        return RouteTable.model_construct(
            server=table.server,
            clusters={**table.clusters, **self.table.clusters},
            routes=(*self.table.routes, *table.routes),
        )

    def _change(self, served: RouteTable, change: TableChange, table: RouteTable) -> RouteTable:
        """What is served, with what has changed in the table behind."""
        if not change:
            return served
        if change.server or len(change) > FEW:
            return self._in_front(table)
        delta = build_table_delta(change, table, "")
        routes = delta.routes
        if routes and routes[0].after in (None, FIRST):  # the first there comes after all of ours
            first = PlacedRoute.model_construct(route=routes[0].route, after=self.table.routes[-1].name)
            delta = delta.model_copy(update={"routes": (first, *routes[1:])})
        return apply_table_delta(served, delta)


def build_system_routes(settings: Settings) -> SystemRoutes:
    """The routes that these settings ask for."""
    if not settings.management_on_data_listener:
        return SystemRoutes(RouteTable(), "")
    places = {
        DISCOVERY: split_url(settings.discovery_url),
        ROUTER: split_url(settings.router_url),
        EVENTS: split_url(settings.events_api_url),
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
    upgrade: tuple[Literal["websocket"], ...] = ("websocket",) if cluster == EVENTS else ()
    return Route(
        name=f"{MESH_ROUTE_PREFIX}{prefix.removeprefix('/api/v1').strip('/')}",
        match=Match(path_prefix=prefix),
        to=(WeightedCluster(cluster=cluster),),
        policies=Policies(response_timeout=_LONGEST_WAIT, upgrade=upgrade),
    )
