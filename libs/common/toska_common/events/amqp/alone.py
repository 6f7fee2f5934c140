"""Subscriptions without a group: an exclusive queue that is gone with its connection, and the log for what it missed.

The queue is bound first, then the log is read: from the subscription's start, or on another connection from a little
before the last one was lost. What both have is told apart by source and id.
"""

from collections import deque
from collections.abc import AsyncGenerator, Callable
from datetime import datetime, timedelta

from aiormq.abc import AbstractChannel

from toska_common.events.amqp.reading import Log, Record
from toska_common.events.amqp.session import Source
from toska_common.events.amqp.topology import Topology
from toska_common.events.event import Event
from toska_common.events.topics import is_ephemeral
from toska_common.events.transport import Start, Subscription

_REMEMBERED = 10_000
_OVERLAP = timedelta(seconds=60)
"""A connection may have been dead for some time before that was noticed, and clocks differ."""


class Alone:
    """What one subscription without a group has seen, and what it missed."""

    def __init__(self, topology: Topology, log: Log, subscription: Subscription, now: Callable[[], datetime]) -> None:
        self._topology = topology
        self._log = log
        self._subscription = subscription
        self._now = now
        self._order: deque[tuple[str, str]] = deque()
        self._seen: set[tuple[str, str]] = set()
        self._lost_at: datetime | None = None

    async def arrange(self, channel: AbstractChannel) -> list[Source]:
        """A queue for events from now on."""
        queue = await self._topology.declare_alone(channel, self._subscription.patterns)
        return [Source(queue, stays=True, buries=False)]

    def is_new(self, event: Event) -> bool:
        """Whether it was not seen yet; from now on it was."""
        identity = (event.source, event.id)
        if identity in self._seen:
            return False
        self._seen.add(identity)
        self._order.append(identity)
        if len(self._order) > _REMEMBERED:
            self._seen.discard(self._order.popleft())
        return True

    @property
    def has_gap(self) -> bool:
        """Whether events were missed that no log can tell of."""
        return self._lost_at is not None and not self._log.kept

    def lost(self) -> None:
        """The queue is gone."""
        self._lost_at = self._now()

    async def missed(self) -> AsyncGenerator[Record]:
        """What the queue did not get, and was not seen."""
        start = self._subscription.start
        if self._lost_at is not None:
            start = Start(time=self._lost_at - _OVERLAP)
        if start.is_now or not self._log.kept:
            return
        patterns = [pattern for pattern in self._subscription.patterns if not is_ephemeral(pattern)]
        async for record in self._log.records(patterns, start):
            if self.is_new(record.event):
                yield record
