"""Routing as a whole: the file, and the snapshots and deltas that gateways are given."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from toska_common.contracts import Contract, Document
from toska_common.contracts.names import ResourceName
from toska_common.contracts.routing.clusters import Cluster, Endpoint
from toska_common.contracts.routing.routes import Route
from toska_common.contracts.routing.server import Server


class RoutingDocument(Document):
    """A routing file, whole: `toska gateway --routes FILE`, and the router's own."""

    server: Server = Server()
    clusters: Mapping[ResourceName, Cluster] = Field(default_factory=dict[str, Cluster])
    routes: tuple[Route, ...] = ()


class RouteTable(Contract):
    """What a gateway needs besides endpoints: routes in order of precedence, and the clusters they name."""

    server: Server = Server()
    clusters: Mapping[str, Cluster] = Field(default_factory=dict[str, Cluster])
    routes: tuple[Route, ...] = ()


class ClusterEndpoints(Contract):
    """The endpoints of one cluster, under a version of their own."""

    version: str
    endpoints: tuple[Endpoint, ...] = ()


class Snapshot(Contract):
    """Complete routing: immutable, and its versions are hashes of its content."""

    routes_version: str
    table: RouteTable
    endpoints: Mapping[str, ClusterEndpoints] = Field(default_factory=dict[str, ClusterEndpoints])

    @property
    def version(self) -> str:
        """One stamp for the whole."""
        from toska_common.routing.versions import content_version

        parts = {name: cluster.version for name, cluster in self.endpoints.items()}
        return content_version({"routes": self.routes_version, "endpoints": parts})


class SnapshotPoll(Contract):
    """A gateway's blocking query: what it has, and how long it is ready to wait for something newer."""

    gateway: str = Field(max_length=256, description="Who asks, for the router's overview")
    routes_version: str = ""
    endpoints: Mapping[str, str] = Field(default_factory=dict[str, str], description="Version by cluster")
    wait_seconds: float = Field(default=55.0, ge=0, le=600)
    rejected: str = Field(
        default="", max_length=4096, description="Why the gateway refused the last snapshot, if it did"
    )
    rejected_version: str = Field(
        default="", max_length=64, description="`Snapshot.version` of what it refused; it is not sent that again"
    )


class EndpointsDelta(Contract):
    """The change of one cluster: upserts and removals on top of `base`, or everything if `base` is empty."""

    version: str
    base: str = ""
    upsert: tuple[Endpoint, ...] = ()
    remove: tuple[str, ...] = Field(default=(), description="Keys of endpoints that are gone")


class SnapshotDelta(Contract):
    """Answer to a poll: only what differs. `table` is absent if the routes are the same."""

    routes_version: str
    table: RouteTable | None = None
    endpoints: Mapping[str, EndpointsDelta] = Field(default_factory=dict[str, EndpointsDelta])
    removed_clusters: tuple[str, ...] = ()


class RouteEntry(Contract):
    """A route as the router's API shows it: where it comes from, and its version for `If-Match`."""

    route: Route
    source: Literal["file", "api", "automatic"]
    version: str


class ClusterEntry(Contract):
    """A cluster as the router's API shows it."""

    name: str
    cluster: Cluster
    source: Literal["file", "api", "automatic"]
    version: str
    endpoints: tuple[Endpoint, ...] = ()
