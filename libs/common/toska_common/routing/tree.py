"""YAML 1.2 and JSON as a tree that knows its lines.

Only the core schema of YAML 1.2 (§10.3) is read: `on`, `yes` and dates are plain strings, there are no tags and no
merge keys. A key that stands twice is a problem, and so is a document that its aliases make larger than `MAX_NODES`:
reading shares what an alias stands for, so such a document is refused before it costs anything.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from toska_common.routing.problems import Finding, InvalidDocument, Location, Problem, format_location

MAX_BYTES = 32 * 2**20
MAX_NODES = 1_000_000
MAX_DEPTH = 64

Scalar = str | int | float | bool | None

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_MAX_DIGITS = 18  # what a 64-bit integer surely holds; a longer run of digits is taken as a string


@dataclass(frozen=True, slots=True)
class Node:
    """A value with the line it stands on (from 1; `None` for JSON) and, in a mapping, the lines of its keys.

    `size` counts the nodes below it, itself included, with every alias counted as if it were written out.
    """

    value: "Scalar | tuple[Node, ...] | dict[str, Node]"
    line: int | None
    size: int = 1
    key_lines: dict[str, int] | None = None

    def plain(self) -> Any:
        """The value as mappings, tuples and scalars."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, tuple):
            return tuple(child.plain() for child in self.value)
        return self.value

    def find(self, location: Location) -> "Node":
        """The node at a location that the document has."""
        node = self
        for part in location:
            if isinstance(node.value, dict):
                node = node.value[str(part)]
            elif isinstance(node.value, tuple) and isinstance(part, int):
                node = node.value[part]
            else:
                raise KeyError(location)
        return node

    def as_written(self, location: Location) -> Location:
        """A location without the index of a list of one that was written without its brackets."""
        node: Node | None = self
        found: list[str | int] = []
        for part in location:
            value = None if node is None else node.value
            if part == 0 and isinstance(value, dict):
                continue
            found.append(part)
            if isinstance(value, dict):
                node = value.get(str(part))
            else:
                node = value[part] if isinstance(value, tuple) and isinstance(part, int) and part < len(value) else None
        return tuple(found)

    def locate(self, location: Location) -> tuple[Location, int | None]:
        """The longest part of `location` that the document has, and the line it is on."""
        node, line = self, self.line
        for depth, part in enumerate(location):
            if isinstance(node.value, dict) and part in node.value:
                key = str(part)
                line = node.key_lines[key] if node.key_lines else None
                node = node.value[key]
            elif isinstance(node.value, tuple) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.line
            else:
                return location[:depth], line
        return location, line


@dataclass(frozen=True, slots=True)
class Tree:
    """A document's root, and what is wrong with the document without making it unreadable."""

    root: Node
    problems: tuple[Problem, ...] = ()


def name_problems(findings: Iterable[Finding], tree: Tree) -> list[Problem]:
    """Give each finding its line, and order them, with the tree's own problems, by it."""
    problems = [
        Problem(format_location(finding.location), tree.root.locate(finding.location)[1], finding.reason)
        for finding in findings
    ]
    return sorted(dict.fromkeys((*tree.problems, *problems)), key=lambda problem: problem.line or 0)


def decode(text: str | bytes, source: str) -> str:
    """Text of a document, which is UTF-8 and at most `MAX_BYTES` long."""
    if len(text) > MAX_BYTES:
        raise InvalidDocument([Problem("", None, f"larger than {MAX_BYTES} bytes")], source=source)
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        raise InvalidDocument([Problem("", line, "not UTF-8")], source=source) from error


def parse_yaml(text: str, source: str, *, max_nodes: int = MAX_NODES) -> Tree:
    """Read one YAML 1.2 document of at most `max_nodes` values; a key that stands twice is in the tree's problems.

    Raises:
        InvalidDocument: It is not YAML, not one document, or too large or deep.
    """
    # Imported here: it costs 0.1 s, and a mesh without a routing file never needs it.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    builder = _Builder(source, max_nodes)
    parser: Any = YAML(typ="safe", pure=True)
    try:
        for event in parser.parse(text):
            builder.feed(event)
    except MarkedYAMLError as error:
        raise InvalidDocument([_syntax_problem(error)], source=source) from error
    except YAMLError as error:  # the reader's, for a character that YAML forbids
        position = getattr(error, "position", None)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else None
        raise InvalidDocument(
            [Problem("", line, "not YAML: a character that is not allowed")], source=source
        ) from error
    return builder.finish()


def _syntax_problem(error: Any) -> Problem:
    mark = error.problem_mark or error.context_mark
    reason = "; ".join(part for part in (error.context, error.problem) if part)
    return Problem("", mark.line + 1 if mark else None, f"not YAML: {reason}")


def parse_json(text: str, source: str) -> Tree:
    """Read a JSON text (RFC 8259), refusing keys that stand twice and numbers that JSON does not have.

    Raises:
        InvalidDocument: It is not JSON, or a key stands twice.
    """
    try:
        content = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InvalidDocument([Problem("", error.lineno, f"not JSON: {error.msg}")], source=source) from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidDocument([Problem("", None, reason)], source=source) from error
    return Tree(_json_node(content, source))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _json_node(content: Any, source: str, depth: int = 0) -> Node:
    if depth > MAX_DEPTH:
        raise InvalidDocument([Problem("", None, f"nested more than {MAX_DEPTH} deep")], source=source)
    if isinstance(content, dict):
        return Node({str(key): _json_node(value, source, depth + 1) for key, value in content.items()}, None)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - JSON is untyped until it is validated
    if isinstance(content, list):
        return Node(tuple(_json_node(value, source, depth + 1) for value in content), None)  # pyright: ignore[reportUnknownVariableType] - as above
    return Node(content, None)


