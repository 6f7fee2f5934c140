"""A transaction's operations on nodes, services and checks: what `catalog/register` writes, piece by piece.

They are done where everybody sees them, in one go, and undone if the transaction fails: what was there is remembered as
the immutable values that it is. The registry's own node can be read, and not written.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from toska_discovery.changes import Changes
from toska_discovery.check import Check
from toska_discovery.errors import UnknownInstance
from toska_discovery.foreign import CatalogEntry, ForeignNodes
from toska_discovery.instance import Instance, ServiceDefinition
from toska_discovery.listing import Listing, Memory
from toska_discovery.node import OWN_NODE, Node, NodeDefinition, node_key


@dataclass(frozen=True, slots=True)
class _Operation:
    """What all operations have.

    Attributes:
        index: The ModifyIndex that it must have, of verbs that ask for one.
        flaw: What cannot be right about it, whatever the catalog has.
    """

    verb: str
    index: int = field(default=0, kw_only=True)
    flaw: str = field(default="", kw_only=True)

    @property
    def writes(self) -> bool:
        """Whether it is more than a question."""
        return self.verb != "get"


@dataclass(frozen=True, slots=True)
class NodeOperation(_Operation):
    """One operation on a node."""

    node: NodeDefinition


@dataclass(frozen=True, slots=True)
class ServiceOperation(_Operation):
    """One operation on an instance of a node."""

    node: str
    service: ServiceDefinition


@dataclass(frozen=True, slots=True)
class CheckOperation(_Operation):
    """One operation on a check of a node, or of the instance `owner` on it."""

    node: str
    check: Check
    owner: str | None = None


CatalogOperation = NodeOperation | ServiceOperation | CheckOperation


@dataclass(frozen=True, slots=True)
class NodeResult:
    """A node as it is after an operation."""

    node: Node


@dataclass(frozen=True, slots=True)
class ServiceResult:
    """An instance as it is after an operation."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A check as it is after an operation, with the name of its node, and its instance if it has one."""

    node: str
    instance: Instance | None
    check: Check


CatalogResult = NodeResult | ServiceResult | CheckResult


class Wrong(Exception):
    """An operation cannot be done."""


class Shown(Protocol):
    """The catalog as readers see it."""

    def find_node(self, name: str) -> str | None:
        """What a node is listed under."""
        ...

    def node(self, key: str) -> Node:
        """A node."""
        ...

    def find_instance(self, key: str, instance_id: str) -> Instance | None:
        """An instance on a node."""
        ...

    def find_check(self, key: str, check_id: str) -> tuple[Instance | None, Check] | None:
        """A check on a node, and the instance that it belongs to, if it is not the node's."""
        ...


