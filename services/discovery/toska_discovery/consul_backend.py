"""The REST API's registry where a real Consul is the registry: everything is kept there, nothing here.

Registrations and reports belong to one agent, so this pins the one it was given. What Consul has no field for, the
lease's TTL and the time of registration, travels in the instance's metadata and is taken out again.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

import anyio
from toska_common.clients.consul import ConsulClient, ServiceInstance, ServiceRegistration, TTLCheck
from toska_common.clients.consul_records import worst_health
from toska_common.clock import Clock
from toska_common.contracts.discovery import Health, Heartbeat, Instance, Registration, ServiceSummary
from toska_common.errors import NotFound

from toska_discovery.backend import REGISTRY_SERVICE, id_of, lease_check_id, summarise
from toska_discovery.errors import UnknownInstance
from toska_discovery.instance import canonical_address

META_TTL = "toska-ttl-seconds"
META_REGISTERED_AT = "toska-registered-at"

PARALLEL_QUERIES = 16
"""Services asked for at a time when all are listed."""


class ConsulBackend:
    """Speaks the contracts of the REST API to a Consul agent."""

    def __init__(self, consul: ConsulClient, *, lease_ttl: timedelta, removal_after: timedelta, clock: Clock) -> None:
        self._consul = consul
        self._lease_ttl = lease_ttl
        self._removal_after = removal_after
        self._clock = clock

    async def register(self, registration: Registration) -> Instance:
        own_id = id_of(registration)
        for other in await self._holders(registration):
            await self._consul.deregister_service(other)
        ttl = self._lease_ttl if registration.ttl_seconds is None else timedelta(seconds=registration.ttl_seconds)
        check = TTLCheck(ttl, check_id=lease_check_id(own_id), deregister_after=self._removal_after)
        service = ServiceRegistration(
            name=registration.service,
            id=own_id,
            address=registration.address,
            port=registration.port,
            tags=registration.tags,
            meta={
                **registration.metadata,
                META_TTL: f"{ttl.total_seconds():g}",
                META_REGISTERED_AT: self._clock.now().isoformat(),
            },
            weight=registration.weight,
            checks=(check,),
        )
        await self._consul.register_service(service)
        # A check that was there keeps its verdict; whoever registers says that it is well.
        await self._consul.pass_check(check.check_id)
        return await self.get_instance(own_id)

    async def deregister(self, instance_id: str) -> None:
        await self._require(instance_id)
        await self._consul.deregister_service(instance_id)

    async def renew(self, instance_id: str) -> Heartbeat:
        meta = await self._require(instance_id)
        try:
            await self._consul.pass_check(lease_check_id(instance_id))
        except NotFound as error:
            raise UnknownInstance("this instance has no lease to renew", id=instance_id) from error
        ttl_s = _ttl_seconds(meta)
        return Heartbeat(id=instance_id, ttl_seconds=self._lease_ttl.total_seconds() if ttl_s is None else ttl_s)

    async def get_instance(self, instance_id: str) -> Instance:
        try:
            service = await self._consul.agent_service(instance_id)
        except NotFound:
            return await self._find_elsewhere(instance_id)
        checks = (await self._consul.agent_checks()).values()
        health = worst_health(check.status for check in checks if check.service_id == instance_id)
        return _render(service, service.address, health)

    async def _find_elsewhere(self, instance_id: str) -> Instance:
        # Consul finds services by name and not by id; their checks tell whose an id is, on whichever agent it is.
        checks, _ = await self._consul.health_state()
        for name in {check.service for check in checks if check.service_id == instance_id}:
            for instance in await self.list_instances(name):
                if instance.id == instance_id:
                    return instance
        raise UnknownInstance("no instance is listed under this id", id=instance_id)

    async def list_services(self) -> list[ServiceSummary]:
        names, _ = await self._consul.catalog_services()
        found: dict[str, list[Instance]] = {}
        limiter = anyio.CapacityLimiter(PARALLEL_QUERIES)

        async def look(name: str) -> None:
            async with limiter:
                found[name] = await self.list_instances(name)

        try:
            async with anyio.create_task_group() as group:
                for name in names:
                    if name != REGISTRY_SERVICE:
                        group.start_soon(look, name)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors  # the rest fails for the same reason
        return summarise({name: members for name, members in found.items() if members})

    async def list_instances(self, service: str) -> list[Instance]:
        entries, _ = await self._consul.health_service(service)
        return sorted(
            (_render(entry.service, entry.address, entry.health) for entry in entries), key=lambda instance: instance.id
        )

    async def services_touched_by(self, registration: Registration) -> set[str]:
        services = await self._consul.agent_services()
        ids = {id_of(registration), *await self._holders(registration)}
        return {registration.service} | {item.service for key, item in services.items() if key in ids}

    async def _holders(self, registration: Registration) -> list[str]:
        """Who else has the address and port, as far as this agent knows."""
        endpoint = (canonical_address(registration.address), registration.port)
        return [
            key
            for key, item in (await self._consul.agent_services()).items()
            if key != id_of(registration) and (canonical_address(item.address), item.port) == endpoint
        ]

    async def _require(self, instance_id: str) -> Mapping[str, str]:
        try:
            return (await self._consul.agent_service(instance_id)).meta
        except NotFound as error:
            raise UnknownInstance("no instance is listed under this id", id=instance_id) from error


def _render(service: ServiceInstance, address: str, health: Health) -> Instance:
    meta = service.meta
    return Instance(
        id=service.id,
        service=service.service,
        address=address,
        port=service.port,
        tags=service.tags,
        metadata={key: value for key, value in meta.items() if key not in {META_TTL, META_REGISTERED_AT}},
        weight=service.weight,
        health=health,
        ttl_seconds=_ttl_seconds(meta),
        registered_at=_timestamp(meta.get(META_REGISTERED_AT, "")),
    )


def _ttl_seconds(meta: Mapping[str, str]) -> float | None:
    try:
        return float(meta[META_TTL])
    except (KeyError, ValueError):
        return None


def _timestamp(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
