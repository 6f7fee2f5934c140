"""How things stand in the live workers at this moment, summed."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from toska_common.contracts.routing import Cluster

from toska_gateway.totals import MAX_ENDPOINTS, OTHER


class Gauges:
    """Sums of the workers' present state; `clusters` are those in force.

    Attributes:
        connections: Of clients.
        cache: What all workers keep, by the names in `OF_CACHES`.
        clusters: Values by name, in the order of `OF_CLUSTERS`; the circuits' is None where there are none.
        endpoints: Values by cluster and key.
    """

    OF_CACHES: ClassVar = {
        "bytes": "What stored responses take, overhead included",
        "entries": "Stored responses",
    }
    OF_CLUSTERS: ClassVar = {
        "connections": "Open connections to the cluster's endpoints",
        "idle_connections": "Open connections that no request uses",
        "pending_requests": "Requests that wait for a connection",
        "circuits_open": "Workers whose circuit to the cluster is open or half-open",
    }
    OF_ENDPOINTS: ClassVar = {
        "active_requests": "Requests in flight by endpoint",
        "requests": "Requests sent by endpoint, since its workers started",
        "idle_connections": "Open connections that no request uses",
        "ejected": "Workers that have the endpoint out of rotation",
        "unhealthy": "Workers that were told that the endpoint fails its health check",
    }

    def __init__(
        self, states: Iterable[Mapping[str, Any]], clusters: Mapping[str, Cluster] = MappingProxyType({})
    ) -> None:
        self.connections = 0
        self.cache: dict[str, int] = dict.fromkeys(self.OF_CACHES, 0)
        self.clusters: dict[str, dict[str, int | None]] = {}
        self.endpoints: dict[tuple[str, str], dict[str, int]] = {}
        for state in states:
            self.connections += state["connections"]
            _add(self.cache, state["cache"])
            for cluster, of_cluster in state["clusters"].items():
                _add(self.clusters.setdefault(cluster, dict.fromkeys(self.OF_CLUSTERS)), of_cluster["values"])
                for key, values in of_cluster["endpoints"].items():
                    _add(self._endpoint(cluster, key), values)
        for name, cluster in clusters.items():
            if name not in self.clusters:  # workers tell only of those in use
                circuits = 0 if cluster.breaker is not None else None
                self.clusters[name] = {**dict.fromkeys(self.OF_CLUSTERS, 0), "circuits_open": circuits}

    def _endpoint(self, cluster: str, key: str) -> dict[str, int]:
        if (cluster, key) not in self.endpoints and len(self.endpoints) >= MAX_ENDPOINTS:
            key = OTHER
        return self.endpoints.setdefault((cluster, key), dict.fromkeys(self.OF_ENDPOINTS, 0))


def _add(sums: Any, values: Iterable[int | None]) -> None:
    for name, value in zip(sums, values, strict=True):
        if value is not None:
            sums[name] = (sums[name] or 0) + value
