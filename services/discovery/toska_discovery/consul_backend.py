"""The REST API's registry where a real Consul is the registry: everything is kept there, nothing here.

Registrations and reports belong to one agent, so this pins the one it was given. What Consul has no field for, the
lease's TTL and the time of registration, travels in the instance's metadata and is taken out again; documents are keys.

Reports of instances on this agent are as fresh as their last renewal; those on other agents come with the catalog,
which an agent tells of a new output without a new verdict once in five minutes (`check_update_interval`).
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

import anyio
from toska_common.clients.consul import (
    Check,
    ConsulClient,
    ServiceEntry,
    ServiceInstance,
    ServiceRegistration,
    TTLCheck,
)
from toska_common.clients.consul_records import worst_health
from toska_common.clock import Clock
from toska_common.contracts.discovery import Health, Heartbeat, Instance, Registration, Report
from toska_common.contracts.reports import encode_report
from toska_common.errors import Conflict, NotFound

from toska_discovery.backend import REGISTRY_SERVICE, Document, MetaChange, id_of, lease_check_id
from toska_discovery.errors import UnknownInstance
from toska_discovery.instance import canonical_address
from toska_discovery.member import META_REGISTERED_AT, META_TTL, Member, render

PARALLEL_QUERIES = 16
"""Services asked for at a time when all are listed."""


class ConsulBackend:
    """Speaks the contracts of the REST API to a Consul agent."""

    def __init__(self, consul: ConsulClient, *, lease_ttl: timedelta, removal_after: timedelta, clock: Clock) -> None:
        self._consul = consul
        self._lease_ttl = lease_ttl
        self._removal_after = removal_after
        self._clock = clock
        self.documents = ConsulDocuments(consul)

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
                **registration.meta,
                META_TTL: f"{ttl.total_seconds():g}",
                META_REGISTERED_AT: self._clock.now().isoformat(),
            },
            weight=registration.weight,
            checks=(check,),
        )
        await self._consul.register_service(service)
        # A check that was there keeps its verdict; whoever registers says that it is well.
        await self._consul.pass_check(check.check_id)
        return render(await self.get_member(own_id))

    async def deregister(self, instance_id: str) -> None:
        await self._require(instance_id)
        await self._consul.deregister_service(instance_id)

    async def renew(self, instance_id: str, report: Report | None = None) -> Heartbeat:
        meta = (await self._require(instance_id)).meta
        output = "" if report is None else encode_report(report)
        try:
            await self._consul.update_check(lease_check_id(instance_id), Health.PASSING, output)
        except NotFound as error:
            raise UnknownInstance("this instance has no lease to renew", id=instance_id) from error
        ttl_s = _ttl_seconds(meta)
        return Heartbeat(id=instance_id, ttl_seconds=self._lease_ttl.total_seconds() if ttl_s is None else ttl_s)

    async def get_member(self, instance_id: str) -> Member:
        try:
            service = await self._consul.agent_service(instance_id)
        except NotFound:
            return await self._find_elsewhere(instance_id)
        checks = [check for check in (await self._consul.agent_checks()).values() if check.service_id == instance_id]
        return _member(service, service.address, checks)

    async def _find_elsewhere(self, instance_id: str) -> Member:
        # Consul finds services by name and not by id; their checks tell whose an id is, on whichever agent it is.
        checks, _ = await self._consul.health_state()
        for name in {check.service for check in checks if check.service_id == instance_id}:
            entries, _ = await self._consul.health_service(name, consistent=True)
            for entry in entries:
                if entry.service.id == instance_id:
                    return _of_entry(entry, {})
        raise UnknownInstance("no instance is listed under this id", id=instance_id)

    async def list_members(self, service: str | None = None) -> list[Member]:
        if service is not None:
            entries, _ = await self._consul.health_service(service)
            return in_order(entries, await self._consul.agent_checks())
        names, _ = await self._consul.catalog_services()
        local = await self._consul.agent_checks()
        found: dict[str, list[Member]] = {}
        limiter = anyio.CapacityLimiter(PARALLEL_QUERIES)

        async def look(name: str) -> None:
            async with limiter:
                found[name] = in_order((await self._consul.health_service(name))[0], local)

        try:
            async with anyio.create_task_group() as group:
                for name in names:
                    if name != REGISTRY_SERVICE:
                        group.start_soon(look, name)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors  # the rest fails for the same reason
        return [member for name in sorted(found) for member in found[name]]

    async def amend(self, instance_id: str, change: MetaChange) -> Member:
        try:
            await self._consul.amend_service(instance_id, change)
        except NotFound as error:
            member = await self._find_elsewhere(instance_id)
            raise Conflict(
                f"this instance belongs to the Consul agent of {member.node}; ask a discovery on that agent",
                id=instance_id,
                node=member.node,
            ) from error
        return await self.get_member(instance_id)

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

    async def _require(self, instance_id: str) -> ServiceInstance:
        try:
            return await self._consul.agent_service(instance_id)
        except NotFound as error:
            raise UnknownInstance("no instance is listed under this id", id=instance_id) from error


class ConsulDocuments:
    """Keys of the cluster. Read from the leader with a quorum: a change is decided by what is there now."""

    def __init__(self, consul: ConsulClient) -> None:
        self._consul = consul

    async def find(self, key: str) -> Document | None:
        pair, _ = await self._consul.kv_get(key, consistent=True)
        return None if pair is None else Document(pair.value, pair.modify_index)

    async def put(self, key: str, value: bytes, cas: int) -> bool:
        return await self._consul.kv_put(key, value, cas=cas)

    async def delete(self, key: str) -> None:
        await self._consul.kv_delete(key)


def in_order(entries: list[ServiceEntry], local: Mapping[str, Check]) -> list[Member]:
    """Members by id; `local` are the checks of this agent, by id."""
    return sorted((_of_entry(entry, local) for entry in entries), key=lambda member: member.id)


def _of_entry(entry: ServiceEntry, local: Mapping[str, Check]) -> Member:
    fresh = local.get(lease_check_id(entry.service.id))
    checks = [*entry.checks, *([fresh] if fresh is not None and fresh.node == entry.node.name else [])]
    # The verdict is the catalog's, so that every reader sees the same; the words are the freshest.
    return _member(entry.service, entry.address, checks, health=entry.health, node=entry.node.name)


def _member(
    service: ServiceInstance, address: str, checks: list[Check], *, health: Health | None = None, node: str = ""
) -> Member:
    lease = lease_check_id(service.id)
    return Member(
        id=service.id,
        service=service.service,
        address=address,
        port=service.port,
        tags=service.tags,
        meta=service.meta,
        weight=service.weight,
        health=worst_health(check.status for check in checks) if health is None else health,
        output=next((check.output for check in reversed(checks) if check.id == lease), ""),
        ttl_s=_ttl_seconds(service.meta),
        registered_at=_timestamp(service.meta.get(META_REGISTERED_AT, "")),
        node=node,
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