class _Open:
    """A collection that is being read."""

    __slots__ = ("anchor", "children", "key", "key_line", "key_lines", "line", "location", "mapping", "size")

    def __init__(self, mapping: bool, line: int, anchor: str | None, location: Location) -> None:
        self.mapping = mapping
        self.line = line
        self.anchor = anchor
        self.location = location
        self.children: list[Node] = []
        self.key: str | None = None
        self.key_line = line
        self.key_lines: dict[str, int] = {}
        self.size = 1


class _Builder:
    """Makes nodes of the parser's events, without recursion."""

    def __init__(self, source: str, max_nodes: int) -> None:
        self._source = source
        self._max_nodes = max_nodes
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._roots: list[Node] = []
        self._problems: list[Problem] = []

    def feed(self, event: Any) -> None:
        kind = type(event).__name__
        line = event.start_mark.line + 1
        if kind in {"MappingStartEvent", "SequenceStartEvent"}:
            self._check_tag(event, line)
            self._open(_Open(kind == "MappingStartEvent", line, event.anchor, self._location()))
        elif kind in {"MappingEndEvent", "SequenceEndEvent"}:
            self._close()
        elif kind == "ScalarEvent":
            self._scalar(event, line)
        elif kind == "AliasEvent":
            node = self._anchors.get(event.anchor)
            if node is None:
                self._fail(line, f"the alias *{event.anchor} names no complete anchor before it")
            else:
                self._add(node, line)
        elif kind == "DocumentStartEvent" and self._roots:
            self._fail(line, "more than one document; write one")

    def finish(self) -> Tree:
        if not self._roots:
            raise InvalidDocument([Problem("", 1, "empty; write `routes: []` to route nothing")], source=self._source)
        return Tree(self._roots[0], tuple(self._problems))

    def _open(self, collection: _Open) -> None:
        if len(self._stack) >= MAX_DEPTH:
            self._fail(collection.line, f"nested more than {MAX_DEPTH} deep")
        if self._stack and self._stack[-1].mapping and self._stack[-1].key is None:
            self._fail(collection.line, "a key is a string")
        self._stack.append(collection)

    def _close(self) -> None:
        done = self._stack.pop()
        value: tuple[Node, ...] | dict[str, Node] = tuple(done.children)
        if done.mapping:
            value = dict(zip(done.key_lines, done.children, strict=True))
        node = Node(value, done.line, done.size, done.key_lines if done.mapping else None)
        if done.anchor:
            self._anchors[done.anchor] = node
        self._add(node, done.line)

    def _scalar(self, event: Any, line: int) -> None:
        parent = self._stack[-1] if self._stack else None
        if parent is not None and parent.mapping and parent.key is None:
            self._key(parent, event.value, line)
            return
        self._check_tag(event, line)
        plain = event.style is None and event.tag is None
        node = Node(_resolve(event.value) if plain else event.value, line)
        if event.anchor:
            self._anchors[event.anchor] = node
        self._add(node, line)

    def _key(self, parent: _Open, key: str, line: int) -> None:
        parent.key, parent.key_line = key, line
        if key in parent.key_lines:
            reason = f"stands twice; the first is on line {parent.key_lines[key]}"
            self._problems.append(Problem(format_location((*parent.location, key)), line, reason))
        elif key == "<<":
            reason = "merge keys are not part of YAML 1.2; write the values out"
            self._problems.append(Problem(format_location((*parent.location, key)), line, reason))

    def _add(self, node: Node, line: int) -> None:
        if not self._stack:
            self._roots.append(node)
            return
        parent = self._stack[-1]
        parent.size += node.size
        if parent.size > self._max_nodes:
            self._fail(line, f"more than {self._max_nodes} values once its aliases are written out")
        if not parent.mapping:
            parent.children.append(node)
        elif parent.key is None:
            self._fail(line, "a key is a string")
        else:
            if parent.key not in parent.key_lines:
                parent.key_lines[parent.key] = parent.key_line
                parent.children.append(node)
            parent.key = None

    def _location(self) -> Location:
        if not self._stack:
            return ()
        parent = self._stack[-1]
        return (*parent.location, parent.key or "" if parent.mapping else len(parent.children))

    def _check_tag(self, event: Any, line: int) -> None:
        tag = str(event.tag) if event.tag is not None else ""
        if tag and tag not in {"!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}:
            self._problems.append(Problem(format_location(self._location()), line, f"the tag {tag} is not read"))

    def _fail(self, line: int, reason: str) -> None:
        self._problems.append(Problem("", line, reason))
        raise InvalidDocument(self._problems, source=self._source)


def _resolve(text: str) -> Scalar:
    """Read a plain scalar by the core schema."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if len(text) <= _MAX_DIGITS:
        if _DECIMAL.fullmatch(text):
            return int(text)
        if _OCTAL.fullmatch(text) or _HEXADECIMAL.fullmatch(text):
            return int(text, 0)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text
