"""The registry as a pure state machine: events and the time go in, changes come out, and nothing else happens.

    register ──▶ listed ──deregister, eviction, lease critical for too long──▶ gone
                  │  ▲
          verdict └──┘ report, judge, lapse

Every change takes the next index, one for the whole registry as Raft's is in Consul, so a later state always has a
higher index. Reports that bring no new verdict renew a lease and change nothing.

Time is given as monotonic seconds, timestamps as datetimes. Storing, waking, probing and answering are
others' business.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from toska_common.contracts.discovery import Health

from toska_discovery.changes import (
    CHECKS,
    NODES,
    QUERIES,
    SERVICES,
    SESSIONS,
    Changes,
    Happening,
    service_topic,
)
from toska_discovery.check import Check, CheckDefinition, bounded_output
from toska_discovery.check_list import CheckList
from toska_discovery.coordination import Coordination
from toska_discovery.errors import UnknownCheck, UnknownInstance
from toska_discovery.foreign import CatalogEntry, ForeignNodes
from toska_discovery.instance import Instance, ServiceDefinition
from toska_discovery.kv import Entry, KeyValues
from toska_discovery.lease import Due, Lease, LeaseTime
from toska_discovery.listing import Listing
from toska_discovery.node import OWN_NODE, Node, NodeDefinition
from toska_discovery.own_node import OwnNode
from toska_discovery.query import PreparedQuery
from toska_discovery.session import SERF_HEALTH, Session

TTL_EXPIRED = "TTL expired"
"""Consul's wording for a lapsed TTL check."""


@dataclass(frozen=True, slots=True)
class Contents:
    """All that a registry holds, leases aside."""

    index: int
    instances: list[Instance] = field(default_factory=list[Instance])
    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    keys: list[Entry] = field(default_factory=list[Entry])
    sessions: list[Session] = field(default_factory=list[Session])
    queries: list[PreparedQuery] = field(default_factory=list[PreparedQuery])


