"""A whole configuration: resources by type and name, in protobuf's JSON form."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from toska_common.envoy.words import TYPES, Json

LISTENER = TYPES + "envoy.config.listener.v3.Listener"
ROUTES = TYPES + "envoy.config.route.v3.RouteConfiguration"
CLUSTER = TYPES + "envoy.config.cluster.v3.Cluster"
ENDPOINTS = TYPES + "envoy.config.endpoint.v3.ClusterLoadAssignment"


def _none() -> dict[str, Json]:
    return {}


@dataclass(frozen=True)
class Resources:
    """What one Envoy is told; each resource by its name."""

    listeners: Mapping[str, Json] = field(default_factory=_none)
    routes: Mapping[str, Json] = field(default_factory=_none)
    clusters: Mapping[str, Json] = field(default_factory=_none)
    endpoints: Mapping[str, Json] = field(default_factory=_none)

    def by_type(self) -> dict[str, Mapping[str, Json]]:
        """By type URL."""
        return {
            CLUSTER: self.clusters,
            ENDPOINTS: self.endpoints,
            LISTENER: self.listeners,
            ROUTES: self.routes,
        }
