"""Building snapshots: operators' routes and automatic ones in one table, joined with the endpoints of each cluster.

Pure and deterministic, so any two routers of the same inputs serve the same versions. The router uses it for the whole
mesh, and the gateway for `--routes FILE`.
"""

from collections.abc import Iterable, Mapping, Sequence

from toska_common.contracts.names import is_reserved
from toska_common.contracts.routing import (
    Cluster,
    ClusterEndpoints,
    Endpoint,
    Match,
    Policies,
    Route,
    RouteTable,
    RoutingDocument,
    Snapshot,
    WeightedCluster,
)
from toska_common.routing.order import AUTOMATIC_PREFIX, order_routes
from toska_common.routing.versions import endpoints_version, table_version

_NO_ENDPOINTS: Mapping[str, Sequence[Endpoint]] = {}


def build_table(document: RoutingDocument, automatic: Iterable[str] = ()) -> RouteTable:
    """The table of a checked document and of the services that asked for an automatic route.

    An operator's cluster with the name of such a service stands for it, so its balancer and limits hold there too.
    """
    services = sorted({service for service in automatic if not is_reserved(service)})
    routes = order_routes([*document.routes, *(automatic_route(service) for service in services)])
    clusters = {service: Cluster(service=service) for service in services} | dict(document.clusters)
    return RouteTable(server=document.server, clusters=dict(sorted(clusters.items())), routes=routes)


def automatic_route(service: str) -> Route:
    """The route `/{service}/…` of a service that asked for one; its metrics and health are not for everybody."""
    prefix = f"/{service}"
    return Route(
        name=f"{AUTOMATIC_PREFIX}{service}",
        match=Match(path_prefix=prefix, except_prefixes=(f"{prefix}/metrics", f"{prefix}/health")),
        to=(WeightedCluster(cluster=service),),
        strip_prefix=True,
        policies=Policies(upgrade=("websocket",)),
    )


def build_snapshot(
    table: RouteTable,
    instances: Mapping[str, Sequence[Endpoint]] = _NO_ENDPOINTS,
    *,
    previous: Snapshot | None = None,
) -> Snapshot:
    """Join a table with the endpoints that the registry has, by service.

    Args:
        table: What `build_table` made.
        instances: By service; a service that is absent has no endpoints.
        previous: The snapshot before; parts of it that are the same are taken over and not hashed again.
    """
    known: Mapping[str, ClusterEndpoints] = previous.endpoints if previous is not None else {}
    endpoints: dict[str, ClusterEndpoints] = {}
    for name, cluster in table.clusters.items():
        given = cluster.endpoints if cluster.service is None else instances.get(cluster.service, ())
        found = sort_endpoints(given)
        before = known.get(name)
        same = before is not None and before.endpoints == found
        endpoints[name] = before if before is not None and same else _version_endpoints(found)
    same_table = previous is not None and previous.table is table
    version = previous.routes_version if previous is not None and same_table else table_version(table)
    return Snapshot(routes_version=version, table=table, endpoints=endpoints)


def sort_endpoints(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """Endpoints in the order in which snapshots list them: by key, so that it does not depend on who was first."""
    return tuple(sorted(endpoints, key=lambda endpoint: endpoint.key))


def _version_endpoints(endpoints: tuple[Endpoint, ...]) -> ClusterEndpoints:
    return ClusterEndpoints(version=endpoints_version(endpoints), endpoints=endpoints)
