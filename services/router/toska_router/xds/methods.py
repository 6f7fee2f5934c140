"""The gRPC services of xDS: which method serves which types, in which variant."""

from collections.abc import Iterator
from dataclasses import dataclass

from toska_router.xds import types


@dataclass(frozen=True, slots=True)
class Method:
    """One bidirectional stream; `type_url` is empty where all types are on it."""

    service: str
    name: str
    incremental: bool
    type_url: str = ""

    @property
    def path(self) -> str:
        """As gRPC calls it."""
        return f"/{self.service}/{self.name}"


_SERVICES = (
    ("discovery.v3.AggregatedDiscoveryService", "AggregatedResources", ""),
    ("listener.v3.ListenerDiscoveryService", "Listeners", types.LISTENER),
    ("route.v3.RouteDiscoveryService", "Routes", types.ROUTE),
    ("route.v3.ScopedRoutesDiscoveryService", "ScopedRoutes", types.SCOPED_ROUTE),
    ("cluster.v3.ClusterDiscoveryService", "Clusters", types.CLUSTER),
    ("endpoint.v3.EndpointDiscoveryService", "Endpoints", types.ENDPOINTS),
    ("secret.v3.SecretDiscoveryService", "Secrets", types.SECRET),
    ("runtime.v3.RuntimeDiscoveryService", "Runtime", types.RUNTIME),
    ("extension.v3.ExtensionConfigDiscoveryService", "ExtensionConfigs", types.EXTENSION_CONFIG),
)


def list_methods() -> Iterator[Method]:
    """Every stream that the server speaks."""
    for service, resources, type_url in _SERVICES:
        full_name = f"envoy.service.{service}"
        yield Method(full_name, f"Stream{resources}", incremental=False, type_url=type_url)
        yield Method(full_name, f"Delta{resources}", incremental=True, type_url=type_url)
    hosts = "envoy.service.route.v3.VirtualHostDiscoveryService"
    yield Method(hosts, "DeltaVirtualHosts", incremental=True, type_url=types.VIRTUAL_HOST)
