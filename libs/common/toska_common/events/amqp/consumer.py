"""A live subscription: deliveries for as long as it is open, over any number of reconnections.

Each channel's deliveries are a `Session`. A group has one channel, with its queues of all priorities; an ordered group
has one for each lane, since only a channel that closes gives back what it had in order.
"""

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from datetime import datetime
from itertools import count
from typing import Any

import anyio
import structlog
from aiormq.abc import AbstractChannel

from toska_common.events.amqp.alone import Alone
from toska_common.events.amqp.delivery import AmqpDelivery
from toska_common.events.amqp.errors import Gone
from toska_common.events.amqp.facts import Facts
from toska_common.events.amqp.link import Link, closed
from toska_common.events.amqp.session import Session, Source
from toska_common.events.amqp.settling import Settling
from toska_common.events.amqp.sharing import EVERY_S, to_shed
from toska_common.events.errors import EventsUnavailable
from toska_common.events.transport import Subscription

log = structlog.get_logger(__name__)

Arrange = Callable[[AbstractChannel], Awaitable[list[Source]]]
"""Declares what is to be consumed on a channel, in the order in which consuming begins."""

_AGAIN_S = 0.2
_FIRST_S = 2.0


class AmqpConsumer:
    """Deliveries of one subscription.

    Args:
        channels: What each of its channels consumes.
    """

    def __init__(
        self,
        link: Link,
        subscription: Subscription,
        settling: Settling,
        facts: Facts,
        channels: list[Arrange],
        now: Callable[[], datetime],
        *,
        backlog: Alone | None = None,
        members: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        self._members = members
        self._sessions: list[Session] = []
        self._backlog = backlog
        self._link = link
        self._subscription = subscription
        self._settling = settling
        self._facts = facts
        self._channels = channels
        self._now = now
        self._ready: list[tuple[int, int, AmqpDelivery]] = []
        self._sequence = count()
        self._loop = asyncio.get_running_loop()
        self._came = asyncio.Event()
        self._taken = asyncio.Event()
        self._held = 0
        self._out = 0
        self._standing: set[Arrange] = set()
        self.stands = asyncio.Event()
        self.problem: EventsUnavailable | None = None

    def __aiter__(self) -> "AmqpConsumer":
        return self

    async def __anext__(self) -> AmqpDelivery:
        while True:
            while self._held or not self._ready or self._out >= self._subscription.prefetch:
                if self.problem is not None:
                    raise self.problem
                self._came.clear()
                await self._came.wait()
            rank, _, delivery = self._ready[0]
            wait_s = delivery.session.precedence.wait_s(rank, self._loop.time())
            if wait_s > 0:
                self._came.clear()
                with anyio.move_on_after(wait_s):
                    await self._came.wait()
                continue
            heapq.heappop(self._ready)
            if delivery.session.alive and (not delivery.session.shedding or delivery.attempt_is_local):
                self._out += 1
                self._taken.set()
                delivery.session.take(delivery)
                return delivery

    async def run(self) -> None:
        """Keep all channels, until cancelled."""
        async with anyio.create_task_group() as group:
            for arrange in self._channels:
                group.start_soon(self._keep, arrange)
            if self._members is not None:
                group.start_soon(self._share, self._members)

    async def _share(self, members: Callable[[], Awaitable[int]]) -> None:
        while True:
            await anyio.sleep(EVERY_S)
            try:
                count = await members()
            except (Gone, EventsUnavailable):
                continue
            for session in to_shed([one for one in self._sessions if one.of_lane], count):
                log.info("lane_shed", group=self._subscription.group, members=count)
                session.shed()

    async def _keep(self, arrange: Arrange) -> None:
        while True:
            try:
                async with self._link.channel() as channel:
                    sources = await arrange(channel)
                    await self._serve(channel, sources, arrange)
            except Gone as error:
                log.debug("subscription_channel_lost", group=self._subscription.group, reason=str(error))
            except EventsUnavailable as error:
                self.problem = error
                self.stands.set()
                self._came.set()
                return
            await anyio.sleep(_AGAIN_S)

    async def _serve(self, channel: AbstractChannel, sources: list[Source], arrange: Arrange) -> None:
        session = Session(
            channel,
            self._subscription,
            self._settling,
            self._facts,
            ready=self._take,
            freed=self._free,
            now=self._now,
            is_new=None if self._backlog is None else self._backlog.is_new,
        )
        holding = False
        self._sessions.append(session)
        try:
            if self._backlog is not None:
                # The queue is bound, so nothing is missed from here on; it is consumed once what came before was taken.
                self._stand(arrange)
                if self._backlog.has_gap:
                    self._subscription.on_gap()
                await self._catch_up(self._backlog, session, sources[0])
            self._held += 1
            holding = True
            for source in sources:
                await session.consume(source)
            self._stand(arrange)
            await self._first_of_each(session, sources)
            self._held -= 1
            holding = False
            self._came.set()
            await _first_of(closed(channel), session.ended.wait())
        finally:
            session.flush()
            session.end()
            self._sessions.remove(session)
            self._held -= holding
            if self._backlog is not None:
                self._backlog.lost()

    async def _first_of_each(self, session: Session, sources: list[Source]) -> None:
        # What waits in the queues of higher priority is on its way: nothing of a lower one is handed out before it.
        last = max((source.rank for source in sources), default=0)
        prefetch = self._subscription.prefetch
        expected = {source.queue: min(source.waiting, prefetch) for source in sources if source.rank < last}
        with anyio.move_on_after(_FIRST_S):
            await session.have_come(expected)

    def _stand(self, arrange: Arrange) -> None:
        self._standing.add(arrange)
        if len(self._standing) == len(self._channels):
            self.stands.set()

    async def _catch_up(self, backlog: Alone, session: Session, source: Source) -> None:
        async for record in backlog.missed():
            while len(self._ready) >= self._subscription.prefetch:
                self._taken.clear()
                await self._taken.wait()
            session.offer_of_log(source, record)

    def _take(self, delivery: AmqpDelivery) -> None:
        heapq.heappush(self._ready, (delivery.source.rank, next(self._sequence), delivery))
        self._came.set()

    def _free(self, number: int) -> None:
        self._out -= number
        self._came.set()


async def _first_of(*ways: Awaitable[Any]) -> None:
    async with anyio.create_task_group() as group:

        async def wait(way: Awaitable[Any]) -> None:
            await way
            group.cancel_scope.cancel()

        for way in ways:
            group.start_soon(wait, way)
