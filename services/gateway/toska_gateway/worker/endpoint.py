"""Endpoints: one address of a cluster each, with the connections that are kept to it and what was seen of it.

live --failures (`outliers`)--> ejected --time--> live (the next ejection is twice as long)
     --failed health checks--> unhealthy --passed ones--> live
"""

from typing import TYPE_CHECKING, Any, cast

from toska_common.balancing import LatencyAverage

from toska_gateway.worker.stats import EndpointStats

if TYPE_CHECKING:
    from toska_gateway.worker.cluster import Cluster
    from toska_gateway.worker.upstream import Upstream

UNIX_PREFIX = "unix:"


class TargetRefused(Exception):
    """The endpoint's address is one that the mesh does not connect to."""


class Endpoint:
    """One address of a cluster, and what this worker knows of it."""

    __slots__ = (
        "address", "cluster", "connecting", "ejected_until", "ejections", "failures", "gateway_errors", "healthy",
        "idle", "in_flight", "joined_at", "key", "latency", "log_part", "port", "removed", "requests", "server_errors",
        "stats", "unreachable", "weight", "zone",
    )  # fmt: skip

    def __init__(self, cluster: "Cluster", item: dict[str, Any], now: float) -> None:
        self.cluster = cluster
        self.key: str = item["key"]
        self.address: str = item["address"]
        self.port: int = item["port"]
        self.weight: int = item["weight"]
        self.zone: str = item.get("zone", "")
        self.joined_at = now  # or when it came back
        self.healthy = True
        self.in_flight = 0
        self.latency = LatencyAverage()  # kept only for the balancer that goes by it
        self.requests = 0
        self.connecting = 0
        self.idle: list[Upstream] = []  # the last used is taken first, so that surplus connections age and close
        # See `outliers.Suspect`.
        self.failures = 0
        self.gateway_errors = 0
        self.server_errors = 0
        self.ejections = 0
        self.ejected_until = 0.0
        self.unreachable = False
        self.removed = False
        self.log_part = b""  # its name in the access log, once there has been one
        self.stats = cast("EndpointStats", None)  # from the first connection on: most of a great number have none

    def count(self) -> EndpointStats:
        """What is counted of it; made if this is the first."""
        if self.stats is None:  # pyright: ignore[reportUnnecessaryComparison]
            self.stats = self.cluster.stats.endpoint(self.cluster.name, self.key)
            self.cluster.used = True
        return self.stats

    @property
    def item(self) -> dict[str, Any]:
        """The endpoint as the parent's messages have it."""
        names = ("key", "address", "port", "weight", "zone")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        return f"{self.address}:{self.port}" if self.port else self.address
