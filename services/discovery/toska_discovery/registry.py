"""The registry as a pure state machine: events and the time go in, changes come out, and nothing else happens.

    register ──▶ listed ──deregister, eviction, lease critical for too long──▶ gone
                  │  ▲
          verdict └──┘ report, lapse

Every change takes the next index, one for the whole registry as Raft's is in Consul, so a later state always has a
higher index. A service's own index is that of its last change; of a service that is not there it is that of the last
service that ceased to be. Reports that bring no new verdict renew a lease and change nothing.

Time is given as monotonic seconds, timestamps as datetimes. Storing, waking and answering are others' business.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from toska_common.contracts.discovery import Health

from toska_discovery.changes import CHECKS, SERVICES, Changes, Happening, service_topic
from toska_discovery.errors import UnknownCheck
from toska_discovery.instance import (
    Check,
    CheckDefinition,
    Instance,
    ServiceDefinition,
    bounded_output,
)
from toska_discovery.kv import Entry, KeyValues
from toska_discovery.lease import Due, Lease, Leases, LeaseTime

TTL_EXPIRED = "TTL expired"
"""Consul's wording for a lapsed TTL check."""


class Registry:
    """Instances, their leases, and keys with values."""

    def __init__(self, *, sweep_interval_s: float, now: float, index: int = 1) -> None:
        self._index = index
        self._time = LeaseTime(sweep_interval_s, now)
        self._leases = Leases()
        self._instances: dict[str, Instance] = {}
        self._services: dict[str, dict[str, Instance]] = {}
        self._service_index: dict[str, int] = {}
        self._by_endpoint: dict[tuple[str, int], str] = {}
        self._by_check: dict[str, str] = {}
        self._by_health = dict.fromkeys(Health, 0)
        self._services_index = self._checks_index = index
        self._extinction_index = 0
        self.keys = KeyValues()

    # What is known.

    @property
    def index(self) -> int:
        """Index of the last change of anything."""
        return self._index

    @property
    def services_index(self) -> int:
        """Index of the last change of any instance, verdicts aside."""
        return self._services_index

    @property
    def checks_index(self) -> int:
        """Index of the last change of any check."""
        return self._checks_index

    def service_index(self, name: str) -> int:
        """Index of the last change of a service, or of the last extinction of any if there is none of the name."""
        return self._service_index.get(name) or self._extinction_index or self._services_index

    @property
    def services(self) -> Mapping[str, Mapping[str, Instance]]:
        """All instances, by service and id."""
        return self._services

    @property
    def instances(self) -> Mapping[str, Instance]:
        """All instances, by id."""
        return self._instances

    @property
    def by_health(self) -> Mapping[Health, int]:
        """How many instances are in which state."""
        return self._by_health

    def find_check(self, check_id: str) -> tuple[Instance, Check] | None:
        """A check and the instance it belongs to."""
        owner = self._by_check.get(check_id)
        if owner is None:
            return None
        instance = self._instances[owner]
        return instance, instance.checks[check_id]

    def find_lease(self, check_id: str) -> Lease | None:
        """The lease of a check, with the output of its last report."""
        return self._leases.find(check_id)

    def touched_by(self, service: ServiceDefinition, checks: Iterable[CheckDefinition]) -> set[str]:
        """Names of the services that a registration would change: its own, and those that it takes something from."""
        owners = {service.id, self._holder(service), *(self._by_check.get(check.id) for check in checks)}
        return {service.name} | {self._instances[owner].service.name for owner in owners if owner in self._instances}

    # What happens.

    def load(self, instances: Iterable[Instance], keys: list[Entry], index: int, now: float) -> None:
        """Take over what was stored; every lease gets one whole TTL, and everything counts as changed at `index`."""
        moment = self._time.sweep(now)
        self._index = self._services_index = self._checks_index = self._extinction_index = index
        for instance in instances:
            self._put(instance)
            self._service_index[instance.service.name] = index
            for check in instance.checks.values():
                self._by_check[check.definition.id] = instance.service.id
                self._grant(check, moment)
        self.keys.load(keys, index)

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
        holder = self._holder(service)
        if holder is not None:
            self._remove(self._instances[holder], changes, Happening.EVICTED)
        taken = self._take_over(service, checks, changes)
        before = self._instances.get(service.id)
        index = self._index + 1
        taken = {key: replace(check, modify_index=index) for key, check in taken.items()}
        known = {**(before.checks if before is not None else {}), **taken}
        if before is not None and (before.service.name, before.service.tags) != (service.name, service.tags):
            # A check shows its service's name and tags, so it changes with them.
            known = {key: replace(check, modify_index=index) for key, check in known.items()}
        kept = {} if replace_checks else known
        merged = {**kept, **{check.id: _merge(known.get(check.id), check, index) for check in checks}}
        same = before is not None and before.service == service
        after = Instance(
            service=service,
            checks=merged,
            registered_at=before.registered_at if before is not None and same else at,
            create_index=before.create_index if before is not None else index,
            modify_index=before.modify_index if before is not None and same else index,
        )
        if before is None or before != after:
            self._step(changes)
            self._replace(before, after, changes)
            changes.happenings.append((Happening.REGISTERED if before is None else Happening.UPDATED, after))
        else:
            self._put(after)  # what the catalog does not show, such as a TTL, may differ all the same
        changes.instances[service.id] = after
        for check in checks:
            self._grant(merged[check.id], moment)
        return changes

    def deregister(self, instance_id: str) -> Changes:
        """Take an instance off the list; none of that id is fine and changes nothing."""
        changes = Changes()
        instance = self._instances.get(instance_id)
        if instance is not None:
            self._remove(instance, changes, Happening.DEREGISTERED)
        return changes

    def report(self, check_id: str, status: Health, output: str, now: float) -> Changes:
        """Take a verdict on a check and renew its lease by one TTL.

        Raises:
            UnknownCheck: There is none of that id.
        """
        lease = self._leases.find(check_id)
        if lease is None:
            raise UnknownCheck(f'CheckID "{check_id}" does not have associated TTL', check_id=check_id)
        output = bounded_output(output)
        self._leases.renew(lease, self._time.at(now), output, critical=status is Health.CRITICAL)
        changes = Changes()
        self._judge(check_id, status, output, changes)
        return changes

    def sweep(self, now: float) -> Changes:
        """Turn lapsed checks critical, and remove the instances that have been critical for too long."""
        changes = Changes()
        for lease, due in self._leases.take_due(self._time.sweep(now)):
            instance = self._instances[self._by_check[lease.check_id]]
            if due is Due.REMOVE:
                self._remove(instance, changes, Happening.REMOVED)
                continue
            last = lease.output
            lease.output = f"{TTL_EXPIRED} (last output before timeout follows): {last}" if last else TTL_EXPIRED
            if self._judge(lease.check_id, Health.CRITICAL, lease.output, changes):
                changes.happenings.append((Happening.LAPSED, self._instances[instance.service.id]))
        return changes

    def put_key(self, key: str, value: bytes, flags: int = 0, *, cas: int | None = None) -> tuple[bool, Changes]:
        """Write a key, with `cas` only if that is its ModifyIndex (0: only if it does not exist)."""
        changes = Changes()
        done, changed = self.keys.put(key, value, flags, self._index + 1, cas=cas)
        if changed:
            self._step(changes)
            changes.keys[key] = self.keys.find(key)
        return done, changes

    def delete_key(self, key: str, *, cas: int | None = None) -> tuple[bool, Changes]:
        """Remove a key, with `cas` only if that is its ModifyIndex; one that does not exist is fine."""
        changes = Changes()
        done, changed = self.keys.delete(key, self._index + 1, cas=cas)
        if changed:
            self._step(changes)
            changes.keys[key] = None
        return done, changes

    def delete_keys_below(self, prefix: str) -> Changes:
        """Remove every key that starts with `prefix`."""
        changes = Changes()
        for key in self.keys.delete_below(prefix, self._index + 1):
            changes.keys[key] = None
        if changes.keys:
            self._step(changes)
        return changes

    # How it is done.

    def _holder(self, service: ServiceDefinition) -> str | None:
        """Who else has the address and port of `service`."""
        endpoint = service.endpoint
        holder = self._by_endpoint.get(endpoint) if endpoint is not None else None
        return None if holder == service.id else holder

    def _take_over(
        self, service: ServiceDefinition, checks: Iterable[CheckDefinition], changes: Changes
    ) -> dict[str, Check]:
        """Take checks away from other instances: an id stands for one check of the node."""
        taken: dict[str, Check] = {}
        for definition in checks:
            owner = self._by_check.get(definition.id)
            if owner is None or owner == service.id:
                continue
            loser = self._instances[owner]
            self._step(changes)
            taken[definition.id] = loser.checks[definition.id]
            rest = {key: check for key, check in loser.checks.items() if key != definition.id}
            self._replace(loser, replace(loser, checks=rest), changes, keep_leases=True)
        return taken

    def _judge(self, check_id: str, status: Health, output: str, changes: Changes) -> bool:
        """Give a check a verdict; false if it has it already."""
        before = self._instances[self._by_check[check_id]]
        check = before.checks[check_id]
        if check.status is status:
            return False
        self._step(changes)
        judged = replace(check, status=status, output=output, modify_index=self._index)
        after = replace(before, checks={**before.checks, check_id: judged})
        self._replace(before, after, changes)
        if after.health is not before.health:
            changes.happenings.append((Happening.HEALTH, after))
        return True

    def _remove(self, instance: Instance, changes: Changes, happening: Happening) -> None:
        service = instance.service
        self._step(changes)
        del self._instances[service.id]
        self._by_health[instance.health] -= 1
        if service.endpoint is not None and self._by_endpoint.get(service.endpoint) == service.id:
            del self._by_endpoint[service.endpoint]
        for check_id in instance.checks:
            del self._by_check[check_id]
            self._leases.drop(check_id)
        self._leave_service(service, changes)
        self._services_index = self._index
        changes.topics.add(SERVICES)
        if instance.checks:
            self._checks_index = self._index
            changes.topics.add(CHECKS)
        changes.instances[service.id] = None
        changes.happenings.append((happening, instance))

    def _replace(
        self, before: Instance | None, after: Instance, changes: Changes, *, keep_leases: bool = False
    ) -> None:
        """Put `after` in the place of `before`, at the current index."""
        service = after.service
        old_checks: Mapping[str, Check] = {} if before is None else before.checks
        vacated = before.service.endpoint if before is not None else None
        if vacated is not None and vacated != service.endpoint:
            self._by_endpoint.pop(vacated, None)
        if before is not None and before.service.name != service.name:
            self._leave_service(before.service, changes)
        for check_id in old_checks.keys() - after.checks.keys():
            del self._by_check[check_id]
            if not keep_leases:
                self._leases.drop(check_id)
        self._by_check.update(dict.fromkeys(after.checks, service.id))
        self._put(after)
        self._service_index[service.name] = self._index
        changes.instances[service.id] = after
        changes.topics.add(service_topic(service.name))
        if before is None or before.service != service:
            self._services_index = self._index
            changes.topics.add(SERVICES)
        if old_checks != after.checks:
            self._checks_index = self._index
            changes.topics.add(CHECKS)

    def _put(self, instance: Instance) -> None:
        service = instance.service
        before = self._instances.get(service.id)
        if before is not None:
            self._by_health[before.health] -= 1
        self._by_health[instance.health] += 1
        self._instances[service.id] = instance
        self._services.setdefault(service.name, {})[service.id] = instance
        if service.endpoint is not None:
            self._by_endpoint[service.endpoint] = service.id

    def _leave_service(self, service: ServiceDefinition, changes: Changes) -> None:
        members = self._services[service.name]
        del members[service.id]
        changes.topics.add(service_topic(service.name))
        if members:
            self._service_index[service.name] = self._index
            return
        del self._services[service.name], self._service_index[service.name]
        self._extinction_index = self._index

    def _grant(self, check: Check, moment: float) -> None:
        definition = check.definition
        self._leases.grant(
            definition.id,
            definition.ttl_s,
            definition.removal_after_s,
            moment,
            critical=check.status is Health.CRITICAL,
        )

    def _step(self, changes: Changes) -> None:
        self._index += 1
        changes.index = self._index


def _merge(before: Check | None, definition: CheckDefinition, index: int) -> Check:
    if before is None:
        return Check(definition, definition.status, "", index, index)
    return replace(
        before,
        definition=definition,
        modify_index=before.modify_index if before.definition == definition else index,
    )
