"""Changes of several resources at once: read, with all that is wrong, and proposed as one that is made or is not.

Two ways to say them: a list of changes, each with a condition of its own, and a document that is to hold (`apply`),
from which the changes follow.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toska_common.contracts.changes import RequestedChange, RequestedChanges
from toska_common.contracts.revisions import Kind
from toska_common.contracts.routing import Route, RoutingDocument, Server
from toska_common.errors import MeshError
from toska_common.routing.checks import check_document
from toska_common.routing.document import as_written, validate_node
from toska_common.routing.problems import Finding, InvalidDocument, Location, Problem
from toska_common.routing.tree import Node, Tree, decode, name_problems, parse_json, parse_yaml

from toska_router.book import Propose
from toska_router.documents import KINDS, Change, apply, by_kind
from toska_router.proposals import Delete, Patch, Precondition, Put
from toska_router.sources import Sources

SOURCE = "the body"
_NO_SERVER = Server()


@dataclass(frozen=True, slots=True)
class Several:
    """Changes that are asked for together."""

    proposals: Sequence[Propose]

    def __call__(self, sources: Sources) -> Sequence[Change]:
        """Raises the first error of any, with the problems of all."""
        changes: list[Change] = []
        refusals: list[tuple[int, MeshError]] = []
        for index, propose in enumerate(self.proposals):
            try:
                changes.extend(propose(sources))
            except MeshError as error:
                refusals.append((index, error))
        if refusals:
            raise _together(refusals)
        return changes


@dataclass(frozen=True, slots=True)
class Apply:
    """Have what a document says: make what is new in it, replace what is different.

    Attributes:
        document: Without `server`.
        prune: Whether what the API has besides is taken away.
    """

    document: RoutingDocument
    prune: bool = False

    def __call__(self, sources: Sources) -> Sequence[Change]:
        """Raises `OwnedElsewhere`."""
        wanted = by_kind(self.document)
        changes = [
            one for kind in KINDS for name, found in wanted[kind].items() for one in Put(kind, name, found)(sources)
        ]
        if self.prune:
            changes += self._rest(wanted, sources)
        return changes

    def _rest(self, wanted: Mapping[Kind, Mapping[str, Any]], sources: Sources) -> Iterator[Change]:
        for kind, found in by_kind(sources.own).items():
            yield from (Change(kind, name, None) for name in found if name not in wanted[kind])


def read_apply(text: bytes, sources: Sources, *, yaml: bool, prune: bool) -> Apply:
    """Read a document that is to hold; it is checked beside what holds now, so that problems have their lines.

    Raises:
        InvalidDocument: Everything that is wrong.
    """
    tree = _parse(text, yaml=yaml)
    document, findings = validate_node(RoutingDocument, tree.root)
    if document is None or tree.problems:
        raise InvalidDocument(name_problems(findings, tree), source=SOURCE)
    beside = _beside(document, sources, prune=prune)
    findings = check_document(document.routes, document.clusters, policies=document.policies, beside=beside)
    if document.server != _NO_SERVER:
        findings.append(Finding(("server",), "is the routing file's alone; the API has clusters, policies and routes"))
    if findings:
        raise InvalidDocument(name_problems([as_written(one, tree.root) for one in findings], tree), source=SOURCE)
    return Apply(document, prune)


def read_changes(text: bytes, *, yaml: bool) -> Several:
    """Read a list of changes.

    Raises:
        InvalidDocument: Everything that is wrong with the list and with each resource by itself.
    """
    tree = _parse(text, yaml=yaml)
    asked, findings = validate_node(RequestedChanges, tree.root)
    proposals: list[Propose] = []
    if asked is not None:
        seen: set[tuple[Kind, str]] = set()
        for index, change in enumerate(asked.changes):
            at: Location = ("changes", index)
            if (change.kind, change.name) in seen:
                findings.append(Finding((*at, "name"), f'the {change.kind} "{change.name}" stands twice'))
            seen.add((change.kind, change.name))
            proposal, wrong = _propose(change, tree.root, at)
            findings += wrong
            proposals += [] if proposal is None else [proposal]
    if findings or tree.problems:
        raise InvalidDocument(name_problems(findings, tree), source=SOURCE)
    return Several(proposals)


def _propose(change: RequestedChange, root: Node, at: Location) -> tuple[Propose | None, list[Finding]]:
    """What a change asks for; its body is read from the tree, where its lines are."""
    condition = _precondition(change)
    if change.action == "delete":
        return Delete(change.kind, change.name, condition), []
    inside: Location = (*at, "body")
    body = root.find(inside)
    if not isinstance(body.value, dict):
        return None, [Finding(inside, "a mapping of keys to values is expected")]
    if change.action == "patch":
        return Patch(change.kind, change.name, body.plain(), condition), []
    defaults = {"name": change.name} if change.kind == "route" else {}
    resource, wrong = validate_node(KINDS[change.kind], body, defaults)
    findings = [Finding((*inside, *one.location), one.reason) for one in wrong]
    if isinstance(resource, Route) and resource.name != change.name:
        findings.append(Finding((*inside, "name"), f"the change is of {change.name}"))
    return None if resource is None else Put(change.kind, change.name, resource, condition), findings


def _precondition(change: RequestedChange) -> Precondition:
    versions = None if change.if_match is None else frozenset({change.if_match.strip('"')})
    return Precondition(versions, absent=change.if_none_match is not None)


def _beside(document: RoutingDocument, sources: Sources, *, prune: bool) -> RoutingDocument:
    if prune:
        return sources.file
    named = [Change(kind, name, None) for kind, found in by_kind(document).items() for name in found]
    return Sources(sources.file, apply(sources.own, named)).document()


def _parse(text: bytes, *, yaml: bool) -> Tree:
    content = decode(text, SOURCE)
    return parse_yaml(content, SOURCE) if yaml else parse_json(content, SOURCE)


def _together(refusals: Sequence[tuple[int, MeshError]]) -> MeshError:
    problems = [problem for index, error in refusals for problem in _problems_of(f"changes[{index}]", error)]
    first = refusals[0][1]
    if isinstance(first, InvalidDocument):
        return InvalidDocument([Problem(one["field"], None, one["reason"]) for one in problems], source=SOURCE)
    return type(first)("; ".join(f"{one['field']}: {one['reason']}" for one in problems), problems=problems)


def _problems_of(at: str, error: MeshError) -> Iterator[Mapping[str, Any]]:
    if isinstance(error, InvalidDocument):
        yield from ({"field": f"{at}.body.{one.path}".rstrip("."), "reason": one.reason} for one in error.problems)
    else:
        yield {"field": at, "reason": error.detail, **error.extensions}