class Registry:
    """Nodes, instances, their checks and leases, and keys with values.

    Attributes:
        listing: Who is there.
        foreign: What writes about other nodes there; it leaves the sessions that this ends to `coordination`.
        is_swept: Whether the last sweep left nothing that was due.
    """

    def __init__(
        self,
        *,
        sweep_interval_s: float,
        now: float,
        index: int = 1,
        node: NodeDefinition = NodeDefinition("localhost", "127.0.0.1"),  # noqa: B008 - immutable
    ) -> None:
        self.listing = Listing(node, index)
        self.foreign = ForeignNodes(self.listing)
        self._checks = CheckList()
        self._own = OwnNode(self.listing, self._checks)
        self._time = LeaseTime(sweep_interval_s, now)
        self.coordination = Coordination(self, self._time)
        self.is_swept = True

    # What is known.

    @property
    def index(self) -> int:
        """Index of the last change of anything."""
        return self.listing.index

    @property
    def services_index(self) -> int:
        """Index of the last change of any instance, verdicts aside."""
        return self.listing.services_index

    @property
    def checks_index(self) -> int:
        """Index of the last change of any check."""
        return self.listing.checks_index

    def service_index(self, name: str) -> int:
        """Index of the last change of a service, or of the last extinction of any if there is none of the name."""
        return self.listing.service_index(name)

    @property
    def keys(self) -> KeyValues:
        """The keys with their values and locks; `coordination` changes them."""
        return self.coordination.keys

    @property
    def services(self) -> Mapping[str, Mapping[str, Instance]]:
        """All instances, by service and key."""
        return self.listing.services

    @property
    def instances(self) -> Mapping[str, Instance]:
        """All instances, by key; that of one on the registry's own node is its id."""
        return self.listing.instances

    @property
    def nodes(self) -> Mapping[str, Node]:
        """All nodes, by name; the registry's own is `OWN_NODE`."""
        return self.listing.nodes

    @property
    def by_health(self) -> Mapping[Health, int]:
        """How many instances are in which state, the checks of their nodes aside."""
        return self.listing.by_health

    @property
    def probes(self) -> Mapping[str, CheckDefinition]:
        """The checks that somebody must probe, by id; `Changes.probes` tells when they come, change or go."""
        return self._checks.probes

    def health_of(self, instance: Instance) -> Health:
        """How an instance is, with the checks of its node."""
        return self.listing.health_of(instance)

    def find_check(self, check_id: str) -> tuple[Instance | None, Check] | None:
        """A check of the registry's own node, and the instance that it belongs to, if it is not the node's."""
        return self._own.find_check(check_id)

    def find_lease(self, check_id: str) -> Lease | None:
        """The lease of a check, with the output of its last report or probe."""
        return self._checks.find_lease(check_id)

    def has_node(self, node: str) -> bool:
        """Whether there is a node of that name."""
        return node in self.nodes

    def verdict_on(self, node: str, check_id: str) -> Health | None:
        """The state of a node's check, its instances' included; `None` if there is none of the id."""
        if node == OWN_NODE:
            found = self.find_check(check_id)
            if found is None:
                return Health.PASSING if check_id == SERF_HEALTH else None
            return found[1].status
        checks = [self.nodes[node].checks, *(item.checks for item in self.listing.instances_on(node))]
        return next((each[check_id].status for each in checks if check_id in each), None)

    def upcoming(self, changes: Changes) -> int:
        """The index that something has which joins `changes`."""
        return changes.index or self.index + 1

    def take_index(self, changes: Changes) -> int:
        """The same, from now on taken."""
        return changes.index or self.listing.step(changes)

    def touched_by(self, service: ServiceDefinition, checks: Iterable[CheckDefinition]) -> set[str]:
        """Names of the services that a registration would change: its own, and those that it takes something from."""
        owners = {service.id, self.listing.holder(service), *(self._checks.owner(check.id) for check in checks)}
        known = (self.instances[owner] for owner in owners if owner is not None and owner in self.instances)
        return {service.name, *(instance.service.name for instance in known)}

    # What happens.

    def load(
        self,
        instances: Iterable[Instance],
        keys: list[Entry],
        index: int,
        now: float,
        *,
        nodes: Mapping[str, Node] | None = None,
        sessions: Iterable[Session] = (),
        delays: Iterable[tuple[str, float]] = (),
        queries: Iterable[PreparedQuery] = (),
        changes: Changes | None = None,
    ) -> None:
        """Take over what was stored; every lease gets one whole TTL, and everything counts as changed at `index`."""
        moment = self._time.sweep(now)
        self.listing.load(nodes or {}, instances, index)
        for owner, checks in self._own.owned_checks().items():
            self._checks.give(owner, checks)
            for check in checks.values():
                self._checks.grant(check, moment, changes or Changes())
        self.coordination.load(keys, sessions, delays, index, now, queries=queries)

    def restore(self, contents: Contents, now: float) -> Changes:
        """Take over `contents` in place of all there is; everything counts as changed, at an index above all others."""
        changes = Changes(index=max(self.index, contents.index) + 1)
        before = self._topics()
        gone = {owned for checks in self._own.owned_checks().values() for owned in checks}
        changes.instances.update(dict.fromkeys(self.instances))
        changes.nodes.update(dict.fromkeys(self.nodes))
        self.coordination.forget(changes)
        self._checks.drop(gone, changes)
        self.listing.clear()
        self.load(
            contents.instances,
            contents.keys,
            changes.index,
            now,
            nodes=contents.nodes,
            sessions=contents.sessions,
            queries=contents.queries,
            changes=changes,
        )
        changes.instances.update(self.instances)
        changes.nodes.update(self.nodes)
        self.coordination.tell(changes)
        changes.topics |= before | self._topics()
        return changes

    def _topics(self) -> set[str]:
        return {SERVICES, CHECKS, NODES, SESSIONS, QUERIES, *map(service_topic, self.services)}

    def register(
        self,
        service: ServiceDefinition,
        checks: Sequence[CheckDefinition],
        now: float,
        at: datetime,
        *,
        replace_checks: bool = False,
    ) -> Changes:
        """List an instance, or change the one of its id; whoever else holds its address and port is evicted.

        A check that exists keeps its verdict and gets a new lease. Checks that are not named stay, unless they are
        to be replaced. The same registration again changes nothing.
        """
        changes = Changes()
        moment = self._time.at(now)
        after = self._own.put(service, checks, at, changes, replace_checks=replace_checks)
        for check in checks:
            self._checks.grant(after.checks[check.id], moment, changes)
        self.coordination.settle(changes)
        return changes

    def deregister(self, instance_id: str) -> Changes:
        """Take an instance off the list; none of that id is fine and changes nothing."""
        changes = Changes()
        instance = self.instances.get(instance_id)
        if instance is not None:
            self._own.remove(instance, changes, Happening.DEREGISTERED)
            self.coordination.settle(changes)
        return changes

    def register_check(self, check: CheckDefinition, instance_id: str | None, now: float) -> Changes:
        """Give an instance, or with `None` the registry's own node, one more check, or change the one of its id.

        Raises:
            UnknownInstance: None is listed under `instance_id`.
        """
        if instance_id is not None and instance_id not in self.instances:
            raise UnknownInstance(f'ServiceID "{instance_id}" does not exist', id=instance_id)
        changes = Changes()
        moment = self._time.at(now)
        merged = self._own.put_check(instance_id, check, changes)
        self._checks.grant(merged, moment, changes)
        self.coordination.settle(changes)
        return changes

    def deregister_check(self, check_id: str) -> Changes:
        """Take a check away from its instance or node; none of that id is fine and changes nothing."""
        changes = Changes()
        if check_id in self._checks:
            self._own.remove_check(check_id, changes)
            self.coordination.settle(changes)
        return changes

    def report(self, check_id: str, status: Health, output: str, now: float) -> Changes:
        """Take a verdict on a TTL check and renew its lease by one TTL.

        Raises:
            UnknownCheck: There is none of that id, or it is of another kind.
        """
        lease = self._checks.find_lease(check_id)
        if lease is None or lease.ttl_s is None:
            raise UnknownCheck(f'CheckID "{check_id}" does not have associated TTL', check_id=check_id)
        return self._take_verdict(lease, status, bounded_output(output, lease.output_max_bytes), now)

    def judge(self, check_id: str, status: Health, output: str, now: float) -> Changes:
        """Take the verdict of whoever probes a check, and has seen to the length of `output`.

        Raises:
            UnknownCheck: There is none of that id to be probed, or no longer.
        """
        lease = self._checks.find_lease(check_id)
        if lease is None or check_id not in self._checks.probes:
            raise UnknownCheck("there is no such check to be probed", check_id=check_id)
        return self._take_verdict(lease, status, output, now)

    def sweep(self, now: float, most: int = sys.maxsize) -> Changes:
        """Turn lapsed checks critical, remove instances that were critical for too long, and end lapsed sessions.

        Looks at `most` leases that may be due; `is_swept` says whether that was all of them.
        """
        changes = Changes()
        moment = self._time.sweep(now)
        for lease, due in self._checks.leases.take_due(moment, most):
            owner = self._checks.owner(lease.check_id)
            if due is Due.REMOVE:
                if owner is not None:
                    self._own.remove(self.instances[owner], changes, Happening.REMOVED)
                continue
            last = lease.output
            lease.output = f"{TTL_EXPIRED} (last output before timeout follows): {last}" if last else TTL_EXPIRED
            if self._own.decide(lease.check_id, Health.CRITICAL, lease.output, changes) and owner is not None:
                changes.happenings.append((Happening.LAPSED, self.instances[owner]))
        self.coordination.settle(changes)
        self.coordination.sweep(moment, changes)
        self.is_swept = not self._checks.leases.is_due(moment)
        return changes

    def register_foreign(self, entry: CatalogEntry, at: datetime) -> Changes:
        """Write into the catalog about another node than the registry's own.

        Raises:
            UnknownInstance: A check is of an instance that the node does not have; nothing was written.
        """
        changes = self.foreign.register(entry, at)
        self.coordination.settle(changes)
        return changes

    def deregister_foreign(self, node: str, *, instance_id: str = "", check_id: str = "") -> Changes:
        """Take an instance or a check off another node, or else the whole node; what is not there is fine."""
        changes = self.foreign.deregister(node, instance_id=instance_id, check_id=check_id)
        self.coordination.settle(changes)
        return changes

    def _take_verdict(self, lease: Lease, status: Health, output: str, now: float) -> Changes:
        self._checks.leases.renew(lease, self._time.at(now), output, critical=status is Health.CRITICAL)
        changes = Changes()
        if self._own.decide(lease.check_id, status, output, changes):
            self.coordination.settle(changes)
        return changes
