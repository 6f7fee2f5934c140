"""The resource types of xDS, and the order in which a client has to hear of them.

Sources: "xDS REST and gRPC protocol" (Envoy's API documentation), §Resource Types, §Grouping Resources into Responses,
§Eventual consistency considerations.
"""

PREFIX = "type.googleapis.com/"
LISTENER = f"{PREFIX}envoy.config.listener.v3.Listener"
ROUTE = f"{PREFIX}envoy.config.route.v3.RouteConfiguration"
SCOPED_ROUTE = f"{PREFIX}envoy.config.route.v3.ScopedRouteConfiguration"
VIRTUAL_HOST = f"{PREFIX}envoy.config.route.v3.VirtualHost"
CLUSTER = f"{PREFIX}envoy.config.cluster.v3.Cluster"
ENDPOINTS = f"{PREFIX}envoy.config.endpoint.v3.ClusterLoadAssignment"
SECRET = f"{PREFIX}envoy.extensions.transport_sockets.tls.v3.Secret"
RUNTIME = f"{PREFIX}envoy.service.runtime.v3.Runtime"
EXTENSION_CONFIG = f"{PREFIX}envoy.config.core.v3.TypedExtensionConfig"

WHOLE_TYPES = frozenset({LISTENER, CLUSTER})
"""In the state-of-the-world variant a response of these has all resources, and what it lacks is removed."""

MAKE_ORDER = (SECRET, RUNTIME, EXTENSION_CONFIG, CLUSTER, ENDPOINTS, LISTENER, SCOPED_ROUTE, ROUTE, VIRTUAL_HOST)
"""New and changed resources go out in this order; types that are not in it come first."""

BREAK_ORDER = (LISTENER, SCOPED_ROUTE, ROUTE, VIRTUAL_HOST, CLUSTER, ENDPOINTS, EXTENSION_CONFIG, RUNTIME, SECRET)
"""What is gone is taken away in this order: what refers to others goes before what it refers to."""

WAITS_FOR = {
    LISTENER: (CLUSTER, ENDPOINTS),
    SCOPED_ROUTE: (CLUSTER, ENDPOINTS, LISTENER),
    ROUTE: (CLUSTER, ENDPOINTS, LISTENER),
    VIRTUAL_HOST: (CLUSTER, ENDPOINTS, LISTENER, ROUTE),
}
"""Types of which nothing may be unanswered before a type is sent.

Envoy answers clusters only once they are warm, which is what lets a server know when routes may lead to them. Endpoints
and secrets wait for nothing: they are what clusters are warmed with.
"""


def short_name(type_url: str) -> str:
    """The last part of a type's name: `Cluster`."""
    return type_url.rpartition(".")[2]
