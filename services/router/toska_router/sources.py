"""Operators' routes, clusters and policies: those of the routing file and the router's own (of its API), as one right
document.

Immutable: each change makes a new `Sources`, or is refused whole and changes nothing. The file's come first, in its
order; then the router's own, by name. Only the file has `server` settings.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from toska_common.contracts import Document
from toska_common.contracts.revisions import Kind
from toska_common.contracts.routing import Cluster, NamedPolicy, Route, RoutingDocument
from toska_common.errors import NotFound
from toska_common.routing.checks import check_document, is_needed, is_right_among
from toska_common.routing.order import AUTOMATIC_PREFIX
from toska_common.routing.policy_checks import check_use
from toska_common.routing.problems import Finding, InvalidDocument, Location, Problem, format_location

from toska_router.documents import NOTHING, Change, apply, build_document, by_kind, routes_of
from toska_router.errors import ClusterInUse, OwnedElsewhere, PolicyInUse

Source = Literal["file", "api", "service", "automatic"]

_PLACES: dict[str, Kind] = {"routes": "route", "clusters": "cluster", "policies": "policy"}


@dataclass(frozen=True)  # without slots, for the cached properties
class Sources:
    """What operators want; `own` is what the API has, sorted by name."""

    file: RoutingDocument = NOTHING
    own: RoutingDocument = NOTHING

    def document(self) -> RoutingDocument:
        """Both as one."""
        return _join(self.file, self.own)

    def policies(self) -> Mapping[str, NamedPolicy]:
        """The policies of both."""
        return {**self.file.policies, **self.own.policies}

    @cached_property
    def _of_file(self) -> Mapping[Kind, Mapping[str, Document]]:
        return by_kind(self.file)

    @cached_property
    def _of_api(self) -> Mapping[Kind, Mapping[str, Document]]:
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
        removed = [change for change in changes if change.resource is None and change.kind != "route"]
        document = after.document() if removed else NOTHING
        for change in removed:
            _require_unused(change.kind, change.name, document)
        findings = find_problems_of(changes, self.file, after.own)
        if findings:
            raise _refusal(changes, findings)
        return after


def users_of_policy(name: str, document: RoutingDocument) -> list[str]:
    """The routes that name a policy."""
    return [route.name for route in document.routes if name in route.policies_from]


def find_problems(file: RoutingDocument, own: RoutingDocument) -> list[Finding]:
    """Everything that is wrong with both together."""
    document = _join(file, own)
    return check_document(document.routes, document.clusters, policies=document.policies)


def find_problems_of(changes: Collection[Change], file: RoutingDocument, own: RoutingDocument) -> list[Finding]:
    """What is wrong now that these changes were made; all that stays was right by itself."""
    if _are_right(changes, file, own):
        return []
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


def _are_right(changes: Collection[Change], file: RoutingDocument, own: RoutingDocument) -> bool:
    """Whether it can be told without a look at all the rest that nothing is wrong."""
    if any(change.kind == "policy" for change in changes):
        return False  # any number of routes may name it
    known, policies = {**file.clusters, **own.clusters}, {**file.policies, **own.policies}
    gone = {change.name for change in changes if change.kind == "cluster" and change.name not in known}
    if gone and is_needed(gone, (*file.routes, *own.routes), known, policies):
        return False
    routes = [
        own_route for change in changes if (own_route := routes_of(own).get(change.name)) and change.kind == "route"
    ]
    clusters = {
        change.name: own.clusters[change.name]
        for change in changes
        if change.kind == "cluster" and change.name in own.clusters
    }
    if any(route.name in routes_of(file) or route.policies.watch is not None for route in routes):
        return False
    if any(name in file.clusters for name in clusters):
        return False
    if any(any(check_use((), route, policies, policies)) for route in routes):
        return False
    return is_right_among(routes, clusters, (file, own), known)


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
