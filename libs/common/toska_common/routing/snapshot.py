"""Building snapshots: operators' routes and automatic ones in one table, joined with the endpoints of each cluster.

Pure and deterministic, so any two routers of the same inputs serve the same versions. The router uses it for the whole
mesh, and the gateway for `--routes FILE`.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from toska_common.contracts.names import is_reserved
from toska_common.contracts.routing import (
    Cluster,
    ClusterEndpoints,
    Match,
    Policies,
    Route,
    RouteTable,
    RoutingDocument,
    Snapshot,
    WeightedCluster,
)
from toska_common.routing.merging import merge_known
from toska_common.routing.order import AUTOMATIC_PREFIX, order_routes
from toska_common.routing.pools import EMPTY, pool
from toska_common.routing.versions import table_version

MAX_REMEMBERED = 1 << 16
"""Automatic routes and clusters that are kept: as the same objects they cost nothing in the next table."""
_NO_INSTANCES: Mapping[str, ClusterEndpoints] = {}
_NOTHING_OFFERED: Mapping[str, Sequence[Route]] = {}


def build_table(
    document: RoutingDocument,
    automatic: Iterable[str] = (),
    *,
    offered: Mapping[str, Sequence[Route]] = _NOTHING_OFFERED,
) -> RouteTable:
    """The table of a checked document, of the services that asked for an automatic route, and of what they offered.

    Policies are merged. Routes that a service asked for are `offered`, by service; they need no automatic route.

    An operator's cluster with the name of such a service stands for it, so its balancer and limits hold there too.
    """
    exposed = sorted({service for service in automatic if not is_reserved(service)})
    services = {*exposed, *offered}
    asked_for = [route for _, routes in sorted(offered.items()) for route in routes]
    operators = [merge_known(route, document.policies) for route in document.routes]
    routes = order_routes([*operators, *asked_for, *(automatic_route(service) for service in exposed)])
    clusters = {service: automatic_cluster(service) for service in services} | dict(document.clusters)
    # Not validated: it is made of what has been.
    return RouteTable.model_construct(server=document.server, clusters=dict(sorted(clusters.items())), routes=routes)


@lru_cache(maxsize=MAX_REMEMBERED)
def automatic_cluster(service: str) -> Cluster:
    """The cluster of such a service, unless an operator has one of its name."""
    return Cluster(service=service)


@lru_cache(maxsize=MAX_REMEMBERED)
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
    instances: Mapping[str, ClusterEndpoints] = _NO_INSTANCES,
    *,
    previous: Snapshot | None = None,
) -> Snapshot:
    """Join a table with the endpoints that the registry has.

    Args:
        table: What `build_table` made.
        instances: By service, made by `pool`; a service that is absent has no endpoints.
        previous: The snapshot before; what is the same in it is taken over and not hashed again.
    """
    known: Mapping[str, ClusterEndpoints] = previous.endpoints if previous is not None else {}
    endpoints: dict[str, ClusterEndpoints] = {}
    for name, cluster in table.clusters.items():
        if cluster.service is not None:
            endpoints[name] = instances.get(cluster.service, EMPTY)
        elif previous is not None and name in known and previous.table.clusters.get(name) is cluster:
            endpoints[name] = known[name]
        else:
            endpoints[name] = pool(cluster.endpoints)
    # Not validated: it is made of what has been, and 10,000 clusters would take 10 ms with each change.
    return Snapshot.model_construct(routes_version=table_version(table), table=table, endpoints=endpoints)
