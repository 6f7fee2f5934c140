"""Other nodes than the registry's own: what somebody writes into the catalog about them.

Nobody renews or probes anything there: who wrote it keeps it up to date, as Consul's `catalog/register` has it. So
there are no leases here, and an address and port may be written as often as somebody likes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from toska_discovery.changes import Changes, Happening
from toska_discovery.check import Check
from toska_discovery.errors import UnknownInstance
from toska_discovery.instance import Instance, ServiceDefinition, instance_key
from toska_discovery.listing import Listing
from toska_discovery.node import Node, NodeDefinition, node_key


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One write: a node, with an instance on it if there is one, and with checks of either.

    Attributes:
        keep_node: Leave the node's definition as it is if there is one already.
        checks: Each with the id of its instance, or `None` if it is the node's; their indexes count for nothing.
    """

    node: NodeDefinition
    service: ServiceDefinition | None = None
    checks: Sequence[tuple[str | None, Check]] = ()
    keep_node: bool = False


class ForeignNodes:
    """Writes the catalog's entries about other nodes into the listing."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing

    def register(self, entry: CatalogEntry, at: datetime, changes: Changes | None = None) -> Changes:
        """Write an entry, as part of `changes` if they are given; what is there already as it says changes nothing.

        Raises:
            UnknownInstance: A check is of an instance that the node does not have; nothing was written.
        """
        key = node_key(entry.node.name)
        for owner, _ in entry.checks:
            written = entry.service is not None and entry.service.id == owner
            if owner is not None and not written and instance_key(owner, key) not in self._listing.instances:
                raise UnknownInstance(f'Missing service registration on node "{entry.node.name}"', id=owner)
        changes = Changes() if changes is None else changes
        self._put_node(key, entry, changes)
        if entry.service is not None:
            self._put_service(key, entry.service, at, changes)
        for owner, check in entry.checks:
            self._put_check(key, owner, check, changes)
        return changes

    def deregister(
        self, node: str, *, instance_id: str = "", check_id: str = "", changes: Changes | None = None
    ) -> Changes:
        """Take an instance or a check off a node, or else the whole node; what is not there is fine."""
        changes = Changes() if changes is None else changes
        key = node_key(node)
        if key not in self._listing.nodes:
            return changes
        if instance_id:
            instance = self._listing.instances.get(instance_key(instance_id, key))
            if instance is not None:
                self._remove(instance, changes)
        elif check_id:
            self._drop_check(key, check_id, changes)
        else:
            self._remove_node(key, changes)
        return changes

    def _take_index(self, changes: Changes) -> int:
        """The index of all that one request writes."""
        return changes.index or self._listing.step(changes)

    def _put_node(self, key: str, entry: CatalogEntry, changes: Changes) -> None:
        before = self._listing.nodes.get(key)
        if before is not None and (entry.keep_node or before.definition == entry.node):
            return
        if entry.node.id:
            # A node that comes back under another name is the same machine: its old name goes with all that is on it.
            for other, node in [*self._listing.nodes.items()]:
                if other and other != key and node.definition.id == entry.node.id:
                    self._remove_node(other, changes)
        index = self._take_index(changes)
        if before is None:
            after = Node(entry.node, index, index, checks_index=index)
        else:
            after = replace(before, definition=entry.node, modify_index=index)
        self._listing.replace_node(key, after, changes)

    def _put_service(self, node: str, service: ServiceDefinition, at: datetime, changes: Changes) -> None:
        before = self._listing.instances.get(instance_key(service.id, node))
        if before is None:
            index = self._take_index(changes)
            after = Instance(service, {}, at, index, index, node)
            self._listing.replace(None, after, changes)
            changes.happenings.append((Happening.REGISTERED, after))
        elif before.service != service:
            index = self._take_index(changes)
            checks = before.checks
            if (before.service.name, before.service.tags) != (service.name, service.tags):
                # A check shows its service's name and tags, so it changes with them.
                checks = {key: replace(check, modify_index=index) for key, check in checks.items()}
            after = replace(before, service=service, checks=checks, registered_at=at, modify_index=index)
            self._listing.replace(before, after, changes)
            changes.happenings.append((Happening.UPDATED, after))

    def _put_check(self, node: str, owner: str | None, check: Check, changes: Changes) -> None:
        check_id = check.definition.id
        before, at = self._find_check(node, check_id)
        if before is not None and at != owner:
            self._drop_check(node, check_id, changes)
        same = (
            before is not None
            and at == owner
            and (before.definition, before.status, before.output) == (check.definition, check.status, check.output)
        )
        if same:
            return
        index = self._take_index(changes)
        created = index if before is None else before.create_index
        put = replace(check, create_index=created, modify_index=index)
        self._set_checks(node, owner, {**self._checks_of(node, owner), check_id: put}, changes)

    def _find_check(self, node: str, check_id: str) -> tuple[Check | None, str | None]:
        """A check of a node or of an instance on it, and the id of that instance."""
        own = self._listing.nodes[node].checks.get(check_id)
        if own is not None:
            return own, None
        for instance in self._listing.instances_on(node):
            if check_id in instance.checks:
                return instance.checks[check_id], instance.service.id
        return None, None

    def _drop_check(self, node: str, check_id: str, changes: Changes) -> None:
        check, owner = self._find_check(node, check_id)
        if check is None:
            return
        self._take_index(changes)
        rest = {key: kept for key, kept in self._checks_of(node, owner).items() if key != check_id}
        self._set_checks(node, owner, rest, changes)

    def _checks_of(self, node: str, owner: str | None) -> Mapping[str, Check]:
        if owner is None:
            return self._listing.nodes[node].checks
        return self._listing.instances[instance_key(owner, node)].checks

    def _set_checks(self, node: str, owner: str | None, checks: Mapping[str, Check], changes: Changes) -> None:
        """Put the checks of an instance or a node, at the current index."""
        if owner is None:
            after = replace(self._listing.nodes[node], checks=checks, checks_index=self._listing.index)
            self._listing.replace_node(node, after, changes)
            return
        before = self._listing.instances[instance_key(owner, node)]
        after = replace(before, checks=checks)
        self._listing.replace(before, after, changes)
        if after.health is not before.health:
            changes.happenings.append((Happening.HEALTH, after))

    def _remove(self, instance: Instance, changes: Changes) -> None:
        self._take_index(changes)
        self._listing.remove(instance, changes, Happening.DEREGISTERED)

    def _remove_node(self, key: str, changes: Changes) -> None:
        for instance in self._listing.instances_on(key):
            self._remove(instance, changes)
        self._take_index(changes)
        self._listing.remove_node(key, changes)
