"""The registry's own node: what is registered there, with whose check each is, and who gives way to whom.

An id stands for one check of the node, and an address and port for one instance: whoever registers takes them over.
Leases and the time are the registry's business.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from toska_common.contracts.discovery import Health

from toska_discovery.changes import Changes, Happening
from toska_discovery.check import Check, CheckDefinition
from toska_discovery.check_list import CheckList
from toska_discovery.instance import Instance, ServiceDefinition
from toska_discovery.listing import Listing
from toska_discovery.node import OWN_NODE, Node


class OwnNode:
    """Changes the instances and checks of the own node in the listing, and the list of checks with them."""

    def __init__(self, listing: Listing, checks: CheckList) -> None:
        self._listing = listing
        self._checks = checks

    @property
    def _node(self) -> Node:
        return self._listing.nodes[OWN_NODE]

    def owned_checks(self) -> dict[str | None, Mapping[str, Check]]:
        """The checks of each instance here, and under `None` those of the node itself."""
        instances = self._listing.instances.items()
        return {None: self._node.checks, **{key: one.checks for key, one in instances if one.node == OWN_NODE}}

    def find_check(self, check_id: str) -> tuple[Instance | None, Check] | None:
        """A check, and the instance that it belongs to, if it is not the node's."""
        if check_id not in self._checks:
            return None
        owner = self._checks.owner(check_id)
        return None if owner is None else self._listing.instances[owner], self._checks_of(owner)[check_id]

    def put(
        self,
        service: ServiceDefinition,
        checks: Sequence[CheckDefinition],
        at: datetime,
        changes: Changes,
        *,
        replace_checks: bool,
    ) -> Instance:
        """List an instance, or change the one of its id; see `Registry.register`."""
        holder = self._listing.holder(service)
        if holder is not None:
            self.remove(self._listing.instances[holder], changes, Happening.EVICTED)
        taken = self._take_over(service.id, checks, changes)
        before = self._listing.instances.get(service.id)
        index = self._listing.index + 1
        known = _known_checks(before, service, taken, index)
        kept = {} if replace_checks else known
        same = before is not None and before.service == service
        after = Instance(
            service=service,
            checks={**kept, **{check.id: _merge(known.get(check.id), check, index) for check in checks}},
            registered_at=before.registered_at if before is not None and same else at,
            create_index=before.create_index if before is not None else index,
            modify_index=before.modify_index if before is not None and same else index,
        )
        if before is None or before != after:
            changes.happenings.append((Happening.REGISTERED if before is None else Happening.UPDATED, after))
        self._settle(before, after, changes)
        return after

    def remove(self, instance: Instance, changes: Changes, happening: Happening) -> None:
        """Take an instance off the list, of whichever node it is."""
        self._listing.step(changes)
        self._listing.remove(instance, changes, happening)
        if instance.node == OWN_NODE:
            self._checks.drop(instance.checks, changes)

    def put_check(self, owner: str | None, definition: CheckDefinition, changes: Changes) -> Check:
        """Give an instance, or with `None` the node, one more check, or change the one of its id."""
        taken = self._take_over(owner, [definition], changes)
        before = self._checks_of(owner)
        index = self._listing.index + 1
        known = before.get(definition.id)
        if definition.id in taken:
            known = replace(taken[definition.id], modify_index=index)
        merged = _merge(known, definition, index)
        self._set_checks(owner, {**before, definition.id: merged}, changes)
        return merged

    def remove_check(self, check_id: str, changes: Changes) -> None:
        """Take a check away from whoever has it."""
        owner = self._checks.owner(check_id)
        rest = {key: check for key, check in self._checks_of(owner).items() if key != check_id}
        self._set_checks(owner, rest, changes)

    def decide(self, check_id: str, status: Health, output: str, changes: Changes) -> bool:
        """Give a check a verdict; false if it has it already."""
        owner = self._checks.owner(check_id)
        checks = self._checks_of(owner)
        check = checks[check_id]
        if check.status is status:
            return False
        index = self._listing.index + 1
        before = None if owner is None else self._listing.instances[owner]
        judged = replace(check, status=status, output=output, modify_index=index)
        self._set_checks(owner, {**checks, check_id: judged}, changes)
        after = None if owner is None else self._listing.instances[owner]
        if before is not None and after is not None and after.health is not before.health:
            changes.happenings.append((Happening.HEALTH, after))
        return True

    def _checks_of(self, owner: str | None) -> Mapping[str, Check]:
        """The checks of an instance, or of the node."""
        return self._node.checks if owner is None else self._listing.instances[owner].checks

    def _set_checks(self, owner: str | None, checks: Mapping[str, Check], changes: Changes) -> None:
        """Give an instance, or the node, these checks in place of those that it has."""
        if owner is not None:
            before = self._listing.instances[owner]
            self._settle(before, replace(before, checks=checks), changes)
            return
        node = self._node
        if node.checks == checks:
            self._listing.put_node(OWN_NODE, replace(node, checks=checks), changes)
            return
        index = self._listing.step(changes)
        self._listing.replace_node(OWN_NODE, replace(node, checks=checks, checks_index=index), changes)
        self._checks.drop(node.checks.keys() - checks.keys(), changes)
        self._checks.give(None, checks)

    def _settle(self, before: Instance | None, after: Instance, changes: Changes) -> None:
        """Put `after` in the place of `before`: as a change if a reader can see one."""
        if before == after:
            self._listing.put(after)  # what the catalog does not show, such as a TTL, may differ all the same
            changes.instances[after.key] = after
            return
        self._listing.step(changes)
        self._listing.replace(before, after, changes)
        if before is not None:
            self._checks.drop(before.checks.keys() - after.checks.keys(), changes)
        self._checks.give(after.key, after.checks)

    def _take_over(self, owner: str | None, checks: Iterable[CheckDefinition], changes: Changes) -> dict[str, Check]:
        """Take checks away from others than `owner`: an id stands for one check of the node. Their leases go on."""
        taken: dict[str, Check] = {}
        for definition in checks:
            loser = self._checks.owner(definition.id)
            if definition.id not in self._checks or loser == owner:
                continue
            before = self._checks_of(loser)
            taken[definition.id] = before[definition.id]
            self._strip(loser, {key: check for key, check in before.items() if key != definition.id}, changes)
        return taken

    def _strip(self, loser: str | None, rest: Mapping[str, Check], changes: Changes) -> None:
        index = self._listing.step(changes)
        if loser is None:
            self._listing.replace_node(OWN_NODE, replace(self._node, checks=rest, checks_index=index), changes)
        else:
            before = self._listing.instances[loser]
            self._listing.replace(before, replace(before, checks=rest), changes)


def _known_checks(
    before: Instance | None, service: ServiceDefinition, taken: Mapping[str, Check], index: int
) -> dict[str, Check]:
    """The checks that an instance comes with, or has taken over, before its registration says more."""
    taken = {key: replace(check, modify_index=index) for key, check in taken.items()}
    known = {**(before.checks if before is not None else {}), **taken}
    if before is None or (before.service.name, before.service.tags) == (service.name, service.tags):
        return known
    # A check shows its service's name and tags, so it changes with them.
    return {key: replace(check, modify_index=index) for key, check in known.items()}


def _merge(before: Check | None, definition: CheckDefinition, index: int) -> Check:
    if before is None:
        return Check(definition, definition.status, "", index, index)
    return replace(
        before,
        definition=definition,
        modify_index=before.modify_index if before.definition == definition else index,
    )
