"""Operators' routes, clusters and policies: those of the routing file and the router's own (of its API), as one right
document.

Immutable: each change makes a new `Sources`, or is refused whole and changes nothing. The file's come first, in its
order; then the router's own, by name. Only the file has `server` settings.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from toska_common.contracts import Document
from toska_common.contracts.revisions import Kind
from toska_common.contracts.routing import Cluster, NamedPolicy, Route, RoutingDocument
from toska_common.errors import NotFound
from toska_common.routing.checks import check_document
from toska_common.routing.order import AUTOMATIC_PREFIX
from toska_common.routing.problems import Finding, InvalidDocument, Location, Problem, format_location
from toska_common.routing.written import written

from toska_router.errors import ClusterInUse, OwnedElsewhere, PolicyInUse

Source = Literal["file", "api", "service", "automatic"]

NOTHING = RoutingDocument()
KINDS: dict[Kind, type[Document]] = {"route": Route, "cluster": Cluster, "policy": NamedPolicy}
_PLACES: dict[str, Kind] = {"routes": "route", "clusters": "cluster", "policies": "policy"}


@dataclass(frozen=True, slots=True)
class Change:
    """A resource as it is to be; `None` takes it away."""

    kind: Kind
    name: str
    resource: Document | None


@dataclass(frozen=True)  # without slots, for the cached properties
class Sources:
    """What operators want; `own` is what the API has, sorted by name."""

    file: RoutingDocument = NOTHING
    own: RoutingDocument = NOTHING

    def document(self) -> RoutingDocument:
        """Both as one."""
        return _join(self.file, self.own)

    @cached_property
    def _of_file(self) -> dict[Kind, Mapping[str, Document]]:
        return by_kind(self.file)

    @cached_property
    def _of_api(self) -> dict[Kind, Mapping[str, Document]]:
        return by_kind(self.own)

    def source_of(self, kind: Kind, name: str) -> Source:
        """Where a resource of the table comes from."""
        if name in self._of_file[kind]:
            return "file"
        if name in self._of_api[kind]:
            return "api"
        offered = kind == "route" and ":" in name.removeprefix(AUTOMATIC_PREFIX)
        return "service" if offered else "automatic"

    def find_written(self, kind: Kind, name: str) -> Document | None:
        """A resource as it was written, if an operator did."""
        return self._of_file[kind].get(name) or self._of_api[kind].get(name)

    def find(self, kind: Kind, name: str) -> Document | None:
        """The API's resource of that name.

        Raises:
            OwnedElsewhere: The file has it, or it is an automatic route.
        """
        if kind == "route" and name.startswith(AUTOMATIC_PREFIX):
            service = name.removeprefix(AUTOMATIC_PREFIX).partition(":")[0]
            raise OwnedElsewhere(f"{name} is automatic: it is there while an instance of {service} asks for it")
        if name in self._of_file[kind]:
            raise OwnedElsewhere(f"the {kind} {name} comes from the routing file; change it there")
        return self._of_api[kind].get(name)

    def with_changes(self, changes: Sequence[Change]) -> "Sources":
        """Make changes together, or none of them.

        Raises:
            InvalidDocument: Something leads nowhere or stands in another's way; of one change, paths are inside it.
            NotFound: There is nothing of that name to take away.
            OwnedElsewhere: Another source has a name.
            ClusterInUse, PolicyInUse: Something refers to what is taken away.
        """
        for change in changes:
            if self.find(change.kind, change.name) is None and change.resource is None:
                raise NotFound(f"there is no {change.kind} {change.name}")
        after = Sources(self.file, apply(self.own, changes))
        document = after.document()
        for change in changes:
            if change.resource is None:
                _require_unused(change.kind, change.name, document)
        findings = find_problems_of(changes, self.file, after.own)
        if findings:
            raise _refusal(changes, findings)
        return after


def users_of_policy(name: str, document: RoutingDocument) -> list[str]:
    """The routes that name a policy."""
    return [route.name for route in document.routes if name in route.policies_from]


def by_kind(document: RoutingDocument) -> dict[Kind, Mapping[str, Document]]:
    """A document's resources by kind and name."""
    routes = {route.name: route for route in document.routes}
    return {"route": routes, "cluster": document.clusters, "policy": document.policies}


def build_document(resources: Mapping[Kind, Mapping[str, Any]]) -> RoutingDocument:
    """The document of these resources, by name."""
    return RoutingDocument(
        clusters=dict(sorted(resources["cluster"].items())),
        policies=dict(sorted(resources["policy"].items())),
        routes=tuple(route for _, route in sorted(resources["route"].items())),
    )


