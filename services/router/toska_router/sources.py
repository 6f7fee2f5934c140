"""Operators' routes and clusters: those of the routing file and the router's own (of its API), as one right document.

Immutable: each change makes a new `Sources`, or is refused whole and changes nothing. The file's come first, in its
order; then the router's own, by name. Only the file has `server` settings.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from toska_common.contracts.routing import Cluster, Route, RoutingDocument
from toska_common.errors import NotFound
from toska_common.routing.checks import check_document
from toska_common.routing.order import AUTOMATIC_PREFIX
from toska_common.routing.problems import InvalidDocument, Problem, format_location

from toska_router.errors import ClusterInUse, OwnedElsewhere

Source = Literal["file", "api", "automatic"]

NOTHING = RoutingDocument()


@dataclass(frozen=True)  # without slots, for the cached property
class Sources:
    """What operators want; `own` is what the API has, sorted by name."""

    file: RoutingDocument = NOTHING
    own: RoutingDocument = NOTHING

    def document(self) -> RoutingDocument:
        """Both as one."""
        return _join(self.file, self.own)

    @cached_property
    def _names_of_file(self) -> frozenset[str]:
        return frozenset(route.name for route in self.file.routes)

    def source_of_route(self, route: Route) -> Source:
        """Where a route of the table comes from."""
        if route.name.startswith(AUTOMATIC_PREFIX):
            return "automatic"
        return "file" if route.name in self._names_of_file else "api"

    def source_of_cluster(self, name: str) -> Source:
        """Where a cluster of the table comes from."""
        if name in self.file.clusters:
            return "file"
        return "api" if name in self.own.clusters else "automatic"

    def find_route(self, name: str) -> Route | None:
        """The API's route of that name.

        Raises:
            OwnedElsewhere: The file has it, or it is an automatic one.
        """
        if name.startswith(AUTOMATIC_PREFIX):
            service = name.removeprefix(AUTOMATIC_PREFIX)
            raise OwnedElsewhere(f"{name} is automatic: it is there while an instance of {service} asks for it")
        if name in self._names_of_file:
            raise OwnedElsewhere(f"the route {name} comes from the routing file; change it there")
        return next((route for route in self.own.routes if route.name == name), None)

    def find_cluster(self, name: str) -> Cluster | None:
        """The API's cluster of that name.

        Raises:
            OwnedElsewhere: The file has it.
        """
        if name in self.file.clusters:
            raise OwnedElsewhere(f"the cluster {name} comes from the routing file; change it there")
        return self.own.clusters.get(name)

    def with_route(self, route: Route) -> "Sources":
        """Add a route, or replace it.

        Raises:
            InvalidDocument: It leads nowhere, or stands in another's way; paths are those inside the route.
            OwnedElsewhere: Another source has the name.
        """
        self.find_route(route.name)
        others = tuple(item for item in self.own.routes if item.name != route.name)
        beside = _join(self.file, RoutingDocument(clusters=self.own.clusters, routes=others))
        findings = check_document([route], {}, beside=beside)
        if findings:
            raise _refusal(f"route {route.name}", [(finding.location[2:], finding.reason) for finding in findings])
        routes = tuple(sorted((*others, route), key=lambda item: item.name))
        return Sources(self.file, RoutingDocument(clusters=self.own.clusters, routes=routes))

    def without_route(self, name: str) -> "Sources":
        """Take a route away.

        Raises:
            NotFound: There is none of that name.
            OwnedElsewhere: Another source has it.
        """
        if self.find_route(name) is None:
            raise NotFound(f"there is no route {name}")
        routes = tuple(route for route in self.own.routes if route.name != name)
        return Sources(self.file, RoutingDocument(clusters=self.own.clusters, routes=routes))

    def with_cluster(self, name: str, cluster: Cluster) -> "Sources":
        """Add a cluster, or replace it.

        Raises:
            InvalidDocument: The mesh does not go where it leads, or the name is not free to take.
            OwnedElsewhere: The file has the name.
        """
        self.find_cluster(name)
        findings = check_document([], {name: cluster}, known_clusters=self._all_clusters() | {name})
        if findings:
            raise _refusal(f"cluster {name}", [(finding.location[2:], finding.reason) for finding in findings])
        clusters = dict(sorted({**self.own.clusters, name: cluster}.items()))
        return Sources(self.file, RoutingDocument(clusters=clusters, routes=self.own.routes))

    def without_cluster(self, name: str) -> "Sources":
        """Take a cluster away.

        Raises:
            NotFound: There is none of that name.
            OwnedElsewhere: The file has it.
            ClusterInUse: Routes lead to it.
        """
        if self.find_cluster(name) is None:
            raise NotFound(f"there is no cluster {name}")
        routes = [*self.file.routes, *self.own.routes]
        users = [route.name for route in routes if any(named == name for _, named in route.named_clusters())]
        if users:
            raise ClusterInUse(f"the cluster {name} is used by the routes {', '.join(users)}", routes=users)
        clusters = {key: cluster for key, cluster in self.own.clusters.items() if key != name}
        return Sources(self.file, RoutingDocument(clusters=clusters, routes=self.own.routes))

    def _all_clusters(self) -> set[str]:
        return {*self.file.clusters, *self.own.clusters}


def _join(file: RoutingDocument, own: RoutingDocument) -> RoutingDocument:
    return RoutingDocument(
        server=file.server, clusters={**file.clusters, **own.clusters}, routes=(*file.routes, *own.routes)
    )


def _refusal(source: str, found: list[tuple[tuple[str | int, ...], str]]) -> InvalidDocument:
    return InvalidDocument(
        [Problem(format_location(location), None, reason) for location, reason in found], source=source
    )
