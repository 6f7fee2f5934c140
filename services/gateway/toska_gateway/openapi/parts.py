"""The walk through one OpenAPI document: every part is rewritten by what it is, and every reference follows its target.

What the walk reaches of `components` it takes along under a new name; what is never reached stays behind.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

from toska_common.errors import UpstreamError

from toska_gateway.openapi.dialect import modernise
from toska_gateway.openapi.grammar import CALLBACK, FIELDS, ROOTS, SECTIONS, Field, Kind, find_kind
from toska_gateway.openapi.pointers import References, escape, escape_token

MAX_DEPTH: Final = 96
MAX_PARTS: Final = 300_000
"""Parts of one rewritten document; what is referred to from outside of `components` is copied, and copies multiply."""

Json = dict[str, Any]
Finish = Callable[[Json, Json], None]
"""Completes a rewritten part in place; its second argument is the part as it was."""

_LEFT_OUT: Final = {"description": "Left out: a reference that leads out of this document, or nowhere"}
_AROUND_THE_GATEWAY: Final = frozenset({"servers", "server"})
_IDENTIFIERS: Final = frozenset({"$id", "$anchor", "$dynamicAnchor", "$schema", "$vocabulary", "$comment"})


class DocumentRefused(UpstreamError):
    """A service's OpenAPI document cannot be used; the others can."""

    code, title = "openapi-document-refused", "OpenAPI document refused"


def as_mapping(value: Any) -> Json:
    """The value, or an empty mapping if it is none."""
    return cast("Json", value) if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """The value, or an empty list if it is none."""
    return cast("list[Any]", value) if isinstance(value, list) else []


@dataclass(slots=True)
class _Names:
    """New names of the components of one section, unique and of the characters that OpenAPI allows."""

    prefix: str
    _new: dict[str, str] = field(default_factory=dict[str, str])
    _taken: set[str] = field(default_factory=set[str])

    def of(self, name: str) -> str:
        """The new name of `name`, always the same."""
        known = self._new.get(name)
        if known is None:
            base = known = re.sub(r"[^A-Za-z0-9._-]", "_", self.prefix + name)
            number = 1
            while known in self._taken:
                number += 1
                known = f"{base}_{number}"
            self._new[name] = known
            self._taken.add(known)
        return known


class Parts:
    """Rewrites the parts of one document.

    Args:
        root: The document.
        prefix: Put in front of every component's name.
        finish_operation: Completes each operation, those of callbacks included.
        finish_link: Completes each link.
    """

    def __init__(self, root: Json, prefix: str, finish_operation: Finish, finish_link: Finish) -> None:
        self._finishers: dict[Kind, Finish] = {"operation": finish_operation, "link": finish_link}
        self._old = str(root.get("openapi", "")).startswith("3.0")
        self.references = References(root)
        self._sections = {name: as_mapping(as_mapping(root.get("components")).get(name)) for name in SECTIONS}
        self._names = {section: _Names(prefix) for section in SECTIONS}
        self._components: dict[str, Json] = {}
        self._wanted: list[tuple[str, str]] = []
        self._inlining: set[str] = set()
        self._depth = 0
        self._parts = 0

    def rewrite(self, value: Any, kind: Kind, base: str = "") -> Any:
        """Rewrite a part of a kind; `None` leaves it out. `base` is the schema resource that fragments start from.

        Raises:
            DocumentRefused: The document is nested beyond all measure, or grows beyond it.
        """
        if kind == "schema" and isinstance(value, bool):
            return value
        if not isinstance(value, dict):
            return None
        self._depth += 1
        self._parts += 1
        if self._depth > MAX_DEPTH:
            raise DocumentRefused(f"the document is nested more than {MAX_DEPTH} deep")
        if self._parts > MAX_PARTS:
            raise DocumentRefused(f"the document has more than {MAX_PARTS} parts once its references are followed")
        try:
            return self._node(cast("Json", value), kind, base)
        finally:
            self._depth -= 1

    def take_component(self, section: str, name: str) -> str | None:
        """Take a component along, and return its new name; `None` if there is none."""
        if name not in self._sections.get(section, {}):
            return None
        new = self._names[section].of(name)
        known = self._components.setdefault(section, {})
        if new not in known:
            known[new] = {}
            self._wanted.append((section, name))
        return new

    def components(self) -> dict[str, Json]:
        """Every component that was taken along, by section and new name, in the order of names."""
        while self._wanted:
            section, name = self._wanted.pop()
            part = self.rewrite(self._sections[section][name], SECTIONS[section])
            self._components[section][self._names[section].of(name)] = {} if part is None else part
        return {section: dict(sorted(named.items())) for section, named in sorted(self._components.items())}

    def _node(self, node: Json, kind: Kind, base: str) -> Any:
        if kind == "schema" and isinstance(node.get("$id"), str):
            base = self.references.resource(node["$id"]) or base
        reference = node.get("$ref", node.get("$dynamicRef") if kind == "schema" else None)
        if isinstance(reference, str):
            return self._reference(node, reference, kind, base)
        return self._plain(node, kind, base)

    def _plain(self, node: Json, kind: Kind, base: str) -> Json:
        dropped = _IDENTIFIERS if kind == "schema" else _AROUND_THE_GATEWAY
        fields = FIELDS[kind]
        result: Json = {}
        for key, value in node.items():
            if key in dropped:
                continue
            known = CALLBACK if kind == "callback" and not key.startswith("x-") else fields.get(key)
            part = value if known is None else self._field(value, known, base)
            if part is not None or known is None:
                result[key] = part
        if kind == "schema":
            self._finish_schema(result, node, base)
        elif kind in self._finishers:
            self._finishers[kind](result, node)
        return result

    def _field(self, value: Any, known: Field, base: str) -> Any:
        if known.container == "one":
            return self.rewrite(value, known.kind, base)
        if known.container == "list":
            parts = [self.rewrite(item, known.kind, base) for item in as_list(value)]
            return [part for part in parts if part is not None] if isinstance(value, list) else None
        named = {key: self.rewrite(item, known.kind, base) for key, item in as_mapping(value).items()}
        return {key: part for key, part in named.items() if part is not None} if isinstance(value, dict) else None

    def _finish_schema(self, result: Json, node: Json, base: str) -> None:
        discriminator = as_mapping(result.pop("discriminator", None))
        if isinstance(discriminator.get("propertyName"), str):
            result["discriminator"] = self._discriminator(discriminator, node, base)
        if self._old:
            modernise(result)

    # References.

    def _reference(self, node: Json, reference: str, kind: Kind, base: str) -> Any:
        siblings = {key: value for key, value in node.items() if key not in {"$ref", "$dynamicRef"}}
        if kind == "schema":
            beside = {} if self._old else self._plain(siblings, kind, base)  # 3.0 ignores what stands beside a $ref
        else:
            beside = {key: siblings[key] for key in ("summary", "description") if key in siblings}
        pointer = self.references.pointer(reference, base)
        new = self._component(pointer, kind)
        if new is not None:
            return {"$ref": new, **beside}
        target = self._inline(pointer, kind)
        if target is None:
            return {**_LEFT_OUT, **beside} if kind in {"schema", "response"} else None
        if kind == "schema":
            return {"allOf": [target], **beside} if beside else target
        return {**as_mapping(target), **beside}

    def _component(self, pointer: str | None, kind: Kind) -> str | None:
        """The new reference to what `pointer` names, if that is a component of this kind, or a part of one."""
        tokens = self.references.tokens(pointer or "")
        if tokens[:1] != ["components"] or find_kind(tokens) != kind or self.references.target(pointer or "") is None:
            return None
        new = self.take_component(tokens[1], tokens[2])
        return None if new is None else "/".join(["#/components", tokens[1], *map(escape, [new, *tokens[3:]])])

    def _inline(self, pointer: str | None, kind: Kind) -> Any:
        """A copy of what stands elsewhere in the document, such as below a path, whose place does not survive."""
        tokens = self.references.tokens(pointer or "")
        # Read as another kind than it is, a part would be mere data, and the references in it would stay as they were.
        if not pointer or pointer in self._inlining or (tokens[0] in ROOTS and find_kind(tokens) != kind):
            return None
        self._inlining.add(pointer)
        try:
            return self.rewrite(self.references.target(pointer), kind)
        finally:
            self._inlining.discard(pointer)

    # Discriminators.

    def _discriminator(self, given: Json, node: Json, base: str) -> Json:
        """A discriminator whose mapping is written out: without one, values are component names, and those change."""
        mapping: dict[str, str] = {}
        for value, target in as_mapping(given.get("mapping")).items():
            new = self._mapping_target(target, base)
            if new is not None:
                mapping[value] = new
        for name in self._alternatives(node, base):
            new = self._component(_schema_pointer(name), "schema")
            if new is not None and new not in mapping.values():
                mapping.setdefault(name, new)
        kept = {key: value for key, value in given.items() if key != "mapping"}
        return {**kept, "mapping": mapping} if mapping else kept

    def _mapping_target(self, target: Any, base: str) -> str | None:
        if not isinstance(target, str):
            return None
        bare = _schema_pointer(target) if target in self._sections["schemas"] else None
        return self._component(bare or self.references.pointer(target, base), "schema")

    def _alternatives(self, node: Json, base: str) -> list[str]:
        """Names of the schemas that a discriminator chooses from: its alternatives, or all that build on its schema."""
        listed = [node[key] for key in ("oneOf", "anyOf") if isinstance(node.get(key), list)]
        if listed:
            return [name for entry in listed for name in self._named_in(entry, base)]
        schemas = self._sections["schemas"]
        own = next((name for name, schema in schemas.items() if schema is node), None)
        if own is None:
            return []
        return [name for name, schema in schemas.items() if own in self._named_in(as_mapping(schema).get("allOf"), "")]

    def _named_in(self, schemas: Any, base: str) -> list[str]:
        """Names of the components that a list of schemas refers to."""
        found: list[str] = []
        for schema in as_list(schemas):
            reference = as_mapping(schema).get("$ref")
            pointer = self.references.pointer(reference, base) if isinstance(reference, str) else None
            tokens = self.references.tokens(pointer or "")
            if len(tokens) == 3 and tokens[:2] == ["components", "schemas"]:
                found.append(tokens[2])
        return found


def _schema_pointer(name: str) -> str:
    return f"/components/schemas/{escape_token(name)}"
