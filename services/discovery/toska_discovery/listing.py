"""Who is listed: nodes and instances, in every way that they are looked up, and the index of each list's last change.

    services_index       the instances, verdicts aside
    checks_index         the checks, of instances and nodes
    nodes_index          the nodes, their checks aside
    service_index(name)  one service: its instances and their verdicts, and those of the nodes that they are on

The index of a service that is not there is that of the last service that ceased to be. Nothing here decides anything:
the registry does, and tells what to put, replace and remove.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from toska_common.contracts.discovery import Health

from toska_discovery.changes import CHECKS, NODES, SERVICES, Changes, Happening, service_topic
from toska_discovery.check import Check, worst
from toska_discovery.instance import Instance, ServiceDefinition
from toska_discovery.node import OWN_NODE, Node, NodeDefinition


@dataclass(frozen=True, slots=True)
class Memory:
    """What a listing was, as far as some nodes are concerned; values are immutable, so it is cheap."""

    indexes: tuple[int, int, int, int, int]
    nodes: Mapping[str, Node | None]
    instances: Iterable[Instance]
    service_index: Mapping[str, int]


class Listing:
    """The lists; to be read by anybody, and changed by the registry.

    Attributes:
        index: Of the last change of anything.
        instances: By key.
        services: By name, their instances by key.
        nodes: By `node_key`; the registry's own is `OWN_NODE`.
        by_health: How many instances are in which state.
    """

    def __init__(self, node: NodeDefinition, index: int) -> None:
        self.index = self.services_index = self.checks_index = self.nodes_index = index
        self.instances: dict[str, Instance] = {}
        self.services: dict[str, dict[str, Instance]] = {}
        self.nodes: dict[str, Node] = {OWN_NODE: Node(node, index, index)}
        self.by_health = dict.fromkeys(Health, 0)
        self._on_foreign: dict[str, dict[str, Instance]] = {}
        self._service_index: dict[str, int] = {}
        self._by_endpoint: dict[tuple[str, int], str] = {}
        self._extinction_index = 0

    def service_index(self, name: str) -> int:
        """Index of the last change of a service, or of the last extinction of any if there is none of the name."""
        return self._service_index.get(name) or self._extinction_index or self.services_index

    def health_of(self, instance: Instance) -> Health:
        """How an instance is, with the checks of its node."""
        node = self.nodes[instance.node]
        return worst((instance.health, node.health)) if node.checks else instance.health

    def instances_on(self, node: str) -> list[Instance]:
        """The instances on a node."""
        if node != OWN_NODE:
            return [*self._on_foreign.get(node, {}).values()]
        return [instance for instance in self.instances.values() if instance.node == OWN_NODE]

    def holder(self, service: ServiceDefinition) -> str | None:
        """Which other instance of the registry's own node has the address and port of `service`."""
        endpoint = service.endpoint
        holder = self._by_endpoint.get(endpoint) if endpoint is not None else None
        return None if holder == service.id else holder

    def load(self, nodes: Mapping[str, Node], instances: Iterable[Instance], index: int) -> None:
        """Take over what was stored; everything counts as changed at `index`."""
        self.index = self.services_index = self.checks_index = self.nodes_index = self._extinction_index = index
        own = Node(self.nodes[OWN_NODE].definition, index, index, checks_index=index)
        stored = nodes.get(OWN_NODE)
        self.nodes = {**nodes, OWN_NODE: own if stored is None else replace(own, checks=stored.checks)}
        for instance in instances:
            self.put(instance)
            self._service_index[instance.service.name] = index

    def clear(self) -> None:
        """Forget everybody but the registry's own node."""
        own = self.nodes[OWN_NODE]
        for table in (self.instances, self.services, self.nodes, self._service_index, self._by_endpoint):
            table.clear()
        self.nodes[OWN_NODE] = own
        self.by_health.update(dict.fromkeys(Health, 0))

    def step(self, changes: Changes) -> int:
        """Take the next index."""
        self.index += 1
        changes.index = self.index
        return self.index

    def remember(self, nodes: Iterable[str]) -> Memory:
        """What there is on these nodes, of which none is the registry's own, and how new everything is."""
        names = {*nodes}
        indexes = (
            self.index, self.services_index, self.checks_index, self.nodes_index, self._extinction_index
        )  # fmt: skip
        instances = [instance for name in names for instance in self.instances_on(name)]
        return Memory(indexes, {name: self.nodes.get(name) for name in names}, instances, {**self._service_index})

    def recall(self, memory: Memory) -> None:
        """Have everything as it was; nothing but those nodes and what is on them has changed since."""
        for name, node in memory.nodes.items():
            for instance in self.instances_on(name):
                self._unlist(instance)
            self._on_foreign.pop(name, None)
            if node is None:
                self.nodes.pop(name, None)
            else:
                self.nodes[name] = node
        for instance in memory.instances:
            self.put(instance)
        self._service_index = {**memory.service_index}
        self.index, self.services_index, self.checks_index, self.nodes_index, self._extinction_index = memory.indexes

    def put(self, instance: Instance) -> None:
        """Have `instance` stand under its key, with no change that a reader could see."""
        service, key = instance.service, instance.key
        before = self.instances.get(key)
        if before is not None:
            self.by_health[before.health] -= 1
        self.by_health[instance.health] += 1
        self.instances[key] = instance
        self.services.setdefault(service.name, {})[key] = instance
        if instance.node != OWN_NODE:
            self._on_foreign.setdefault(instance.node, {})[key] = instance
        elif service.endpoint is not None:
            self._by_endpoint[service.endpoint] = key

    def replace(self, before: Instance | None, after: Instance, changes: Changes) -> None:
        """Put `after` in the place of `before`, at the current index."""
        service = after.service
        old_checks: Mapping[str, Check] = {} if before is None else before.checks
        if before is not None:
            if before.service.endpoint != service.endpoint:
                self._vacate(before)
            if before.service.name != service.name:
                self._leave_service(before, changes)
        self.put(after)
        self._service_index[service.name] = self.index
        changes.instances[after.key] = after
        changes.topics.add(service_topic(service.name))
        if before is None or before.service != service:
            self.services_index = self.index
            changes.topics.add(SERVICES)
        if old_checks != after.checks:
            self._note_checks(after.node, old_checks, after.checks, changes)

    def remove(self, instance: Instance, changes: Changes, happening: Happening) -> None:
        """Take an instance off, at the current index."""
        del self.instances[instance.key]
        if instance.node != OWN_NODE:
            del self._on_foreign[instance.node][instance.key]
        self.by_health[instance.health] -= 1
        self._vacate(instance)
        self._leave_service(instance, changes)
        self.services_index = self.index
        changes.topics.add(SERVICES)
        if instance.checks:
            self._note_checks(instance.node, instance.checks, {}, changes)
        changes.instances[instance.key] = None
        changes.happenings.append((happening, instance))

    def put_node(self, name: str, node: Node, changes: Changes) -> None:
        """Have `node` stand under its name, with no change that a reader could see."""
        self.nodes[name] = changes.nodes[name] = node

    def replace_node(self, name: str, after: Node, changes: Changes) -> None:
        """Put a node under `name`, at the current index; what is on it shows it, so all that changes with it."""
        before = self.nodes.get(name)
        self.nodes[name] = after
        changes.nodes[name] = after
        if before is None or before.definition != after.definition:
            self.nodes_index = self.index
            changes.topics.add(NODES)
        old_checks: Mapping[str, Check] = {} if before is None else before.checks
        if old_checks != after.checks:
            self._note_checks(name, old_checks, after.checks, changes)
        for service in self._services_on(name):
            self._service_index[service] = self.index
            changes.topics.add(service_topic(service))

    def remove_node(self, name: str, changes: Changes) -> None:
        """Take a node off, at the current index; nothing is on it any more."""
        node = self.nodes.pop(name)
        self._on_foreign.pop(name, None)
        changes.nodes[name] = None
        self.nodes_index = self.index
        changes.topics.add(NODES)
        if node.checks:
            self._note_checks(name, node.checks, {}, changes)

    def _services_on(self, node: str) -> Iterable[str]:
        if node != OWN_NODE:
            return {instance.service.name for instance in self.instances_on(node)}
        # Nearly every instance is on it, so the first one of a service tells.
        return [
            service
            for service, members in self.services.items()
            if any(instance.node == OWN_NODE for instance in members.values())
        ]

    def _note_checks(
        self, node: str, before: Mapping[str, Check], after: Mapping[str, Check], changes: Changes
    ) -> None:
        self.checks_index = self.index
        changes.topics.add(CHECKS)
        changes.checks.update(dict.fromkeys((node, check_id) for check_id in before.keys() - after.keys()))
        changes.checks.update({(node, check_id): check.status for check_id, check in after.items()})

    def _unlist(self, instance: Instance) -> None:
        del self.instances[instance.key]
        self.by_health[instance.health] -= 1
        members = self.services[instance.service.name]
        del members[instance.key]
        if not members:
            del self.services[instance.service.name]

    def _vacate(self, instance: Instance) -> None:
        endpoint = instance.service.endpoint
        if endpoint is not None and self._by_endpoint.get(endpoint) == instance.key:
            del self._by_endpoint[endpoint]

    def _leave_service(self, instance: Instance, changes: Changes) -> None:
        name = instance.service.name
        members = self.services[name]
        del members[instance.key]
        changes.topics.add(service_topic(name))
        if members:
            self._service_index[name] = self.index
            return
        del self.services[name], self._service_index[name]
        self._extinction_index = self.index
