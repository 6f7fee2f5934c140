"""The checks of the registry's own node: whose each one is, its lease, and whether somebody has to probe it."""

from collections.abc import Iterable, Mapping

from toska_discovery.changes import Changes
from toska_discovery.check import Check, CheckDefinition
from toska_discovery.lease import Lease, Leases


class CheckList:
    """All checks by id. An owner is the id of an instance, or `None` for the node itself.

    Attributes:
        leases: Of every check; one that is probed has no TTL in it.
    """

    def __init__(self) -> None:
        self.leases = Leases()
        self._owners: dict[str, str | None] = {}
        self._probes: dict[str, CheckDefinition] = {}

    def __contains__(self, check_id: str) -> bool:
        return check_id in self._owners

    @property
    def probes(self) -> Mapping[str, CheckDefinition]:
        """Those that must be probed."""
        return self._probes

    def owner(self, check_id: str) -> str | None:
        """Whose check it is; `None` also for a check that is not there."""
        return self._owners.get(check_id)

    def find_lease(self, check_id: str) -> Lease | None:
        """A check's lease."""
        return self.leases.find(check_id)

    def give(self, owner: str | None, check_ids: Iterable[str]) -> None:
        """Put down whose checks these are."""
        self._owners.update(dict.fromkeys(check_ids, owner))

    def grant(self, check: Check, moment: float, changes: Changes) -> None:
        """Start a check's life anew, at `moment` of lease time: one whole TTL, and the probe that it asks for."""
        definition = check.definition
        self.leases.grant(check, moment, removes=self._owners.get(definition.id) is not None)
        before = self._probes.get(definition.id)
        if definition.probe is None:
            if before is not None:
                self._end_probe(definition.id, changes)
            return
        self._probes[definition.id] = definition
        if before is None or (before.kind, before.probe) != (definition.kind, definition.probe):
            changes.probes[definition.id] = definition

    def drop(self, check_ids: Iterable[str], changes: Changes) -> None:
        """Forget checks."""
        for check_id in check_ids:
            del self._owners[check_id]
            self.leases.drop(check_id)
            if check_id in self._probes:
                self._end_probe(check_id, changes)

    def _end_probe(self, check_id: str, changes: Changes) -> None:
        del self._probes[check_id]
        changes.probes[check_id] = None
