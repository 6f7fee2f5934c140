"""The REST API's registry where discovery is the registry itself."""

from dataclasses import replace
from datetime import timedelta

import anyio
from toska_common.contracts.discovery import Health, Heartbeat, Instance, Registration, Report
from toska_common.contracts.reports import encode_report

from toska_discovery.backend import REGISTRY_SERVICE, Document, MetaChange, id_of, lease_check_id
from toska_discovery.changes import Changes, Happening
from toska_discovery.check import CheckDefinition
from toska_discovery.embedded import EmbeddedRegistry
from toska_discovery.errors import UnknownInstance
from toska_discovery.feed import EventType, Feed
from toska_discovery.instance import Instance as Listed
from toska_discovery.instance import ServiceDefinition, instance_key
from toska_discovery.member import Member, render
from toska_discovery.node import OWN_NODE

_TOLD: dict[Happening, tuple[EventType, str]] = {
    Happening.REGISTERED: ("registered", ""),
    Happening.UPDATED: ("updated", ""),
    Happening.HEALTH: ("health-changed", ""),
    Happening.DEREGISTERED: ("deregistered", "deregistered"),
    Happening.EVICTED: ("deregistered", "evicted"),
    Happening.REMOVED: ("deregistered", "removed"),
}
"""As what an event is published, and the reason; a lapse is published as the change of health that it is."""

_AT_A_TIME = 2000
"""Instances gathered before others get a turn: some 2 ms."""


class EmbeddedBackend:
    """Speaks the contracts of the REST API to the embedded registry."""

    def __init__(self, registry: EmbeddedRegistry, *, lease_ttl: timedelta, removal_after: timedelta) -> None:
        self._registry = registry
        self._ttl_s = lease_ttl.total_seconds()
        self._removal_after_s = removal_after.total_seconds()
        self.documents = EmbeddedDocuments(registry)

    async def register(self, registration: Registration) -> Instance:
        service, check = self._translate(registration)
        await self._registry.register(service, [check], replace_checks=True)
        # A check that was there keeps its verdict; whoever registers says that it is well.
        self._registry.report(check.id, Health.PASSING)
        return render(await self.get_member(service.id))

    async def deregister(self, instance_id: str) -> None:
        self._find(instance_id)
        await self._registry.deregister(instance_id)

    async def renew(self, instance_id: str, report: Report | None = None) -> Heartbeat:
        instance = self._find(instance_id)
        lease = instance.checks.get(lease_check_id(instance_id))
        if lease is None or lease.definition.ttl_s is None:
            raise UnknownInstance("this instance has no lease to renew", id=instance_id)
        output = "" if report is None else encode_report(report)
        self._registry.report(lease.definition.id, Health.PASSING, output)
        return Heartbeat(id=instance_id, ttl_seconds=lease.definition.ttl_s)

    async def get_member(self, instance_id: str) -> Member:
        listed = self._registry.state.instances
        keys = (instance_key(instance_id, node) for node in self._registry.state.nodes)
        found = next((listed[key] for key in keys if key in listed), None)
        return self._as_member(found or self._find(instance_id))

    async def list_members(self, service: str | None = None) -> list[Member]:
        services = self._registry.state.services
        if service is not None:
            return [self._as_member(item) for _, item in sorted(services.get(service, {}).items())]
        found: list[Member] = []
        rest = _AT_A_TIME
        for name in sorted(services.keys() - {REGISTRY_SERVICE}):
            found += [self._as_member(item) for _, item in sorted(services.get(name, {}).items())]
            if len(found) >= rest:
                rest = len(found) + _AT_A_TIME
                await anyio.lowlevel.checkpoint()
        return found

    async def amend(self, instance_id: str, change: MetaChange) -> Member:
        instance = self._find(instance_id)
        service = instance.service
        meta = dict(change(service.meta))
        if meta != service.meta:
            await self._registry.register(replace(service, meta=meta), [], at=instance.registered_at)
        return await self.get_member(instance_id)

    async def services_touched_by(self, registration: Registration) -> set[str]:
        service, check = self._translate(registration)
        return self._registry.state.touched_by(service, [check])

    def tell(self, feed: Feed, changes: Changes) -> None:
        """Publish what became of instances."""
        for happening, instance in changes.happenings:
            told = _TOLD.get(happening)
            if told is not None and instance.service.name != REGISTRY_SERVICE:
                feed.publish(told[0], self._as_member(instance), told[1])

    def _find(self, instance_id: str) -> Listed:
        instance = self._registry.state.instances.get(instance_id)
        if instance is None:
            raise UnknownInstance("no instance is listed under this id", id=instance_id)
        return instance

    def _translate(self, registration: Registration) -> tuple[ServiceDefinition, CheckDefinition]:
        service = ServiceDefinition(
            id=id_of(registration),
            name=registration.service,
            address=registration.address,
            port=registration.port,
            tags=registration.tags,
            meta=registration.meta,
            weights=(registration.weight, 1),
        )
        check = CheckDefinition(
            id=lease_check_id(service.id),
            name=f"Service '{service.name}' check",
            ttl_s=registration.ttl_seconds or self._ttl_s,
            status=Health.PASSING,
            removal_after_s=self._removal_after_s,
        )
        return service, check

    def _as_member(self, instance: Listed) -> Member:
        state, service = self._registry.state, instance.service
        node = state.nodes.get(instance.node)
        check_id = lease_check_id(service.id)
        check = instance.checks.get(check_id)
        # The catalog keeps the words of the report that brought the verdict, the lease those of the last.
        lease = state.find_lease(check_id) if instance.node == OWN_NODE else None
        return Member(
            id=service.id,
            service=service.name,
            address=service.address or ("" if node is None else node.definition.address),
            port=service.port,
            tags=service.tags,
            meta=service.meta,
            weight=service.weights[0],
            health=instance.health if node is None else state.health_of(instance),
            output="" if lease is None else lease.output,
            ttl_s=None if check is None else check.definition.ttl_s,
            registered_at=instance.registered_at,
            node="" if node is None else node.definition.name,
        )


class EmbeddedDocuments:
    """Keys of the embedded registry."""

    def __init__(self, registry: EmbeddedRegistry) -> None:
        self._registry = registry

    async def find(self, key: str) -> Document | None:
        entry = self._registry.state.keys.find(key)
        return None if entry is None else Document(entry.value, entry.modify_index)

    async def put(self, key: str, value: bytes, cas: int) -> bool:
        return await self._registry.decide(lambda state, _: state.put_key(key, value, cas=cas))

    async def delete(self, key: str) -> None:
        await self._registry.decide(lambda state, _: state.delete_key(key))
