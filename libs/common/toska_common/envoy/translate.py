"""A whole table in Envoy's words."""

import hashlib
import json
from collections.abc import Iterable, Mapping

from toska_common.contracts.routing import Cluster, ClusterEndpoints, Endpoint, RouteTable
from toska_common.contracts.tls import ClusterTls
from toska_common.envoy import failovers
from toska_common.envoy.clusters import aggregate_resource, cluster_resource, upstream_tls, uses_of
from toska_common.envoy.endpoints import has_names, load_assignment
from toska_common.envoy.failovers import Shares
from toska_common.envoy.filters import http_filters
from toska_common.envoy.listeners import listener_resources
from toska_common.envoy.options import Options
from toska_common.envoy.resources import Resources
from toska_common.envoy.route_parts import RouteParts
from toska_common.envoy.routes import route_configuration
from toska_common.envoy.telling import COLLECTOR, collector_url
from toska_common.envoy.tokens import fetched, keys_cluster_name, place_of
from toska_common.envoy.words import Json, socket_address

_CONNECT_TIMEOUT = "2s"


def translate(
    table: RouteTable, endpoints: Mapping[str, ClusterEndpoints], options: Options, parts: RouteParts | None = None
) -> Resources:
    """Everything that an Envoy is told to serve this table; what it cannot do is `find_refusals`' to say.

    `parts` are of the table before, for whoever translates one after the other with the same options.
    """
    known = {name: endpoints[name].endpoints if name in endpoints else () for name in table.clusters}
    uses = uses_of(table)
    shares = failovers.shares_of(table)
    clusters = {name: cluster_resource(name, table, known[name], options, uses, shares) for name in table.clusters}
    clusters |= {one.name: aggregate_resource(one, table, options, uses) for one in failovers.chains_of(table)}
    clusters |= {made["name"]: made for made in _own_clusters(table, options)}
    chain = http_filters(table, options)
    name = _routes_name(listener_resources(table, options, "", chain))
    routes = route_configuration(table, options, name, parts, chain)
    return Resources(
        listeners={made["name"]: made for made in listener_resources(table, options, name, chain)},
        routes={routes["name"]: routes},
        clusters=clusters,
        endpoints=translate_endpoints(table.clusters, known, options, shares),
    )


def _routes_name(listeners: Iterable[Json]) -> str:
    """A name of its own for each set of filters, so that new filters and the routes that need them come together."""
    told = json.dumps([*listeners], sort_keys=True)
    return f"toska-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def translate_endpoints(
    clusters: Mapping[str, Cluster],
    known: Mapping[str, Iterable[Endpoint]],
    options: Options,
    shares: Shares,
) -> dict[str, Json]:
    """The endpoints of clusters that Envoy is told them of; where there are names, the cluster itself has them.

    `shares` is `failovers.shares_of` the whole table.
    """
    made: dict[str, Json] = {}
    for name, cluster in clusters.items():
        members = tuple(known.get(name, ()))
        if options.addresses is not None or not has_names(members):
            made[name] = load_assignment(name, cluster, members, options, shares.get(name))
    return made


def _own_clusters(table: RouteTable, options: Options) -> Iterable[Json]:
    """Where issuers' keys are fetched, and where spans go."""
    for jwt in fetched(table):
        yield _place(keys_cluster_name(jwt), jwt.jwks_url or "", ClusterTls(ca=jwt.jwks_ca), options)
    if table.server.tracing is not None:
        yield _place(COLLECTOR, collector_url(table.server.tracing), ClusterTls(), options)


def _place(name: str, url: str, tls: ClusterTls, options: Options) -> Json:
    host, port, encrypted = place_of(url)
    member = {"endpoint": {"address": socket_address(host, port)}}
    made: Json = {
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": _CONNECT_TIMEOUT,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [member]}]},
    }
    if encrypted:
        made["transport_socket"] = upstream_tls(tls, options, server_name=host)
    return made
