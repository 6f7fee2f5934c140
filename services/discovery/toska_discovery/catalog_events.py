"""Events of a real Consul, which has none of its own for this: the catalog is followed, and what is different is told.

One blocking query for the names of services and one for each of them, begun with the first reader. Instances that are
there at the first look are nothing that happened.
"""

from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup
from toska_common.clients.consul import ConsulClient, ServiceEntry

from toska_discovery.backend import REGISTRY_SERVICE
from toska_discovery.feed import Feed
from toska_discovery.member import Member

Translate = Callable[[list[ServiceEntry]], list[Member]]


class CatalogEvents:
    """Turns the changes of a cluster's catalog into a feed."""

    def __init__(self, consul: ConsulClient, feed: Feed, translate: Translate) -> None:
        self._consul = consul
        self._feed = feed
        self._translate = translate
        self._watches: dict[str, anyio.CancelScope] = {}
        self._known: dict[str, dict[str, Member]] = {}
        self._begun = False

    async def follow(self) -> None:
        """Follow the catalog for ever, from the first reader on."""
        await self._feed.wanted.wait()
        async with anyio.create_task_group() as group:
            async for names in self._consul.watch_services():
                self._reconcile(group, names.keys() - {REGISTRY_SERVICE})

    def _reconcile(self, group: TaskGroup, names: set[str]) -> None:
        for name in self._watches.keys() - names:
            self._watches.pop(name).cancel()
            self._take(name, [])
            del self._known[name]
        for name in sorted(names - self._watches.keys()):
            scope = self._watches[name] = anyio.CancelScope()
            # Services that come later are news with all that they have.
            if self._begun:
                self._known[name] = {}
            group.start_soon(self._watch, name, scope)
        self._begun = True

    async def _watch(self, name: str, scope: anyio.CancelScope) -> None:
        with scope:
            async for entries in self._consul.watch_health(name):
                self._take(name, self._translate(entries))

    def _take(self, name: str, members: list[Member]) -> None:
        before = self._known.get(name)
        after = self._known[name] = {member.id: member for member in members}
        if before is None:
            return
        for key, member in after.items():
            known = before.get(key)
            if known is None:
                self._feed.publish("registered", member)
                continue
            if known.health is not member.health:
                self._feed.publish("health-changed", member)
            if _record(known) != _record(member):
                self._feed.publish("updated", member)
        for key in before.keys() - after.keys():
            self._feed.publish("deregistered", before[key])


def _record(member: Member) -> tuple[object, ...]:
    return member.address, member.port, member.tags, dict(member.meta), member.weight