def apply(own: RoutingDocument, changes: Iterable[Change]) -> RoutingDocument:
    """Make changes without asking whether they are right."""
    resources: dict[Kind, dict[str, Document]] = {kind: dict(found) for kind, found in by_kind(own).items()}
    for change in changes:
        if change.resource is None:
            resources[change.kind].pop(change.name, None)
        else:
            resources[change.kind][change.name] = change.resource
    return build_document(resources)


def changes_between(before: RoutingDocument, after: RoutingDocument) -> list[Change]:
    """What has to be changed to get from one state to another."""
    old, new = by_kind(before), by_kind(after)
    return [
        Change(kind, name, new[kind].get(name))
        for kind in KINDS
        for name in sorted({*old[kind], *new[kind]})
        if not _is_same(old[kind].get(name), new[kind].get(name))
    ]


def _is_same(before: Document | None, after: Document | None) -> bool:
    if before is after:
        return True
    return before is not None and after is not None and written(before) == written(after)


def find_problems(file: RoutingDocument, own: RoutingDocument) -> list[Finding]:
    """Everything that is wrong with both together."""
    document = _join(file, own)
    return check_document(document.routes, document.clusters, policies=document.policies)


def find_problems_of(changes: Iterable[Change], file: RoutingDocument, own: RoutingDocument) -> list[Finding]:
    """What is wrong now that these changes were made; all that stays was right by itself."""
    changed = {(change.kind, change.name) for change in changes if change.resource is not None}
    resources = by_kind(own)
    stays = build_document(
        {
            kind: {name: resource for name, resource in found.items() if (kind, name) not in changed}
            for kind, found in resources.items()
        }
    )
    fresh: dict[Kind, dict[str, Any]] = {
        kind: {name: found[name] for name in found if (kind, name) in changed} for kind, found in resources.items()
    }
    routes = list(fresh["route"].values())
    findings = check_document(routes, fresh["cluster"], policies=fresh["policy"], beside=_join(file, stays))
    return [_by_name(finding, routes) for finding in findings]


def _by_name(finding: Finding, routes: Sequence[Route]) -> Finding:
    place, *rest = finding.location
    if place == "routes" and rest and isinstance(rest[0], int):
        return Finding((place, routes[rest[0]].name, *rest[1:]), finding.reason)
    return finding


def _require_unused(kind: Kind, name: str, document: RoutingDocument) -> None:
    if kind == "cluster":
        users = {
            "routes": [route.name for route in document.routes if _leads_to(name, route.named_clusters())],
            "policies": [key for key, policy in document.policies.items() if _leads_to(name, policy.named_clusters())],
            "clusters": [key for key, cluster in document.clusters.items() if _fails_over_to(name, cluster)],
        }
        if any(users.values()):
            raise ClusterInUse(f"the cluster {name} is used by {_listed(**users)}", **users)
    if kind == "policy":
        users = users_of_policy(name, document)
        if users:
            raise PolicyInUse(f"the policy {name} is used by {_listed(routes=users)}", routes=users)


def _listed(**users: Sequence[str]) -> str:
    return " and ".join(f"the {kind} {', '.join(names)}" for kind, names in users.items() if names)


def _fails_over_to(name: str, cluster: Cluster) -> bool:
    return cluster.failover is not None and name in cluster.failover.to


def _leads_to(cluster: str, named: Iterator[tuple[Location, str]]) -> bool:
    return any(name == cluster for _, name in named)


def _join(file: RoutingDocument, own: RoutingDocument) -> RoutingDocument:
    # Not validated: both have been, and 10,000 routes take 20 ms with each change, several times over.
    return RoutingDocument.model_construct(
        server=file.server,
        clusters={**file.clusters, **own.clusters},
        policies={**file.policies, **own.policies},
        routes=(*file.routes, *own.routes),
    )


def _refusal(changes: Collection[Change], findings: Sequence[Finding]) -> InvalidDocument:
    if len(changes) != 1:
        return _named("the change", findings)
    [change] = changes
    inside = [
        Finding(finding.location[2:], finding.reason)
        if _PLACES.get(str(finding.location[0])) == change.kind and finding.location[1:2] == (change.name,)
        else finding
        for finding in findings
    ]
    return _named(f"{change.kind} {change.name}", inside)


def _named(source: str, findings: Sequence[Finding]) -> InvalidDocument:
    return InvalidDocument(
        [Problem(format_location(finding.location), None, finding.reason) for finding in findings], source=source
    )
