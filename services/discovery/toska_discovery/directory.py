"""The mesh's own view of a registry: what its REST API and its gRPC service can be asked, each in one place.

Who asks is an `Access` that the transport has established; what may be done with it is decided here, so that no
transport can be more generous than another.
"""

from collections import defaultdict
from dataclasses import dataclass

from toska_common.clock import Clock
from toska_common.contracts.discovery import (
    Health,
    Heartbeat,
    Instance,
    Metadata,
    Registration,
    Report,
    ServiceGraph,
    ServiceSummary,
    ServiceVersions,
)
from toska_common.credentials import Access
from toska_common.targets import TargetRules

from toska_discovery.access import check_target, require_admin_for
from toska_discovery.backend import Backend
from toska_discovery.deployments import compare_versions
from toska_discovery.feed import Feed
from toska_discovery.graph import build_graph
from toska_discovery.member import Member, render
from toska_discovery.metadata import Change, MetadataVersions
from toska_discovery.paging import Page, PageRequest
from toska_discovery.selection import (
    INSTANCE_KEYS,
    SERVICE_KEYS,
    Caller,
    Criteria,
    Order,
    in_order,
    summarise,
)
from toska_discovery.traffic import TrafficShares


@dataclass(frozen=True, slots=True)
class Sort:
    """By which of the known keys, and whether the largest comes first."""

    key: str
    descending: bool = False


class Directory:
    """Answers questions about instances, and takes changes of them."""

    def __init__(self, backend: Backend, feed: Feed, targets: TargetRules, clock: Clock) -> None:
        self.feed = feed
        self._backend = backend
        self._targets = targets
        self._metadata = MetadataVersions(backend, clock)
        self._shares = TrafficShares(backend, clock)

    # Changes.

    async def register(
        self, registration: Registration, access: Access | None, *, field: str = "body.address"
    ) -> Instance:
        """List an instance, in place of whoever has its id, or its address and port; errors name `field`."""
        check_target(registration, self._targets, field=field)
        require_admin_for(access, await self._backend.services_touched_by(registration))
        return await self._backend.register(registration)

    async def deregister(self, instance_id: str, access: Access | None) -> None:
        """Take an instance off the list, and forget its metadata's versions."""
        await self._require(instance_id, access)
        await self._backend.deregister(instance_id)
        await self._metadata.forget(instance_id)

    async def renew(self, instance_id: str, report: Report | None, access: Access | None) -> Heartbeat:
        """Renew an instance's lease, and take it for passing."""
        await self._require(instance_id, access)
        return await self._shares.renew(instance_id, report)

    async def change_metadata(
        self, instance_id: str, change: Change, expected: frozenset[int] | None, access: Access | None
    ) -> Metadata:
        """Make new metadata of what there is; see `MetadataVersions.change`."""
        await self._require(instance_id, access)
        return await self._metadata.change(instance_id, change, expected)

    async def _require(self, instance_id: str, access: Access | None) -> None:
        require_admin_for(access, [(await self._backend.get_member(instance_id)).service])

    # Questions.

    async def get_instance(self, instance_id: str) -> Instance:
        """One instance."""
        return render(await self._backend.get_member(instance_id))

    async def get_metadata(self, instance_id: str) -> Metadata:
        """An instance's metadata."""
        return await self._metadata.get(instance_id)

    async def list_metadata(self, instance_id: str) -> list[Metadata]:
        """The last versions of it, the present one first."""
        return await self._metadata.list_history(instance_id)

    async def list_services(self, criteria: Criteria, sort: Sort, page: PageRequest) -> Page[ServiceSummary]:
        """The services that have an instance that is asked for, by these instances."""
        groups: dict[str, list[Member]] = defaultdict(list)
        for member in await self._backend.list_members():
            if criteria.match(member):
                groups[member.service].append(member)
        services = [summarise(name, members) for name, members in groups.items()]
        return page.cut(services, SERVICE_KEYS[sort.key], lambda service: service.name, descending=sort.descending)

    async def list_instances(self, name: str, criteria: Criteria, sort: Sort, page: PageRequest) -> Page[Instance]:
        """The instances that are asked for, of one service or of all."""
        members = [member for member in await self._backend.list_members(name or None) if criteria.match(member)]
        found = page.cut(members, INSTANCE_KEYS[sort.key], lambda member: member.id, descending=sort.descending)
        return Page([render(member) for member in found.items], found.total, found.cursor)

    async def discover(
        self, name: str, criteria: Criteria, *, caller: Caller, order: Order = "best", limit: int = 0
    ) -> list[Instance]:
        """The instances of one service that a caller can use, the best first; critical ones only if asked for."""
        members = [
            member
            for member in await self._backend.list_members(name)
            if (criteria.health or member.health is not Health.CRITICAL) and criteria.match(member)
        ]
        chosen = in_order(members, order, caller)
        return [render(member) for member in (chosen[:limit] if limit else chosen)]

    async def compare_versions(self, name: str) -> ServiceVersions:
        """The versions of one service side by side."""
        return compare_versions(name, await self._backend.list_members(name))

    async def graph(self, around: str = "") -> ServiceGraph:
        """Who depends on whom."""
        return build_graph(await self._backend.list_members(), around=around)
