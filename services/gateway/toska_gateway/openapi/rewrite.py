"""One service's OpenAPI document, made fit to stand beside those of others.

Paths become those under which the gateway takes them; operations that no request reaches are left out, and with them
the components that only they used. Operation ids, tags and component names get the service's name in front, and every
reference follows (`parts`): in schemas, discriminators, links and security requirements. 3.0 becomes 3.1. References
that lead out of the document are dropped, so that nobody who reads the docs is made to fetch what a service names.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from toska_gateway.openapi.grammar import METHODS
from toska_gateway.openapi.parts import DocumentRefused, Json, Parts, as_list, as_mapping
from toska_gateway.openapi.pointers import escape

FindPath = Callable[[str, str], str | None]
"""Where the gateway takes `(method, path)` of the service; `None` if nowhere."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """What one service puts into the merged document."""

    service: str
    title: str
    version: str
    description: str
    paths: dict[str, Json]
    components: dict[str, Json]
    tags: list[Json]

    def operations(self) -> Iterator[tuple[str, str, Json]]:
        """Every operation, as `(path, method, operation)`."""
        for path, item in self.paths.items():
            for method, operation in item.items():
                yield path, method, operation


def rewrite_document(service: str, document: Any, find_path: FindPath, *, apart: bool = True) -> Fragment:
    """Make a fragment of a service's document.

    Args:
        service: The service's name.
        document: Its OpenAPI document as parsed JSON, which may be anything.
        find_path: Says which operations are reached, and how.
        apart: Put the service's name in front of ids, tags and component names, so that documents can be merged.

    Raises:
        DocumentRefused: It is no OpenAPI 3 document, or nested beyond all measure.
    """
    root = as_mapping(document)
    declared = str(root.get("openapi", ""))
    if not declared.startswith("3."):
        found = f"of OpenAPI {declared[:20]}" if declared else "of something else than OpenAPI"
        raise DocumentRefused(f"this is a document {found}; only version 3 of OpenAPI can be merged")
    return _Rewriter(service, root, find_path, apart).run()


@dataclass(frozen=True, slots=True)
class _Operation:
    """An operation that is reached, and the path item that it stands in."""

    method: str
    external: str
    item: Json
    body: Json


class _Rewriter:
    def __init__(self, service: str, root: Json, find_path: FindPath, apart: bool) -> None:
        self._service = service
        self._root = root
        self._find_path = find_path
        self._apart = apart
        self._parts = Parts(root, f"{service}." if apart else "", self._finish_operation, self._finish_link)
        self._listed_ids: set[str] = set()
        self._used_ids: set[str] = set()
        self._tags: dict[str, str] = {}

    def run(self) -> Fragment:
        reached = list(self._reached())
        self._listed_ids = {str(operation.body.get("operationId")) for operation in reached}
        paths: dict[str, Json] = {}
        for operation in reached:
            paths.setdefault(operation.external, {}).setdefault(operation.method, self._rewrite(operation))
        components = self._parts.components()
        info = as_mapping(self._root.get("info"))
        return Fragment(
            service=self._service,
            title=self._title(),
            version=str(info.get("version") or ""),
            description=str(info.get("description") or info.get("summary") or ""),
            paths=paths,
            components=components,
            tags=self._described_tags(),
        )

    def _title(self) -> str:
        return str(as_mapping(self._root.get("info")).get("title") or self._service)

    def _reached(self) -> Iterator[_Operation]:
        for path, given in as_mapping(self._root.get("paths")).items():
            item = self._path_item(given)
            for method in METHODS:
                body = item.get(method)
                external = self._find_path(method, path) if isinstance(body, dict) and path.startswith("/") else None
                if external is not None:
                    yield _Operation(method, external, item, as_mapping(body))

    def _path_item(self, given: Any) -> Json:
        item = as_mapping(given)
        return as_mapping(self._target(item)) | item if "$ref" in item else item

    def _target(self, node: Json) -> Any:
        """What the reference in `node` leads to, or `None`."""
        reference = node.get("$ref")
        pointer = self._parts.references.pointer(reference, "") if isinstance(reference, str) else None
        return self._parts.references.target(pointer) if pointer is not None else None

    def _rewrite(self, operation: _Operation) -> Json:
        # What stands at the path moves into its operations: two services may share a path, method by method.
        item, body = operation.item, operation.body
        merged = {key: item[key] for key in ("summary", "description") if key in item} | body
        parameters = self._all_parameters(item.get("parameters"), body.get("parameters"))
        if parameters:
            merged["parameters"] = parameters
        return self._parts.rewrite(merged, "operation")

    def _all_parameters(self, common: Any, own: Any) -> list[Any]:
        """A path's parameters and those of an operation, which replace the path's of the same name and place."""
        kept: dict[Any, Any] = {}
        for at, parameter in enumerate((*as_list(common), *as_list(own))):
            node = as_mapping(parameter)
            node = as_mapping(self._target(node)) if "$ref" in node else node
            kept[(str(node.get("in")), str(node.get("name"))) if node else at] = parameter
        return list(kept.values())

    def _finish_operation(self, result: Json, node: Json) -> None:
        for key in ("tags", "operationId", "security"):
            result.pop(key, None)
        tags = [tag for tag in as_list(node.get("tags")) if isinstance(tag, str)] or ([""] if self._apart else [])
        if tags:
            result["tags"] = list(dict.fromkeys(map(self._tag, tags)))
        identifier = node.get("operationId")
        # Ids are unique (OpenAPI 3.1.1 §4.8.10.1): where a service gives one twice, the first operation keeps it.
        if isinstance(identifier, str) and identifier not in self._used_ids:
            self._used_ids.add(identifier)
            result["operationId"] = self._operation_id(identifier)
        security = self._security(node["security"] if "security" in node else self._root.get("security"))
        if security is not None:
            result["security"] = security

    def _operation_id(self, identifier: str) -> str:
        return f"{self._service}_{identifier}" if self._apart else identifier

    def _tag(self, tag: str) -> str:
        name = tag
        if self._apart:
            name = self._service if tag in {"", self._service} else f"{self._service}: {tag}"
        return self._tags.setdefault(tag, name)

    def _described_tags(self) -> list[Json]:
        described = {str(tag.get("name")): tag for tag in map(as_mapping, as_list(self._root.get("tags")))}
        found: dict[str, Json] = {}
        for tag, name in self._tags.items():
            source = described.get(tag) or ({"description": self._title()} if name == self._service else {})
            extra = {key: source[key] for key in ("description", "externalDocs") if key in source}
            found.setdefault(name, {"name": name, **extra})
        return list(found.values())

    def _security(self, given: Any) -> list[Json] | None:
        """Requirements under the new names; one that asks for a scheme that is not there is dropped."""
        if not isinstance(given, list):
            return None
        result: list[Json] = []
        for requirement in as_list(given):
            names = {name: self._parts.take_component("securitySchemes", name) for name in as_mapping(requirement)}
            if isinstance(requirement, dict) and None not in names.values():
                result.append({str(new): as_list(as_mapping(requirement)[name]) for name, new in names.items()})
        return result if result or not given else None

    def _finish_link(self, result: Json, node: Json) -> None:
        for key in ("operationId", "operationRef"):
            result.pop(key, None)
        identifier = node.get("operationId")
        if isinstance(identifier, str) and identifier in self._listed_ids:
            result["operationId"] = self._operation_id(identifier)
        reference = node.get("operationRef")
        pointer = self._parts.references.pointer(reference, "") if isinstance(reference, str) else None
        tokens = self._parts.references.tokens(pointer or "")
        if len(tokens) == 3 and tokens[0] == "paths":
            external = self._find_path(tokens[2], tokens[1])
            if external is not None:
                result["operationRef"] = f"#/paths/{escape(external)}/{tokens[2]}"