class CatalogStage:
    """Where a transaction's operations on the catalog are done; at most `room` instances, and nodes, are taken."""

    def __init__(self, listing: Listing, foreign: ForeignNodes, shown: Shown, at: datetime, room: int) -> None:
        self._listing = listing
        self._foreign = foreign
        self._shown = shown
        self._at = at
        self._room = room

    def remember(self, operations: Iterable[CatalogOperation]) -> Memory | None:
        """What `undo` needs to take these operations back; `None` if none of them writes."""
        writes = [operation for operation in operations if operation.writes]
        return self._listing.remember(self._touched_by(writes)) if writes else None

    def undo(self, memory: Memory | None) -> None:
        """Have everything as it was remembered."""
        if memory is not None:
            self._listing.recall(memory)

    def _touched_by(self, operations: Iterable[CatalogOperation]) -> set[str]:
        """The nodes that may change: those that are named, and those whose ids are."""
        names: set[str] = set()
        ids: set[str] = set()
        for operation in operations:
            if isinstance(operation, NodeOperation):
                names.add(node_key(operation.node.name))
                ids.add(operation.node.id)
            else:
                names.add(node_key(operation.node))
        if ids - {""}:
            names |= {key for key, node in self._listing.nodes.items() if node.definition.id in ids - {""}}
        return names - {OWN_NODE}

    def do(self, operation: CatalogOperation, changes: Changes) -> list[CatalogResult]:
        """Do one operation.

        Raises:
            Wrong: What is wrong, in Consul's words.
        """
        if operation.writes:
            self._refuse_own(operation)
        match operation:
            case NodeOperation():
                result = self._do_node(operation, changes)
            case ServiceOperation():
                result = self._do_service(operation, changes)
            case CheckOperation():
                result = self._do_check(operation, changes)
        return [] if result is None else [result]

    def _do_node(self, operation: NodeOperation, changes: Changes) -> NodeResult | None:
        name = operation.node.name
        before = self._find_node(operation.node)
        match operation.verb:
            case "get":
                if before is None:
                    raise Wrong(f'node "{name}" doesn\'t exist')
                return NodeResult(before)
            case "set" | "cas":
                named = self._shown.find_node(name)
                known = None if named is None else self._shown.node(named)
                _compare(operation, known, f'failed to set node "{name}", index is stale')
                if named is None and len(self._listing.nodes) > self._room:
                    raise Wrong(f"the registry takes no more than {self._room} nodes")
                self._foreign.register(CatalogEntry(operation.node), self._at, changes)
                return NodeResult(self._listing.nodes[node_key(name)])
            case "delete" | "delete-cas":
                named = self._shown.find_node(name)
                known = None if named is None else self._shown.node(named)
                _compare_gone(operation, known, f'failed to delete node "{name}", index is stale')
                self._foreign.deregister(name, changes=changes)
                return None
            case verb:
                raise Wrong(f'unknown Node verb "{verb}"')

    def _do_service(self, operation: ServiceOperation, changes: Changes) -> ServiceResult | None:
        what = f'service "{operation.service.id}" on node "{operation.node}"'
        before = self._find_instance(operation)
        match operation.verb:
            case "get":
                if before is None:
                    raise Wrong(f"{what} doesn't exist")
                return ServiceResult(before)
            case "set" | "cas":
                _compare(operation, before, f"failed to set {what}, index is stale")
                key = self._require_node(operation.node)
                if before is None and len(self._listing.instances) >= self._room:
                    raise Wrong(f"the registry takes no more than {self._room} instances")
                entry = CatalogEntry(self._shown.node(key).definition, operation.service, keep_node=True)
                self._foreign.register(entry, self._at, changes)
                after = self._find_instance(operation)
                return None if after is None else ServiceResult(after)
            case "delete" | "delete-cas":
                _compare_gone(operation, before, f"failed to delete {what}, index is stale")
                self._foreign.deregister(operation.node, instance_id=operation.service.id, changes=changes)
                return None
            case verb:
                raise Wrong(f'unknown Service verb "{verb}"')

    def _do_check(self, operation: CheckOperation, changes: Changes) -> CheckResult | None:
        check_id = operation.check.definition.id
        what = f'check "{check_id}" on node "{operation.node}"'
        before = self._find_check(operation)
        check = None if before is None else before.check
        match operation.verb:
            case "get":
                if before is None:
                    raise Wrong(f"{what} doesn't exist")
                return before
            case "set" | "cas":
                _compare(operation, check, f"failed to set {what}, index is stale")
                node = self._shown.node(self._require_node(operation.node)).definition
                entry = CatalogEntry(node, None, [(operation.owner, operation.check)], keep_node=True)
                try:
                    self._foreign.register(entry, self._at, changes)
                except UnknownInstance as error:
                    raise Wrong("Missing service registration") from error
                return self._find_check(operation)
            case "delete" | "delete-cas":
                _compare_gone(operation, check, f"failed to delete {what}, index is stale")
                self._foreign.deregister(operation.node, check_id=check_id, changes=changes)
                return None
            case verb:
                raise Wrong(f'unknown Check verb "{verb}"')

    def _find_node(self, wanted: NodeDefinition) -> Node | None:
        """By its id if one is given, as Consul does, and else by its name."""
        if wanted.id:
            nodes = self._listing.nodes.values()
            return next((node for node in nodes if node.definition.id.lower() == wanted.id.lower()), None)
        key = self._shown.find_node(wanted.name)
        return None if key is None else self._shown.node(key)

    def _find_instance(self, operation: ServiceOperation) -> Instance | None:
        key = self._shown.find_node(operation.node)
        return None if key is None else self._shown.find_instance(key, operation.service.id)

    def _find_check(self, operation: CheckOperation) -> CheckResult | None:
        key = self._shown.find_node(operation.node)
        found = None if key is None else self._shown.find_check(key, operation.check.definition.id)
        return None if key is None or found is None else CheckResult(self._shown.node(key).definition.name, *found)

    def _require_node(self, name: str) -> str:
        key = self._shown.find_node(name)
        if key is None:
            raise Wrong("Missing node registration")
        return key

    def _refuse_own(self, operation: CatalogOperation) -> None:
        """Leave the registry's own node to the agent, and its name and id to it alone."""
        own = self._listing.nodes[OWN_NODE].definition
        named = isinstance(operation, NodeOperation) and bool(own.id) and operation.node.id.lower() == own.id.lower()
        name = operation.node.name if isinstance(operation, NodeOperation) else operation.node
        if self._shown.find_node(name) == OWN_NODE:
            raise Wrong(f"{own.name} is the registry's own node; register services and checks on it with the agent")
        if named:
            raise Wrong(f"Bad node ID: it is that of the registry's own node {own.name}")


def _compare(operation: CatalogOperation, before: Node | Instance | Check | None, problem: str) -> None:
    """Of `cas`: the index must be its own, or 0 if it is not there."""
    if operation.verb == "cas" and operation.index != (0 if before is None else before.modify_index):
        raise Wrong(problem)


def _compare_gone(operation: CatalogOperation, before: Node | Instance | Check | None, problem: str) -> None:
    """Of `delete-cas`: it must be there, and the index its own."""
    if operation.verb == "delete-cas" and (before is None or operation.index != before.modify_index):
        raise Wrong(problem)
