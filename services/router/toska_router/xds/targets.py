"""Resources for gRPC's own xDS clients, which dial `xds:///NAME`: a listener of that name, and all that it leads to.

A target is either a cluster with its endpoints (`build_target`), or routes and splits between such clusters
(`build_routed_target`).

They take other shapes than Envoy's, so they are resources of their own: the listener has no address (`api_listener`),
everything comes over the aggregated stream, and each locality has a weight.

Sources: gRPC proposals A27 (xDS-based global load balancing) and A28 (traffic splitting and routing).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

from toska_common.envoy_api import message_class

from toska_router.xds import types

PREFIX = "grpc/"
"""Of the names of all but the listener, so that they are not mistaken for Envoy's."""
ROUTED_PREFIX = "grpc-routes/"
"""Of the names of the routes of routed targets, so that they are not mistaken for those of a cluster."""

_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "envoy.extensions.filters.http.router.v3.Router"
_CONNECT_TIMEOUT_S = 5
_V3 = 2


@dataclass(frozen=True, slots=True)
class TargetEndpoint:
    """One address of a target."""

    address: str
    port: int
    weight: int = 1
    zone: str = ""


@dataclass(frozen=True, slots=True)
class HeaderTest:
    """What a header of a request (metadata) has to be: one of these."""

    name: str
    exact: str | None = None
    prefix: str | None = None
    suffix: str | None = None
    contains: str | None = None
    regex: str | None = None
    present: bool | None = None


@dataclass(frozen=True, slots=True)
class TargetRoute:
    """Some of a target's requests, and how they are shared out.

    Attributes:
        weights: Of the clusters, by name; each needs resources of its own (`build_target`).
        path: Exactly this path, `/package.Service/Method`; or
        regex: an expression of RE2 that the whole path has to fit; or
        prefix: what it begins with.
        headers: All of these have to hold.
        timeout: Of each call; the caller's own deadline holds too.
    """

    weights: Mapping[str, int]
    path: str | None = None
    regex: str | None = None
    prefix: str = ""
    headers: tuple[HeaderTest, ...] = ()
    timeout: timedelta | None = None


def build_routed_target(name: str, routes: Sequence[TargetRoute]) -> dict[str, dict[str, Any]]:
    """Messages by type URL and name for `xds:///NAME`; the first route that fits takes a request, and none fails it."""
    own = ROUTED_PREFIX + name
    made = message_class("envoy.config.route.v3.RouteConfiguration")(name=own)
    host = made.virtual_hosts.add(name=own, domains=["*"])
    for route in routes:
        _add_route(host, route)
    return {types.LISTENER: {name: _listener(name, own)}, types.ROUTE: {own: made}}


def _add_route(host: Any, route: TargetRoute) -> None:
    made = host.routes.add()
    if route.path is not None:
        made.match.path = route.path
    elif route.regex is not None:
        made.match.safe_regex.regex = route.regex
    else:
        made.match.prefix = route.prefix
    for test in route.headers:
        _add_header(made.match, test)
    for cluster, weight in route.weights.items():
        made.route.weighted_clusters.clusters.add(name=PREFIX + cluster).weight.value = weight
    if route.timeout is not None:
        made.route.max_stream_duration.max_stream_duration.FromTimedelta(route.timeout)


def _add_header(match: Any, test: HeaderTest) -> None:
    header = match.headers.add(name=test.name)
    if test.regex is not None:
        header.safe_regex_match.regex = test.regex
    elif test.present is not None:
        header.present_match = test.present
    else:
        # The older words, which every release of gRPC reads.
        words = {
            "exact_match": test.exact,
            "prefix_match": test.prefix,
            "suffix_match": test.suffix,
            "contains_match": test.contains,
        }
        for word, text in words.items():
            if text is not None:
                setattr(header, word, text)


def build_target(
    name: str, endpoints: Iterable[TargetEndpoint], *, report_loads: bool = False
) -> dict[str, dict[str, Any]]:
    """Messages by type URL and name for `xds:///NAME`, to be set as resources on demand.

    gRPC looks no names up here: endpoints that are none of IP addresses are left out.
    """
    own = PREFIX + name
    return {
        types.LISTENER: {name: _listener(name, own)},
        types.ROUTE: {own: _routes(own)},
        types.CLUSTER: {own: _cluster(own, report_loads)},
        types.ENDPOINTS: {own: _endpoints(own, endpoints)},
    }


def _listener(name: str, routes: str) -> Any:
    manager = message_class(_MANAGER)()
    manager.rds.route_config_name = routes
    _over_the_same_stream(manager.rds.config_source)
    manager.http_filters.add(name="router").typed_config.Pack(message_class(_ROUTER)())
    listener = message_class("envoy.config.listener.v3.Listener")(name=name)
    listener.api_listener.api_listener.Pack(manager)
    return listener


def _routes(own: str) -> Any:
    made = message_class("envoy.config.route.v3.RouteConfiguration")(name=own)
    route = made.virtual_hosts.add(name=own, domains=["*"]).routes.add()
    route.match.prefix = ""
    route.route.cluster = own
    return made


def _cluster(own: str, report_loads: bool) -> Any:
    cluster = message_class("envoy.config.cluster.v3.Cluster")(name=own)
    cluster.type = cluster.EDS
    cluster.lb_policy = cluster.ROUND_ROBIN
    cluster.connect_timeout.seconds = _CONNECT_TIMEOUT_S
    _over_the_same_stream(cluster.eds_cluster_config.eds_config)
    if report_loads:
        cluster.lrs_server.self.SetInParent()  # to this very server
    return cluster


def _endpoints(own: str, endpoints: Iterable[TargetEndpoint]) -> Any:
    made = message_class("envoy.config.endpoint.v3.ClusterLoadAssignment")(cluster_name=own)
    zones: dict[str, Any] = {}
    for endpoint in endpoints:
        if not _is_address(endpoint.address):
            continue
        zone = zones.get(endpoint.zone)
        if zone is None:
            zone = zones[endpoint.zone] = made.endpoints.add()
            zone.locality.zone = endpoint.zone
        zone.load_balancing_weight.value += endpoint.weight
        member = zone.lb_endpoints.add()
        member.load_balancing_weight.value = endpoint.weight
        member.endpoint.address.socket_address.address = endpoint.address
        member.endpoint.address.socket_address.port_value = endpoint.port
    return made


def _over_the_same_stream(source: Any) -> None:
    source.ads.SetInParent()
    source.resource_api_version = _V3


def _is_address(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True
