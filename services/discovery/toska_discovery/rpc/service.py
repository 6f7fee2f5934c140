"""The methods of `toska.discovery.v1.ServiceDiscovery`: parse, ask the directory, fill the answer.

Each call has a deadline, the caller's or one of ours; a watch has only the caller's.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from prometheus_client import CollectorRegistry
from toska_common.contracts.discovery import Health, Registration, Report
from toska_common.credentials import Access
from toska_common.errors import InvalidInput, MeshError, UpstreamUnavailable
from toska_common.protos import discovery_v1_pb2, discovery_v1_pb2_grpc
from toska_common.rpc.answering import Answering
from toska_common.security import ManagementPolicy

from toska_discovery.directory import Directory, Sort
from toska_discovery.feed import Happened, Quiet
from toska_discovery.metadata import merge, read_patch, read_replacement
from toska_discovery.paging import MAX_LIMIT, PageRequest
from toska_discovery.rpc.messages import fill, health_of, parse
from toska_discovery.selection import SERVICE_KEYS, Caller, Criteria

QUIET_S = 60.0
MAX_READERS = 1000

pb: Any = discovery_v1_pb2  # made by protoc, without types

_EVENT_TYPES = {
    "registered": pb.ServiceEvent.TYPE_REGISTERED,
    "updated": pb.ServiceEvent.TYPE_UPDATED,
    "health-changed": pb.ServiceEvent.TYPE_HEALTH_CHANGED,
    "deregistered": pb.ServiceEvent.TYPE_DEREGISTERED,
}


class ServiceDiscovery(discovery_v1_pb2_grpc.ServiceDiscoveryServicer):
    """Answers for `directory`, to whom `policy` lets in."""

    def __init__(self, directory: Directory, policy: ManagementPolicy, registry: CollectorRegistry) -> None:
        self._directory = directory
        self._answering = Answering(policy, registry, "toska_discovery_rpcs")

    # The protocol's names; what they do is below.

    async def Register(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return await self._answering.answer("Register", self._register, request, context, Access.JOIN)

    async def Deregister(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return await self._answering.answer("Deregister", self._deregister, request, context, Access.JOIN)

    async def Discover(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return await self._answering.answer("Discover", self._discover, request, context)

    async def Heartbeat(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return await self._answering.answer("Heartbeat", self._heartbeat, request, context, Access.JOIN)

    async def ListServices(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return await self._answering.answer("ListServices", self._list_services, request, context)

    async def GetServiceMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return await self._answering.answer("GetServiceMetadata", self._get_metadata, request, context)

    async def UpdateServiceMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return await self._answering.answer(
            "UpdateServiceMetadata", self._update_metadata, request, context, Access.JOIN
        )

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - the protocol's name
        try:
            self._answering.admit(context, None)
            if self._directory.feed.readers >= MAX_READERS:
                raise UpstreamUnavailable(f"{MAX_READERS} readers follow events already")
        except MeshError as error:
            await self._answering.fail("Watch", error, context)
        self._answering.calls.labels("Watch", "OK").inc()
        async with aclosing(self._follow(request)) as events:
            async for event in events:
                yield event

    # What they do.

    async def _register(self, request: Any, access: Access | None) -> Any:
        registration = parse(Registration, request.registration, "registration")
        instance = await self._directory.register(registration, access, field="registration.address")
        return pb.RegisterResponse(instance=fill(pb.Instance(), instance))

    async def _deregister(self, request: Any, access: Access | None) -> Any:
        await self._directory.deregister(_required(request, "id"), access)
        return pb.DeregisterResponse()

    async def _heartbeat(self, request: Any, access: Access | None) -> Any:
        report = parse(Report, request.report, "report") if request.HasField("report") else None
        answer = await self._directory.renew(_required(request, "id"), report, access)
        return fill(pb.HeartbeatResponse(), answer)

    async def _discover(self, request: Any, _: Access | None) -> Any:
        if not 0 <= request.limit <= MAX_LIMIT:
            raise _wrong("limit", f"between 0 and {MAX_LIMIT}")
        found = await self._directory.discover(
            _required(request, "name"),
            _criteria(request.filter),
            caller=Caller(region=request.near_region, zone=request.near_zone),
            limit=request.limit,
        )
        return pb.DiscoverResponse(instances=[fill(pb.Instance(), instance) for instance in found])

    async def _list_services(self, request: Any, _: Access | None) -> Any:
        sort = Sort(request.sort.removeprefix("-") or "name", descending=request.sort.startswith("-"))
        if sort.key not in SERVICE_KEYS:
            raise _wrong("sort", f"one of {', '.join(SERVICE_KEYS)}, with - in front for the largest first")
        if not 0 <= request.page_size <= MAX_LIMIT:
            raise _wrong("page_size", f"between 0 and {MAX_LIMIT}")
        question = repr((request.filter.SerializeToString(deterministic=True), request.sort))
        page = PageRequest(
            limit=request.page_size or MAX_LIMIT,
            cursor=request.page_token,
            question=question,
            cursor_field="page_token",
        )
        found = await self._directory.list_services(_criteria(request.filter), sort, page)
        return pb.ListServicesResponse(
            services=[fill(pb.ServiceSummary(), service) for service in found.items],
            next_page_token=found.cursor,
            total_size=found.total,
        )

    async def _get_metadata(self, request: Any, _: Access | None) -> Any:
        return fill(pb.ServiceMetadata(), await self._directory.get_metadata(_required(request, "id")))

    async def _update_metadata(self, request: Any, access: Access | None) -> Any:
        given, removed = dict(request.metadata), tuple(request.remove)
        if request.replace and removed:
            raise _wrong("remove", "what replaces the metadata leaves nothing to remove")
        expected = frozenset({request.if_version}) if request.HasField("if_version") else None
        if request.replace:
            wanted = read_replacement(given, field="metadata")
            changed = self._directory.change_metadata(_required(request, "id"), lambda _: wanted, expected, access)
        else:
            patch = read_patch({**given, **dict.fromkeys(removed)}, field="metadata")
            changed = self._directory.change_metadata(
                _required(request, "id"), lambda present: merge(present, patch), expected, access
            )
        return fill(pb.ServiceMetadata(), await changed)

    async def _follow(self, request: Any) -> AsyncGenerator[Any]:
        feed, position = self._directory.feed, request.position
        if not position:
            position = feed.position
            yield pb.ServiceEvent(type=pb.ServiceEvent.TYPE_READY, position=position)
        async with aclosing(feed.read(position, QUIET_S)) as news_of:
            async for news in news_of:
                match news:
                    case Happened() if not request.name or news.member.service == request.name:
                        yield pb.ServiceEvent(
                            type=_EVENT_TYPES[news.type],
                            position=feed.position_of(news.number),
                            reason=news.reason,
                            instance=fill(pb.Instance(), news.instance),
                        )
                    case Happened() | Quiet():
                        continue
                    case _:
                        yield pb.ServiceEvent(type=pb.ServiceEvent.TYPE_RESET, position=feed.position)


def _criteria(message: Any) -> Criteria:
    health: set[Health] = set()
    for number in message.health:
        try:
            health.add(Health(health_of(number)))
        except ValueError as error:
            raise _wrong("filter.health", "HEALTH_PASSING, HEALTH_WARNING or HEALTH_CRITICAL") from error
    if len(message.text) > 256 or len(message.tags) > 16 or len(message.capabilities) > 16:
        raise _wrong("filter", "at most 16 tags, 16 capabilities and 256 characters of text")
    return Criteria(
        health=frozenset(health),
        version=message.version,
        region=message.region,
        zone=message.zone,
        type=message.type,
        tags=frozenset(message.tags),
        capabilities=frozenset(message.capabilities),
        words=tuple(message.text.lower().split()),
    )


def _required(request: Any, field: str) -> str:
    value: str = getattr(request, field)
    if not value or len(value) > 255:
        raise _wrong(field, "between 1 and 255 characters")
    return value


def _wrong(field: str, reason: str) -> InvalidInput:
    return InvalidInput(f"{field}: {reason}", problems=[{"field": field, "reason": reason}])
