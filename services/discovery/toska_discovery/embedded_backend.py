"""The REST API's registry where discovery is the registry itself."""

from datetime import timedelta

from toska_common.contracts.discovery import Health, Heartbeat, Instance, Registration, ServiceSummary

from toska_discovery.backend import id_of, lease_check_id, summarise
from toska_discovery.check import CheckDefinition
from toska_discovery.embedded import EmbeddedRegistry
from toska_discovery.errors import UnknownInstance
from toska_discovery.instance import Instance as Listed
from toska_discovery.instance import ServiceDefinition


class EmbeddedBackend:
    """Speaks the contracts of the REST API to the embedded registry."""

    def __init__(self, registry: EmbeddedRegistry, *, lease_ttl: timedelta, removal_after: timedelta) -> None:
        self._registry = registry
        self._ttl_s = lease_ttl.total_seconds()
        self._removal_after_s = removal_after.total_seconds()

    async def register(self, registration: Registration) -> Instance:
        service, check = self._translate(registration)
        await self._registry.register(service, [check], replace_checks=True)
        # A check that was there keeps its verdict; whoever registers says that it is well.
        self._registry.report(check.id, Health.PASSING)
        return await self.get_instance(service.id)

    async def deregister(self, instance_id: str) -> None:
        self._find(instance_id)
        await self._registry.deregister(instance_id)

    async def renew(self, instance_id: str) -> Heartbeat:
        instance = self._find(instance_id)
        lease = instance.checks.get(lease_check_id(instance_id))
        if lease is None or lease.definition.ttl_s is None:
            raise UnknownInstance("this instance has no lease to renew", id=instance_id)
        self._registry.report(lease.definition.id, Health.PASSING)
        return Heartbeat(id=instance_id, ttl_seconds=lease.definition.ttl_s)

    async def get_instance(self, instance_id: str) -> Instance:
        return _render(self._find(instance_id))

    async def list_services(self) -> list[ServiceSummary]:
        services = self._registry.state.services
        return summarise({name: [_render(item) for item in members.values()] for name, members in services.items()})

    async def list_instances(self, service: str) -> list[Instance]:
        members = self._registry.state.services.get(service, {})
        return [_render(member) for _, member in sorted(members.items())]

    async def services_touched_by(self, registration: Registration) -> set[str]:
        service, check = self._translate(registration)
        return self._registry.state.touched_by(service, [check])

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
            meta=dict(registration.metadata),
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


def _render(instance: Listed) -> Instance:
    service = instance.service
    lease = instance.checks.get(lease_check_id(service.id))
    return Instance(
        id=service.id,
        service=service.name,
        address=service.address,
        port=service.port,
        tags=service.tags,
        metadata=service.meta,
        weight=service.weights[0],
        health=instance.health,
        ttl_seconds=None if lease is None else lease.definition.ttl_s,
        registered_at=instance.registered_at,
    )
