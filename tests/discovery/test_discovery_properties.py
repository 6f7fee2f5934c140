"""Random lives of the registry: whatever happens in whatever order, what it promises holds."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from toska_common.contracts.discovery import Health
from toska_discovery.changes import CHECKS, NODES, SERVICES, Changes, service_topic
from toska_discovery.check import Check, CheckDefinition, CheckKind
from toska_discovery.errors import UnknownCheck, UnknownInstance
from toska_discovery.foreign import CatalogEntry
from toska_discovery.instance import Instance, ServiceDefinition, instance_key
from toska_discovery.kv import KeyValues
from toska_discovery.node import OWN_NODE, NodeDefinition, node_key
from toska_discovery.registry import Registry
from toska_tests.keys import delete, delete_below, put
from toska_tests.registrations import NOON, check, probed

IDS = st.sampled_from(["a", "b", "c", "d"])
NAMES = st.sampled_from(["orders", "payments", "stock"])
PORTS = st.integers(0, 3)
CHECK_IDS = st.sampled_from(["service:a", "service:b", "x", "y"])
STATES = st.sampled_from(list(Health))
SWEEP_S = 0.25


NODE_NAMES = st.sampled_from(["east", "East", "west"])


def written_check(own_id: str, status: Health) -> Check:
    """A check as it is written into the catalog."""
    return Check(CheckDefinition(own_id, own_id, None, "", status, kind=CheckKind.EXTERNAL), status, "", 0, 0)


@st.composite
def definitions(draw: st.DrawFn) -> CheckDefinition:
    """A check that is renewed, or one that is probed."""
    own_id, status = draw(CHECK_IDS), draw(STATES)
    if draw(st.booleans()):
        return check(own_id, status=status)
    return probed(own_id, status=status, target=draw(st.sampled_from(["127.0.0.1:1", "127.0.0.1:2"])))


class RegistryLife(RuleBasedStateMachine):
    """Registrations, reports, time and deregistrations against what a reader may rely on."""

    @initialize()
    def open(self) -> None:
        self.now = 0.0
        self.registry = Registry(sweep_interval_s=SWEEP_S, now=0.0)
        self.indexes: dict[str, int] = {}
        self.contents: dict[str, Any] = {}
        self.woken: set[str] = set()
        self.probing: dict[str, CheckDefinition] = {}

    def take(self, changes: Changes) -> None:
        self.woken = changes.topics
        assert bool(changes) == bool(changes.topics)
        for check_id, definition in changes.probes.items():
            if definition is None:
                del self.probing[check_id]
            else:
                self.probing[check_id] = definition
        for instance_id, instance in changes.instances.items():
            assert self.registry.instances.get(instance_id) == instance

    @rule(
        own_id=IDS,
        name=NAMES,
        port=PORTS,
        checks=st.lists(definitions(), max_size=2, unique_by=lambda item: item.id),
        replace=st.booleans(),
    )
    def register(self, own_id: str, name: str, port: int, checks: list[CheckDefinition], replace: bool) -> None:
        definition = ServiceDefinition(own_id, name, "127.0.0.1", port)
        touched = self.registry.touched_by(definition, checks)
        before = {key: item.service.name for key, item in self.registry.instances.items()}
        changes = self.registry.register(definition, checks, self.now, NOON, replace_checks=replace)
        changed = {before[key] for key in changes.instances if key in before}
        assert changed <= touched
        assert own_id in self.registry.instances
        self.take(changes)

    @rule(own_id=IDS)
    def deregister(self, own_id: str) -> None:
        self.take(self.registry.deregister(own_id))
        assert own_id not in self.registry.instances

    @rule(definition=definitions(), own_id=st.none() | IDS)
    def register_check(self, definition: CheckDefinition, own_id: str | None) -> None:
        known = own_id is None or own_id in self.registry.instances
        try:
            self.take(self.registry.register_check(definition, own_id, self.now))
            assert known
        except UnknownInstance:
            assert not known
            return
        found = self.registry.find_check(definition.id)
        assert found is not None
        assert (None if found[0] is None else found[0].service.id, found[1].definition) == (own_id, definition)

    @rule(check_id=CHECK_IDS)
    def deregister_check(self, check_id: str) -> None:
        self.take(self.registry.deregister_check(check_id))
        assert self.registry.find_check(check_id) is None

    @rule(check_id=CHECK_IDS, status=STATES)
    def report(self, check_id: str, status: Health) -> None:
        found = self.registry.find_check(check_id)
        try:
            self.take(self.registry.report(check_id, status, "", self.now))
            assert found is not None
            assert found[1].definition.probe is None
        except UnknownCheck:
            assert found is None or found[1].definition.probe is not None

    @rule(check_id=CHECK_IDS, status=STATES)
    def judge(self, check_id: str, status: Health) -> None:
        try:
            self.take(self.registry.judge(check_id, status, "", self.now))
            assert check_id in self.probing
        except UnknownCheck:
            assert check_id not in self.probing

    @rule(
        node=NODE_NAMES,
        node_id=st.sampled_from(["", "1", "2"]),
        address=st.sampled_from(["10.0.0.1", "10.0.0.2"]),
        service=st.none() | st.tuples(IDS, NAMES, PORTS),
        checks=st.lists(st.tuples(st.none() | IDS, CHECK_IDS, STATES), max_size=2),
        keep=st.booleans(),
    )
    def write(
        self,
        node: str,
        node_id: str,
        address: str,
        service: tuple[str, str, int] | None,
        checks: list[tuple[str | None, str, Health]],
        keep: bool,
    ) -> None:
        written = None if service is None else ServiceDefinition(service[0], service[1], "10.0.0.1", service[2])
        entry = CatalogEntry(
            NodeDefinition(node, address, node_id),
            written,
            [(owner, written_check(check_id, status)) for owner, check_id, status in checks],
            keep_node=keep,
        )
        registry, key = self.registry, node_key(node)
        before = dict(registry.instances), dict(registry.nodes)
        there = {item.service.id for item in registry.listing.instances_on(key)} | {service[0] if service else ""}
        try:
            self.take(registry.register_foreign(entry, NOON))
        except UnknownInstance:
            assert any(owner is not None and owner not in there for owner, _, _ in checks)
            assert (dict(registry.instances), dict(registry.nodes)) == before
            return
        if written is not None:
            assert registry.instances[instance_key(written.id, key)].service == written
        if len({check_id for _, check_id, _ in checks}) == len(checks):
            assert not registry.register_foreign(entry, NOON), "the same again changed something"

    @rule(node=NODE_NAMES, own_id=st.just("") | IDS, check_id=st.just("") | CHECK_IDS)
    def erase(self, node: str, own_id: str, check_id: str) -> None:
        self.take(self.registry.deregister_foreign(node, instance_id=own_id, check_id=check_id))
        if not (own_id or check_id):
            assert node_key(node) not in self.registry.nodes

    @rule(seconds=st.sampled_from([0.25, 5.0, 15.0, 40.0]))
    def live(self, seconds: float) -> None:
        woken: set[str] = set()
        for _ in range(round(seconds / SWEEP_S)):
            self.now += SWEEP_S
            self.take(self.registry.sweep(self.now))
            woken |= self.woken
        self.woken = woken

    @rule(seconds=st.floats(1.0, 10_000.0))
    def stall(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.registry.sweep(self.now))

    def shown_with(self, item: Instance) -> tuple[Instance, Any, dict[str, Check]]:
        """An instance with what readers of its service see of its node."""
        node = self.registry.nodes[item.node]
        return item, node.definition, dict(node.checks)

    @invariant()
    def no_index_goes_back_and_no_content_changes_under_an_index(self) -> None:
        if not hasattr(self, "registry"):
            return
        registry = self.registry
        readings: dict[str, tuple[int, Any]] = {
            SERVICES: (
                registry.services_index,
                {key: item.service for key, item in registry.instances.items()},
            ),
            NODES: (
                registry.listing.nodes_index,
                {key: (node.definition, node.modify_index) for key, node in registry.nodes.items()},
            ),
            CHECKS: (
                registry.checks_index,
                [dict(item.checks) for item in (*registry.nodes.values(), *registry.instances.values()) if item.checks],
            ),
        }
        for name in ("orders", "payments", "stock"):
            readings[service_topic(name)] = (
                registry.service_index(name),
                {key: self.shown_with(item) for key, item in registry.services.get(name, {}).items()},
            )
        for topic, (index, content) in readings.items():
            seen = self.indexes.get(topic, 0)
            assert index >= seen
            if topic in self.contents and self.contents[topic] != content:
                assert index > seen, f"{topic} changed under index {index}"
                assert topic in self.woken, f"{topic} changed and nobody was woken"
            self.indexes[topic], self.contents[topic] = index, content
        assert max(index for index, _ in readings.values()) <= registry.index

    @invariant()
    def what_is_listed_by_service_by_id_and_by_check_is_the_same(self) -> None:
        if not hasattr(self, "registry"):
            return
        registry = self.registry
        listed = {key: item for members in registry.services.values() for key, item in members.items()}
        assert listed == registry.instances
        assert all(registry.services.values())
        own = [item for item in registry.instances.values() if item.node == OWN_NODE]
        for node in registry.nodes:
            on_it = {key for key, item in registry.instances.items() if item.node == node}
            assert {item.key for item in registry.listing.instances_on(node)} == on_it
            known = [*registry.nodes[node].checks, *(c for key in on_it for c in registry.instances[key].checks)]
            assert len(known) == len(set(known))
        assert {item.node for item in registry.instances.values()} <= registry.nodes.keys()
        endpoints = [item.service.endpoint for item in own if item.service.endpoint]
        assert len(endpoints) == len(set(endpoints))
        owners = (registry.nodes[OWN_NODE], *own)
        checks = [check_id for item in owners for check_id in item.checks]
        assert len(checks) == len(set(checks))
        assert all((registry.find_lease(item) is None) == (registry.find_check(item) is None) for item in checks)
        assert len(registry._checks.leases) == len(checks)  # pyright: ignore[reportPrivateUsage] - a leak shows nowhere else
        known = {check_id: item.definition for owner in owners for check_id, item in owner.checks.items()}
        wanted = {check_id: item.probe for check_id, item in known.items() if item.probe is not None}
        assert {check_id: item.probe for check_id, item in registry.probes.items()} == wanted
        assert {check_id: item.probe for check_id, item in self.probing.items()} == wanted
        assert sum(registry.by_health.values()) == len(registry.instances)
        assert all(
            count == sum(item.health is health for item in registry.instances.values())
            for health, count in registry.by_health.items()
        )


KEYS = st.sampled_from(["a", "a/", "a/b", "a/b/c", "ab", "b", "ä", "a/\U0010fffe"])
PREFIXES = st.sampled_from(["", "a", "a/", "a/b", "b", "c"])


class KeyValueLife(RuleBasedStateMachine):
    """Writes, deletions and compare-and-set against a dictionary."""

    @initialize()
    def open(self) -> None:
        self.index = 1
        self.keys = KeyValues(max_tombstones=3)
        self.model: dict[str, tuple[bytes, int, int]] = {}
        self.seen: dict[str, tuple[int, Any]] = {}

    @rule(
        key=KEYS, value=st.binary(max_size=2), flags=st.integers(0, 1), cas=st.sampled_from([None, 0, "same", "other"])
    )
    def put(self, key: str, value: bytes, flags: int, cas: Any) -> None:
        before = self.model.get(key)
        current = 0 if before is None else before[2]
        wanted = {"same": current, "other": current + 1}.get(cas, cas)
        done, changed = put(self.keys, key, value, flags, self.index + 1, cas=wanted)
        assert done == (wanted is None or wanted == current)
        assert changed == (done and (before is None or before[:2] != (value, flags)))
        if changed:
            self.index += 1
            self.model[key] = (value, flags, self.index)

    @rule(key=KEYS, cas=st.sampled_from([None, 0, "same", "other"]))
    def delete(self, key: str, cas: Any) -> None:
        before = self.model.get(key)
        current = 0 if before is None else before[2]
        wanted = {"same": current, "other": current + 1}.get(cas, cas)
        done, changed = delete(self.keys, key, self.index + 1, cas=wanted)
        assert done == (before is None or wanted is None or wanted == current)
        assert changed == (done and before is not None)
        if changed:
            self.index += 1
            del self.model[key]

    @rule(prefix=PREFIXES)
    def delete_below(self, prefix: str) -> None:
        gone = delete_below(self.keys, prefix, self.index + 1)
        assert sorted(gone) == sorted(key for key in self.model if key.startswith(prefix))
        if gone:
            self.index += 1
            self.model = {key: entry for key, entry in self.model.items() if not key.startswith(prefix)}

    @invariant()
    def every_prefix_lists_what_it_should_and_its_index_tells_of_every_change(self) -> None:
        if not hasattr(self, "keys"):
            return
        assert len(self.keys) == len(self.model)
        for prefix in ("", "a", "a/", "a/b", "b", "c", "ä"):
            entries, index = self.keys.list_below(prefix)
            found = [(entry.key, entry.value, entry.flags, entry.modify_index) for entry in entries]
            assert found == sorted((key, *entry) for key, entry in self.model.items() if key.startswith(prefix))
            self._compare(f"prefix {prefix}", index, found)
        for key in ("a", "a/b", "c"):
            self._compare(f"key {key}", self.keys.index_of(key), self.keys.find(key))

    def _compare(self, what: str, index: int, content: Any) -> None:
        seen = self.seen.get(what, (0, content))
        assert index >= seen[0], f"{what} went back"
        if content != seen[1]:
            assert index > seen[0], f"{what} changed under its index"
        self.seen[what] = index, content


_LIMITS = settings(max_examples=60, stateful_step_count=30, deadline=None, derandomize=True)
TestRegistryLife = RegistryLife.TestCase
TestRegistryLife.settings = _LIMITS
TestKeyValueLife = KeyValueLife.TestCase
TestKeyValueLife.settings = _LIMITS
