"""Groups: made by who subscribes first, found by the others, moved and forgotten by operators.

Whoever makes or changes one holds a lock, and knows all facts there are while it does. A group stands once its fact is
told: a process that dies while it fills a new group's queue leaves no fact, and the next one begins anew.
"""

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import structlog

from toska_common.errors import Conflict
from toska_common.events.amqp.catalog import Catalog
from toska_common.events.amqp.errors import NoQueue, TopologyConflict, asked
from toska_common.events.amqp.facts import GroupFact
from toska_common.events.amqp.link import Link
from toska_common.events.amqp.locks import Locks
from toska_common.events.amqp.names import SLOTS
from toska_common.events.amqp.posting import Letter, Postman
from toska_common.events.amqp.reading import Log, Record, content_type_of
from toska_common.events.amqp.settling import own_headers
from toska_common.events.amqp.streams import headers_of
from toska_common.events.amqp.topology import Topology
from toska_common.events.errors import UnknownGroup
from toska_common.events.transport import Priority, Start, Subscription

log = structlog.get_logger(__name__)

_FILL = 200


class Groups:
    """The groups of a namespace."""

    def __init__(
        self, link: Link, locks: Locks, topology: Topology, catalog: Catalog, events: Log, postman: Postman
    ) -> None:
        self._link = link
        self._locks = locks
        self._topology = topology
        self._catalog = catalog
        self._log = events
        self._postman = postman

    async def join(self, subscription: Subscription) -> GroupFact:
        """The group of a subscription, made if there is none, and with the patterns of who came last.

        Raises:
            TopologyConflict: It is ordered and the subscription is not, or the other way round.
        """
        group = subscription.group or ""
        fact = self._catalog.facts.group(group)
        if fact is None or set(fact.patterns) != set(subscription.patterns):
            async with self._changing(group):
                fact = self._catalog.facts.group(group)
                if fact is None:
                    return await self._make(subscription)
                fact = await self._change_patterns(fact, subscription.patterns)
        if bool(fact.lanes) != subscription.ordered:
            raise TopologyConflict(
                f"the group {group!r} is {'ordered' if fact.lanes else 'not ordered'}, and cannot become what is asked "
                "for: delete it once it is empty, or use a group of another name"
            )
        return fact

    async def declare(self, fact: GroupFact) -> list[str]:
        """Have its queues, which somebody may have deleted; those of higher priority first."""
        async with self._link.channel() as channel:
            queues = await self._topology.declare_group(channel, fact.name, fact.lanes)
            for pattern in fact.patterns:
                await self._topology.bind_group(channel, fact.name, fact.lanes, pattern, undo=False)
        return queues

    async def seek(self, group: str, start: Start) -> None:
        """Forget what it has yet to get, and give it everything from a place on.

        Raises:
            UnknownGroup: There is none.
            Conflict: It has members.
        """
        async with self._changing(group):
            fact = self.get(group)
            await self._refuse_members(fact)
            await self._empty(fact)
            await self._fill(fact, start)

    async def delete(self, group: str) -> None:
        """Forget it, with what it has yet to get.

        Raises:
            UnknownGroup: There is none.
            Conflict: It has members.
        """
        async with self._changing(group):
            fact = self.get(group)
            await self._refuse_members(fact)
            await self._catalog.tell(replace(fact, here=False))
            names = self._topology.names
            async with self._link.channel() as channel:
                for queue in [*self.queues(fact), *self.retries(fact), names.dead(group)]:
                    await asked(f"deleting {queue}", channel.queue_delete(queue))
                if fact.lanes:
                    for exchange in (names.lanes(group), names.keyless(group)):
                        await asked(f"deleting {exchange}", channel.exchange_delete(exchange))

    def get(self, group: str) -> GroupFact:
        """What is known of it.

        Raises:
            UnknownGroup: There is none.
        """
        fact = self._catalog.facts.group(group)
        if fact is None:
            raise UnknownGroup(f"there is no group {group!r}")
        return fact

    def queues(self, fact: GroupFact) -> list[str]:
        """Where its events wait for members."""
        names = self._topology.names
        if fact.lanes:
            return [names.lane(fact.name, number) for number in range(fact.lanes)]
        return [names.queue(fact.name, priority) for priority in Priority]

    def retries(self, fact: GroupFact) -> list[str]:
        """Where its events wait to be tried again; some may not be there any more."""
        names = self._topology.names
        return [names.retry(queue, wait) for queue in self.queues(fact) for wait in fact.waits]

    def dead(self, fact: GroupFact) -> str:
        """Where its dead letters are."""
        return self._topology.names.dead(fact.name)

    async def members(self, fact: GroupFact) -> int:
        """How many subscriptions share it."""
        names = self._topology.names
        queue = names.members(fact.name) if fact.lanes else names.queue(fact.name)
        return (await self.counts([queue])).get(queue, (0, 0))[1]

    async def counts(self, queues: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Messages that are ready, and consumers, of those of the queues that are there."""
        found: dict[str, tuple[int, int]] = {}
        for queue in queues:
            try:
                async with self._link.channel() as channel:
                    state = await asked(f"looking at {queue}", channel.queue_declare(queue, passive=True, timeout=30))
            except NoQueue:
                continue
            found[queue] = (state.message_count or 0, state.consumer_count or 0)
        return found

    @asynccontextmanager
    async def _changing(self, group: str) -> AsyncGenerator[None]:
        async with self._locks.held(f"group.{group}"):
            await self._catalog.current()
            yield

    async def _make(self, subscription: Subscription) -> GroupFact:
        if not subscription.start.is_now:
            self._log.require()
        lanes = min(max(1, subscription.partitions), SLOTS) if subscription.ordered else 0
        fact = GroupFact(subscription.group or "", subscription.patterns, lanes)
        if subscription.start.is_now:
            await self.declare(fact)
        else:
            async with self._link.channel() as channel:
                await self._topology.declare_group(channel, fact.name, lanes)
            await self._empty(fact)  # a process may have died while it filled them
            await self._fill(fact, subscription.start)
            await self.declare(fact)
        await self._catalog.tell(fact)
        log.info("group_made", group=fact.name, patterns=fact.patterns, lanes=lanes)
        return fact

    async def _change_patterns(self, fact: GroupFact, patterns: Sequence[str]) -> GroupFact:
        changed = replace(fact, patterns=tuple(patterns))
        await self.declare(changed)
        async with self._link.channel() as channel:
            for pattern in set(fact.patterns) - set(patterns):
                await self._topology.bind_group(channel, fact.name, fact.lanes, pattern, undo=True)
        await self._catalog.tell(changed)
        log.info("group_patterns_changed", group=fact.name, before=fact.patterns, patterns=changed.patterns)
        return changed

    async def _empty(self, fact: GroupFact) -> None:
        async with self._link.channel() as channel:
            for queue in self.queues(fact):
                await asked(f"purging {queue}", channel.queue_purge(queue))
        for queue in await self.counts(self.retries(fact)):
            async with self._link.channel() as channel:
                await asked(f"purging {queue}", channel.queue_purge(queue))

    async def _fill(self, fact: GroupFact, start: Start) -> None:
        batch: list[Letter] = []
        async for record in self._log.records(fact.patterns, start):
            batch.append(self._letter(fact, record))
            if len(batch) >= _FILL:
                await self._postman.post_all(batch)
                batch.clear()
        await self._postman.post_all(batch)

    def _letter(self, fact: GroupFact, record: Record) -> Letter:
        names = self._topology.names
        message = record.message
        headers = own_headers(headers_of(message))
        if fact.lanes:
            exchange, queue = names.lanes(fact.name), ""
        else:
            exchange, queue = "", names.queue(fact.name)
        return Letter(queue, headers, content_type_of(message), message.body, exchange)

    async def _refuse_members(self, fact: GroupFact) -> None:
        members = await self.members(fact)
        if members:
            raise Conflict(f"the group {fact.name!r} has {members} members; stop them first", members=members)


def live_patterns(patterns: Sequence[str]) -> list[str]:
    """Those that can stand for ephemeral topics."""
    return [pattern for pattern in patterns if pattern.split(".")[0] in ("reply", "ephemeral", "*", "#")]
