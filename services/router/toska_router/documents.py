"""The API's resources as a document: by kind and name, with some of them changed, and what has changed between two.

A document never changes. One that was made of another by a few changes remembers those, and everything that was known
of the other.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from toska_common.contracts import Document
from toska_common.contracts.revisions import Kind
from toska_common.contracts.routing import Cluster, NamedPolicy, Route, RoutingDocument
from toska_common.routing.memory import Lineage, Memo
from toska_common.routing.neighbours import carry_neighbours
from toska_common.routing.tables import FEW
from toska_common.routing.written import written

NOTHING = RoutingDocument()
KINDS: dict[Kind, type[Document]] = {"route": Route, "cluster": Cluster, "policy": NamedPolicy}

_DOCUMENTS: Final = Lineage[RoutingDocument, "Sequence[Change]"]()
_ROUTES: Final = Memo[RoutingDocument, Mapping[str, Route]]()
_NAME: Final = attrgetter("name")


@dataclass(frozen=True, slots=True)
class Change:
    """A resource as it is to be; `None` takes it away."""

    kind: Kind
    name: str
    resource: Document | None


def by_kind(document: RoutingDocument) -> Mapping[Kind, Mapping[str, Document]]:
    """A document's resources by kind and name."""
    return {"route": routes_of(document), "cluster": document.clusters, "policy": document.policies}


def routes_of(document: RoutingDocument) -> Mapping[str, Route]:
    """A document's routes by name."""
    known = _ROUTES.get(document)
    return _ROUTES.put(document, {route.name: route for route in document.routes}) if known is None else known


def build_document(resources: Mapping[Kind, Mapping[str, Any]]) -> RoutingDocument:
    """The document of these resources, by name."""
    # Not validated: each resource has been, and 10,000 routes take 20 ms, several times over.
    return RoutingDocument.model_construct(
        clusters=_sorted(resources["cluster"]),
        policies=_sorted(resources["policy"]),
        routes=tuple(_sorted(resources["route"]).values()),
    )


def apply(own: RoutingDocument, changes: Sequence[Change]) -> RoutingDocument:
    """Make changes without asking whether they are right."""
    if not changes:
        return own
    if len(changes) <= FEW:
        return _apply_few(own, changes)
    resources: dict[Kind, dict[str, Any]] = {kind: dict(found) for kind, found in by_kind(own).items()}
    for change in changes:
        _set(resources[change.kind], change)
    return build_document(resources)


def changes_between(before: RoutingDocument, after: RoutingDocument) -> Sequence[Change]:
    """What has to be changed to get from one state to another."""
    known = known_changes(before, after)
    if known is not None:
        return known
    old, new = by_kind(before), by_kind(after)
    return [
        Change(kind, name, new[kind].get(name))
        for kind in KINDS
        for name in sorted({*old[kind], *new[kind]})
        if not is_same(old[kind].get(name), new[kind].get(name))
    ]


def known_changes(before: RoutingDocument, after: RoutingDocument) -> Sequence[Change] | None:
    """The same if nobody has to look for it, else `None`."""
    return () if before is after else _DOCUMENTS.find(before, after)


def is_same(before: Document | None, after: Document | None) -> bool:
    """Whether two resources are written alike."""
    if before is after:
        return True
    return before is not None and after is not None and written(before) == written(after)


def _apply_few(own: RoutingDocument, changes: Sequence[Change]) -> RoutingDocument:
    latest = {(change.kind, change.name): change for change in changes}
    old = by_kind(own)
    new: dict[Kind, Mapping[str, Any]] = {}
    for kind in KINDS:
        found = [change for change in latest.values() if change.kind == kind]
        new[kind] = _with(old[kind], found, in_order=kind != "route")
    routes = [change for change in latest.values() if change.kind == "route"]
    document = RoutingDocument.model_construct(
        clusters=new["cluster"], policies=new["policy"], routes=_with_routes(own.routes, routes)
    )
    _ROUTES.put(document, new["route"])
    gone = [had for change in routes if isinstance(had := old["route"].get(change.name), Route)]
    come = [change.resource for change in routes if isinstance(change.resource, Route)]
    carry_neighbours(own, document, gone, come)
    different = [one for one in latest.values() if not is_same(old[one.kind].get(one.name), one.resource)]
    _DOCUMENTS.record(own, document, sorted(different, key=lambda one: (list(KINDS).index(one.kind), one.name)))
    return document


def _with(had: Mapping[str, Any], changes: Sequence[Change], *, in_order: bool) -> Mapping[str, Any]:
    if not changes:
        return had
    found = dict(had)
    for change in changes:
        _set(found, change)
    return _sorted(found) if in_order and found.keys() != had.keys() else found


def _with_routes(had: Sequence[Route], changes: Iterable[Change]) -> tuple[Route, ...]:
    """Routes by name, with some of them changed."""
    routes = list(had)
    for change in changes:
        place = bisect_left(routes, change.name, key=_NAME)
        if place < len(routes) and routes[place].name == change.name:
            del routes[place]
        if isinstance(change.resource, Route):
            routes.insert(place, change.resource)
    return tuple(routes)


def _set(found: dict[str, Any], change: Change) -> None:
    if change.resource is None:
        found.pop(change.name, None)
    else:
        found[change.name] = change.resource


def _sorted(found: Mapping[str, Any]) -> dict[str, Any]:
    return dict(sorted(found.items()))
