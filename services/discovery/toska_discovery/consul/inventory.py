"""Everything that the catalog shows: what is registered, and the registry itself as Consul shows itself.

A Consul server is a service `consul` of its own catalog, on a node whose check `serfHealth` passes for as long as there
is somebody to ask. Nobody registers these two and nobody can change them, so the registry knows nothing of them.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from toska_common.contracts.discovery import Health

from toska_discovery.check import Check, CheckDefinition, CheckKind
from toska_discovery.consul.views import CONSUL, CONSUL_VERSION, Node
from toska_discovery.instance import Instance, ServiceDefinition, instance_key
from toska_discovery.node import OWN_NODE, node_key
from toska_discovery.node import Node as Listed
from toska_discovery.registry import Registry
from toska_discovery.session import SERF_HEALTH

_META = {
    "non_voter": "false",
    "raft_version": "3",
    "serf_protocol_current": "2",
    "serf_protocol_max": "5",
    "serf_protocol_min": "1",
    "version": CONSUL_VERSION,
}
"""What a Consul server says of itself."""


class Inventory:
    """The registry's lists with the registry itself in them."""

    def __init__(self, state: Registry, own: Node) -> None:
        self._state = state
        self._own = own
        self._consul = Instance(
            ServiceDefinition(id=CONSUL, name=CONSUL, port=own.port, meta=_META),
            {},
            datetime.now(UTC),
            own.index,
            own.index,
        )
        definition = CheckDefinition(SERF_HEALTH, "Serf Health Status", kind=CheckKind.EXTERNAL)
        self._serf = Check(definition, Health.PASSING, "Agent alive and reachable", own.index, own.index)

    @property
    def datacenter(self) -> str:
        """Where all of it is."""
        return self._own.datacenter

    def find_node(self, name: str) -> str | None:
        """What a node is listed under; in any case of letters."""
        key = node_key(name)
        if key == self._order(OWN_NODE):
            return OWN_NODE
        return key if key and key in self._state.nodes else None

    def nodes(self) -> list[str]:
        """What the nodes are listed under, by name."""
        return sorted(self._state.nodes, key=self._order)

    def node(self, key: str) -> Listed:
        """A node."""
        return self._state.nodes[key]

    def node_checks(self, key: str) -> list[Check]:
        """The checks that are a node's own, by id."""
        checks = {check.definition.id: check for check in self._state.nodes[key].checks.values()}
        if key == OWN_NODE:
            checks[SERF_HEALTH] = self._serf
        return [check for _, check in sorted(checks.items())]

    def instances(self, service: str) -> list[Instance]:
        """The instances of a service, by node and id."""
        found = [*self._state.services.get(service, {}).values()]
        if service == CONSUL:
            found.append(self._consul)
        if len(found) < 2:
            return found
        return sorted(found, key=lambda instance: (self._order(instance.node), instance.service.id))

    def instances_on(self, key: str) -> list[Instance]:
        """The instances on a node, by id."""
        found = self._state.listing.instances_on(key)
        if key == OWN_NODE:
            found.append(self._consul)
        return sorted(found, key=lambda instance: instance.service.id)

    def find_instance(self, key: str, instance_id: str) -> Instance | None:
        """An instance on a node."""
        if key == OWN_NODE and instance_id == CONSUL:
            return self._consul
        return self._state.instances.get(instance_key(instance_id, key))

    def find_check(self, key: str, check_id: str) -> tuple[Instance | None, Check] | None:
        """A check on a node, and the instance that it belongs to, if it is not the node's."""
        if key == OWN_NODE:
            return (None, self._serf) if check_id == SERF_HEALTH else self._state.find_check(check_id)
        own = self._state.nodes[key].checks.get(check_id)
        if own is not None:
            return None, own
        on = self._state.listing.instances_on(key)
        return next(((item, item.checks[check_id]) for item in on if check_id in item.checks), None)

    def services(self) -> list[tuple[str, Iterable[Instance]]]:
        """Every service with its instances, by name."""
        names = {*self._state.services, CONSUL}
        return [(name, self._members(name)) for name in sorted(names)]

    def _members(self, name: str) -> Iterable[Instance]:
        members = self._state.services.get(name, {}).values()
        return [*members, self._consul] if name == CONSUL else members

    def is_passing(self, instance: Instance) -> bool:
        """Whether all checks of an instance and of its node pass."""
        return self._state.health_of(instance) is Health.PASSING

    def service_index(self, name: str) -> int:
        """Index of the last change of a service."""
        index = self._state.service_index(name)
        if name != CONSUL:
            return index
        own = self._state.nodes[OWN_NODE]
        # It is not registered, but on a node whose checks it shows.
        return max(own.modify_index, own.checks_index, index if name in self._state.services else 0)

    def _order(self, key: str) -> str:
        return node_key(self._state.nodes[key].definition.name)
