"""Routing as a whole: the file, and the snapshots and deltas that gateways are given."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from toska_common.contracts import Contract, Document
from toska_common.contracts.names import ResourceName
from toska_common.contracts.routing.clusters import Cluster, Endpoint
from toska_common.contracts.routing.overlays import RouteOverlay
from toska_common.contracts.routing.policies import NamedPolicy, Policies
from toska_common.contracts.routing.routes import Route
from toska_common.contracts.routing.server import Server
from toska_common.contracts.tallies import TallyReport


class RoutingDocument(Document):
    """A routing file, whole: `toska gateway --routes FILE`, and the router's own."""

    server: Server = Server()
    clusters: Mapping[ResourceName, Cluster] = Field(default_factory=dict[str, Cluster])
    policies: Mapping[ResourceName, NamedPolicy] = Field(
        default_factory=dict[str, NamedPolicy], description="By a name that routes refer to in policies_from"
    )
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
        from toska_common.routing.versions import snapshot_version

        return snapshot_version(self)


class Inventory(Contract):
    """All that a gateway has, as versions by name: from it any router can tell what is missing."""

    server: str
    clusters: Mapping[str, str] = Field(default_factory=dict[str, str])
    routes: Mapping[str, str] = Field(default_factory=dict[str, str], description="In order of precedence")
    endpoints: Mapping[str, str] = Field(default_factory=dict[str, str], description="By cluster")


class SnapshotPoll(Contract):
    """A gateway's blocking query: what it has applied, and how long it is ready to wait for something newer.

    So each poll acknowledges the version before, or says why it was refused.
    """

    gateway: str = Field(max_length=256, description="Who asks, for the router's overview")
    version: str = Field(default="", max_length=64, description="`Snapshot.version` of what it serves; empty: nothing")
    routes_version: str = Field(default="", max_length=64, description="That of the routes in it, for the overview")
    inventory: Inventory | None = Field(
        default=None, description="What is in that version; given to a router that does not know it (`base_unknown`)"
    )
    wait_seconds: float = Field(default=55.0, ge=0, le=600)
    rejected: str = Field(
        default="", max_length=4096, description="Why the gateway refused the last snapshot, if it did"
    )
    rejected_version: str = Field(
        default="", max_length=64, description="`Snapshot.version` of what it refused; it is not sent that again"
    )
    counted: TallyReport | None = Field(
        default=None, description="Of routes under watch, if there are any; believed of who shows the admin token"
    )


class EndpointsDelta(Contract):
    """The change of one cluster: upserts and removals on top of `base`, or everything if `base` is empty."""

    version: str
    base: str = ""
    upsert: tuple[Endpoint, ...] = ()
    remove: tuple[str, ...] = Field(default=(), description="Keys of endpoints that are gone")


class PlacedRoute(Contract):
    """A route that is new, has changed or has moved, and where it stands now."""

    route: Route
    after: str | None = Field(
        default=None,
        description="Name of the route directly before it; empty: it is the first of the table; absent: it comes after "
        "the one before it in this list",
    )


class TableDelta(Contract):
    """The change of a table. The routes are in order of precedence; those that are not named keep theirs."""

    version: str
    server: Server | None = None
    clusters: Mapping[str, Cluster] = Field(default_factory=dict[str, Cluster])
    removed_clusters: tuple[str, ...] = ()
    routes: tuple[PlacedRoute, ...] = ()
    removed_routes: tuple[str, ...] = ()


class SnapshotDelta(Contract):
    """Answer to a poll: what makes `version` of `base`, or of nothing if `base` is empty.

    `table` is absent if the routes and clusters are the same. With `base_unknown` it has nothing: the router does not
    know what the gateway has, and needs its inventory.
    """

    version: str = ""
    base: str = ""
    base_unknown: bool = False
    table: TableDelta | None = None
    endpoints: Mapping[str, EndpointsDelta] = Field(default_factory=dict[str, EndpointsDelta])


class RouteEntry(Contract):
    """A route as the router's API shows it: where it comes from, and its version for `If-Match`."""

    route: Route
    source: Literal["file", "api", "service", "automatic"] = Field(
        description="service: a service asks for it in its metadata; automatic: /{service} of one that is exposed"
    )
    version: str
    effective_policies: Policies | None = Field(
        default=None, description="What they come to with those of policies_from, if it names any"
    )
    overlays: tuple[RouteOverlay, ...] = Field(
        default=(), description="Rollouts and experiments that stand for its own words at the moment"
    )


class ClusterEntry(Contract):
    """A cluster as the router's API shows it."""

    name: str
    cluster: Cluster
    source: Literal["file", "api", "automatic"]
    version: str
    endpoints: tuple[Endpoint, ...] = ()


class PolicyEntry(Contract):
    """A policy as the router's API shows it."""

    name: str
    policy: NamedPolicy
    source: Literal["file", "api"]
    version: str
    used_by: tuple[str, ...] = Field(default=(), description="The routes that name it")
