"""Reading what operators write: a routing file, or one route or cluster of it, with every problem named.

`load_document` returns a document that is right by itself: of the right shape (the contracts), and free of routes that
lead nowhere or stand in each other's way (`checks`). One problem does not hide the others, as far as the broken part
lets the rest be understood.
"""

import types
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from toska_common.contracts import Document
from toska_common.contracts.routing import Cluster, NamedPolicy, Route, RoutingDocument
from toska_common.routing.checks import check_document
from toska_common.routing.problems import Finding, InvalidDocument, Location, Problem, suggestion
from toska_common.routing.tree import Node, decode, name_problems, parse_json, parse_yaml

D = TypeVar("D", bound=Document)

_NOTHING = RoutingDocument()
_MAX_RESOURCE_NODES = 100_000
"""Values of one resource: a cluster of 10,000 endpoints has half of that."""
_MAX_FINDINGS = 1000
"""Of one validation: a document in which everything is wrong is told as much, and not all of it."""

__all__ = ["InvalidDocument", "Problem", "as_written", "load_document", "load_resource", "validate_node"]


def load_document(
    text: str | bytes, *, source: str, beside: RoutingDocument = _NOTHING, registry: bool = True
) -> RoutingDocument:
    """Read and check a routing document in YAML 1.2.

    Args:
        text: The document.
        source: What to call it in messages, such as its file name.
        beside: What stands beside it in the same table, from another source.
        registry: Whether there is a registry that clusters can follow; if not, a `service` is a problem.

    Raises:
        InvalidDocument: Lists everything that is wrong, with paths and lines.
    """
    tree = parse_yaml(decode(text, source), source)
    document, findings = validate_node(RoutingDocument, tree.root)
    if document is not None:
        checked = check_document(
            document.routes, document.clusters, policies=document.policies, beside=beside, registry=registry
        )
    else:
        checked = _check_what_is_right(tree.root, beside, registry)
    findings += [as_written(finding, tree.root) for finding in checked]
    if document is None or findings or tree.problems:
        raise InvalidDocument(name_problems(findings, tree), source=source)
    return document


def load_resource(
    kind: type[D],
    text: str | bytes,
    *,
    source: str,
    yaml: bool = False,
    defaults: Mapping[str, str] = MappingProxyType({}),
) -> D:
    """Read one resource, such as a `Route`, from JSON or YAML; it is checked by itself, not against a table.

    Args:
        kind: What it is.
        text: The resource.
        source: What to call it in messages.
        yaml: Whether it is YAML and not JSON.
        defaults: Values of keys that it may leave out.

    Raises:
        InvalidDocument: Lists everything that is wrong, with paths and, for YAML, lines.
    """
    content = decode(text, source)
    tree = parse_yaml(content, source, max_nodes=_MAX_RESOURCE_NODES) if yaml else parse_json(content, source)
    resource, findings = validate_node(kind, tree.root, defaults)
    if resource is None or tree.problems:
        raise InvalidDocument(name_problems(findings, tree), source=source)
    return resource


def validate_node(
    kind: type[D], node: Node, defaults: Mapping[str, str] = MappingProxyType({})
) -> tuple[D | None, list[Finding]]:
    """Read a part of a document as one thing; if that cannot be, everything that is wrong, located from the node."""
    if not isinstance(node.value, dict):
        return None, [Finding((), "a mapping of keys to values is expected")]
    try:
        return kind.model_validate({**defaults, **node.plain()}, strict=True), []
    except ValidationError as error:
        entries = error.errors(include_url=False)
        findings = [_finding(kind, entry, node) for entry in entries[:_MAX_FINDINGS]]
        if len(entries) > _MAX_FINDINGS:
            findings.append(Finding((), f"there are {len(entries) - _MAX_FINDINGS} problems more"))
        return None, findings


def _check_what_is_right(root: Node, beside: RoutingDocument, registry: bool) -> list[Finding]:
    """Check the parts of a broken document that can be read, so that their problems show in the same run."""
    clusters, policies = _entries(root, "clusters"), _entries(root, "policies")
    routes = _entries(root).get("routes")
    listed = routes.value if routes is not None and isinstance(routes.value, tuple) else ()
    return check_document(
        [validate_node(Route, node)[0] for node in listed],
        _readable(Cluster, clusters),
        policies=_readable(NamedPolicy, policies),
        known_clusters=clusters,
        known_policies=policies,
        beside=beside,
        registry=registry,
    )


def _entries(node: Node, *keys: str) -> Mapping[str, Node]:
    for key in keys:
        found = _entries(node).get(key)
        if found is None:
            return {}
        node = found
    return node.value if isinstance(node.value, dict) else {}


def _readable(kind: type[D], nodes: Mapping[str, Node]) -> dict[str, D]:
    return {name: resource for name, node in nodes.items() if (resource := validate_node(kind, node)[0]) is not None}


def _finding(kind: type[BaseModel], entry: Any, root: Node) -> Finding:
    checked: Location = tuple(entry["loc"])
    location = root.as_written(checked)
    error_type, reason = str(entry["type"]), str(entry["msg"]).removeprefix("Value error, ")
    if location and location[-1] == "[key]":
        return Finding(location[:-1], f"as a name: {_plainly(error_type, reason, entry)}")
    if error_type == "extra_forbidden":
        return Finding(location, _unknown_key(kind, checked))
    if error_type == "missing":
        return Finding(location, "is required")
    return as_written(Finding(location, _plainly(error_type, reason, entry)), root)


def as_written(finding: Finding, root: Node) -> Finding:
    """Name only what the document has: a shorthand is checked as what it stands for (`to: orders`)."""
    return Finding(root.locate(finding.location)[0], finding.reason)


def _plainly(error_type: str, reason: str, entry: Any) -> str:
    given = entry["input"]
    if error_type == "string_type" and isinstance(given, int | float):
        return f"is a string: write it in quotes, as {str(given).lower()!r}"
    if error_type == "tuple_type":
        return "is a list"
    if error_type == "string_pattern_mismatch":
        return f"{given!r} does not match {entry['ctx']['pattern']}"
    return reason[:1].lower() + reason[1:]


def _unknown_key(kind: type[BaseModel], location: Location) -> str:
    known = _keys_at(kind, location[:-1])
    return "unknown key" + (suggestion(str(location[-1]), known) or f"; known here: {', '.join(sorted(known))}")


def _keys_at(kind: Any, location: Location) -> list[str]:
    """The keys that the contract has at `location`."""
    for part in location:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            kind = _bare(field.annotation) if field is not None else None
        elif get_origin(kind) in {tuple, Mapping}:
            kind = _bare(get_args(kind)[-1 if get_origin(kind) is Mapping else 0])
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _bare(annotation: Any) -> Any:
    """A type without its constraints, and without `None` beside it."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in {Union, types.UnionType}:
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation
