"""Whether data written by one JSON Schema can be read by another: the rule behind a topic's compatibility mode. Pure.

    backward   the new schema reads what the old one wrote: readers are upgraded first
    forward    the old schema reads what the new one writes: publishers are upgraded first
    full       both, in any order
    none       nothing is checked

Reading is judged as an event's readers do it: a writer writes no property that its schema does not name, and readers
ignore those that they do not know unless `additionalProperties` forbids it. What cannot be decided (a `not`, two
different patterns) counts as incompatible, with the keyword named: an incompatible publisher costs its readers more
than a refused one costs its author.
Source: JSON Schema 2020-12, as pydantic writes it; the modes are those of common schema registries
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeGuard, cast

Schema = Mapping[str, Any]

MAX_PROBLEMS = 50

_LOWER_BOUNDS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER_BOUNDS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_SAME = ("pattern", "format", "multipleOf", "contentEncoding", "contentMediaType")
_UNDECIDED = (
    "not", "if", "then", "else", "dependentSchemas", "dependentRequired", "patternProperties", "propertyNames",
    "unevaluatedProperties", "unevaluatedItems", "contains",
)  # fmt: skip
_ALL_TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


class Compatibility(StrEnum):
    """What a topic asks of a new version of its schema."""

    NONE = "none"
    BACKWARD = "backward"
    FORWARD = "forward"
    FULL = "full"


def find_incompatibilities(old: Schema, new: Schema, mode: Compatibility) -> list[str]:
    """Why `new` may not follow `old`, for people; empty if it may."""
    problems: list[str] = []
    if mode in (Compatibility.BACKWARD, Compatibility.FULL):
        problems += [f"{problem} (the new schema cannot read old data)" for problem in unreadable(old, new)]
    if mode in (Compatibility.FORWARD, Compatibility.FULL):
        problems += [f"{problem} (the old schema cannot read new data)" for problem in unreadable(new, old)]
    return problems[:MAX_PROBLEMS]


def unreadable(writer: Schema, reader: Schema) -> list[str]:
    """What `writer` may write that `reader` does not take, by JSON path."""
    comparison = _Comparison(writer, reader)
    return list(dict.fromkeys(comparison.compare(writer, reader, "$")))


class _Comparison:
    """One comparison of two documents; `$ref`s are looked up in the document that they stand in."""

    def __init__(self, writer: Schema, reader: Schema) -> None:
        self._writer = writer
        self._reader = reader
        self._compared: set[tuple[str, str]] = set()

    def compare(self, writer: Any, reader: Any, path: str) -> Iterator[str]:
        """Problems below one place."""
        if self._is_known(writer, reader):
            return
        writer, reader = _resolve(writer, self._writer), _resolve(reader, self._reader)
        if reader is True or reader == {} or writer is False:
            return
        if reader is False:
            yield f"{path}: nothing may stand here"
            return
        if writer is True:
            writer = {}
        writer, reader = cast("Schema", writer), cast("Schema", reader)
        if "allOf" in reader:
            for part in reader["allOf"]:
                yield from self.compare(writer, part, path)
            reader = {key: value for key, value in reader.items() if key != "allOf"}
        writer = self._merged(writer)
        choices = _choices(writer)
        if choices is not None:
            for choice in choices:
                yield from self.compare(choice, reader, path)
            return
        alternatives = _choices(reader)
        if alternatives is not None:
            yield from self._any_of(writer, alternatives, path)
            return
        yield from self._one(writer, reader, path)

    def _is_known(self, writer: Any, reader: Any) -> bool:
        # Models that contain themselves come back to the same pair of references.
        if not (_is_ref(writer) and _is_ref(reader)):
            return False
        pair = (_pointer(writer), _pointer(reader))
        known = pair in self._compared
        self._compared.add(pair)
        return known

    def _merged(self, writer: Schema) -> Schema:
        parts = writer.get("allOf")
        if not parts:
            return writer
        merged = {key: value for key, value in writer.items() if key != "allOf"}
        for part in parts:
            resolved = _resolve(part, self._writer)
            if isinstance(resolved, Mapping):
                for key, value in cast("Schema", resolved).items():
                    merged[key] = _both(key, merged[key], value) if key in merged else value
        return merged

    def _any_of(self, writer: Schema, alternatives: Sequence[Any], path: str) -> Iterator[str]:
        kinds = _types(writer)
        if len(kinds) > 1 and kinds != _ALL_TYPES:
            for kind in sorted(kinds):
                yield from self._any_of({**writer, "type": kind}, alternatives, path)
            return
        best: list[str] | None = None
        for alternative in alternatives:
            compared = set(self._compared)
            problems = list(self.compare(writer, alternative, path))
            if not problems:
                return
            self._compared = compared
            if best is None or len(problems) < len(best):
                best = problems
        if len(alternatives) == 1 and best:
            yield from best
        else:
            yield f"{path}: {_said(writer)} fits none of the {len(alternatives)} choices"

    def _one(self, writer: Schema, reader: Schema, path: str) -> Iterator[str]:
        values = _values(writer)
        allowed = _values(reader)
        if allowed is not None:
            missing = [value for value in values or () if value not in allowed]
            if values is None:
                yield f"{path}: may be {_said(writer)}, where only {_listed(allowed)} is taken"
            elif missing:
                yield f"{path}: may be {_listed(missing)}, which is not taken"
            return
        kinds = _types(reader)
        if values is not None:
            wrong = [value for value in values if _type_of(value) not in kinds and not _fits_number(value, kinds)]
            if wrong:
                yield f"{path}: may be {_listed(wrong)}, where {_kinds(kinds)} is wanted"
            return
        surplus = {
            kind for kind in _types(writer) if kind not in kinds and not (kind == "integer" and "number" in kinds)
        }
        if surplus:
            said = "anything" if _types(writer) == _ALL_TYPES else _kinds(surplus)
            yield f"{path}: may be {said}, where {_kinds(kinds)} is wanted"
            return
        yield from _constraints(writer, reader, path)
        yield from self._properties(writer, reader, path)
        yield from self._items(writer, reader, path)

    def _properties(self, writer: Schema, reader: Schema, path: str) -> Iterator[str]:
        if "object" not in _types(writer) or not _is_object(reader):
            return
        written, read = writer.get("properties", {}), reader.get("properties", {})
        always = set(writer.get("required", ()))
        for name in reader.get("required", ()):
            if name not in always:
                yield f"{path}.{name}: is required, and not always written"
        for name, schema in written.items():
            if name in read:
                yield from self.compare(schema, read[name], f"{path}.{name}")
            else:
                yield from self._additional(schema, reader, f"{path}.{name}")
        values = writer.get("additionalProperties")
        if isinstance(values, Mapping) and values:
            yield from self._additional(cast("Schema", values), reader, f"{path}.*")

    def _additional(self, schema: Any, reader: Schema, path: str) -> Iterator[str]:
        allowed = reader.get("additionalProperties", True)
        if allowed is False:
            yield f"{path}: is written, and no further properties are taken"
        else:
            yield from self.compare(schema, allowed, path)

    def _items(self, writer: Schema, reader: Schema, path: str) -> Iterator[str]:
        if "array" not in _types(writer):
            return
        if reader.get("uniqueItems") and not writer.get("uniqueItems"):
            yield f"{path}: items may repeat, and may not"
        fixed, wanted = writer.get("prefixItems", ()), reader.get("prefixItems", ())
        for place in range(max(len(fixed), len(wanted))):
            item = fixed[place] if place < len(fixed) else writer.get("items", True)
            taken = wanted[place] if place < len(wanted) else reader.get("items", True)
            if item is not False:
                yield from self.compare(item, taken, f"{path}[{place}]")
        if writer.get("items", True) is not False and ("items" in reader or "items" in writer):
            yield from self.compare(writer.get("items", True), reader.get("items", True), f"{path}[]")


def _constraints(writer: Schema, reader: Schema, path: str) -> Iterator[str]:
    for keyword in _LOWER_BOUNDS:
        if keyword in reader and not _reaches(writer, reader, keyword, above=True):
            yield f"{path}: {keyword} is {reader[keyword]}, and less may be written"
    for keyword in _UPPER_BOUNDS:
        if keyword in reader and not _reaches(writer, reader, keyword, above=False):
            yield f"{path}: {keyword} is {reader[keyword]}, and more may be written"
    for keyword in _SAME:
        if keyword in reader and writer.get(keyword) != reader[keyword]:
            yield f"{path}: {keyword} must be {reader[keyword]!r}"
    for keyword in _UNDECIDED:
        if keyword in reader and writer.get(keyword) != reader[keyword]:
            yield f"{path}: {keyword} differs, and cannot be compared"


def _reaches(writer: Schema, reader: Schema, keyword: str, *, above: bool) -> bool:
    bound = reader[keyword]
    own = writer.get(keyword)
    if own is not None and (own >= bound if above else own <= bound):
        return True
    # `minimum: 1` is inside `exclusiveMinimum: 0`, and `exclusiveMinimum: 1` inside `minimum: 1`.
    if keyword in ("minimum", "maximum"):
        other = writer.get("exclusive" + keyword.capitalize())
        return other is not None and (other >= bound if above else other <= bound)
    if keyword in ("exclusiveMinimum", "exclusiveMaximum"):
        other = writer.get(keyword.removeprefix("exclusive").lower())
        return other is not None and (other > bound if above else other < bound)
    return False


def _resolve(schema: Any, root: Schema) -> Any:
    seen: set[str] = set()
    while _is_ref(schema):
        pointer = _pointer(schema)
        if pointer in seen or not pointer.startswith("#"):
            return {"not": {}, "$comment": pointer}  # a loop of references, or one that leads elsewhere
        seen.add(pointer)
        beside = {key: value for key, value in schema.items() if key != "$ref" and not _is_annotation(key)}
        found = _at(root, pointer)
        schema = {"allOf": [found, beside]} if beside else found
    return schema


def _at(root: Schema, pointer: str) -> Any:
    found: Any = root
    for part in pointer.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        found = cast("Schema", found).get(name, {}) if isinstance(found, Mapping) else {}
    return found


def _is_ref(schema: Any) -> TypeGuard[Schema]:
    return isinstance(schema, Mapping) and "$ref" in schema


def _pointer(schema: Schema) -> str:
    return str(schema["$ref"])


def _is_annotation(key: str) -> bool:
    return key in ("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment")


def _choices(schema: Schema) -> list[Any] | None:
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            rest = {
                key: value
                for key, value in schema.items()
                if key not in (keyword, "discriminator") and not _is_annotation(key)
            }
            return [{"allOf": [choice, rest]} if rest else choice for choice in schema[keyword]]
    return None


def _both(key: str, one: Any, other: Any) -> Any:
    if key == "required":
        return sorted({*one, *other})
    if key == "properties":
        return {**one, **other}
    if key in _LOWER_BOUNDS:
        return max(one, other)
    if key in _UPPER_BOUNDS:
        return min(one, other)
    return other


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    if "enum" in schema:
        return list(schema["enum"])
    if schema.get("type") == "null":
        return [None]
    if schema.get("type") == "boolean":
        return [False, True]
    return None


def _types(schema: Schema) -> frozenset[str]:
    kind = schema.get("type")
    if isinstance(kind, str):
        return frozenset({kind})
    if isinstance(kind, Sequence):
        return frozenset(cast("Sequence[str]", kind))
    values = _values(schema)
    return _ALL_TYPES if values is None else frozenset(_type_of(value) for value in values)


def _is_object(schema: Schema) -> bool:
    return "object" in _types(schema)


def _type_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case Mapping():
            return "object"
        case _:
            return "array"


def _fits_number(value: Any, kinds: frozenset[str]) -> bool:
    return _type_of(value) == "integer" and "number" in kinds


def _kinds(kinds: frozenset[str] | set[str]) -> str:
    return "anything" if kinds == _ALL_TYPES else " or ".join(sorted(kinds))


def _listed(values: Sequence[Any]) -> str:
    shown = ", ".join(repr(value)[:40] for value in values[:5])
    return shown + ("…" if len(values) > 5 else "")


def _said(schema: Schema) -> str:
    values = _values(schema)
    return _kinds(_types(schema)) if values is None else _listed(values)
