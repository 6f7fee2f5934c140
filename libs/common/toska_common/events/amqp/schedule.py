"""Events for later: each level of the schedule holds for 2^n units, and a header for each says which of them do.

A level's exchange gives those that have its header to its queue, and all others straight to the level below; from a
queue they go there when their time is up. So any moment within 155 days takes 27 queues, none of which has an event
waiting behind one that waits longer, and no process has to be there.

Level 0 gives its events on as ones of normal priority. One of another priority is never held by it (so it waits for a
multiple of 200 ms), and says in a header to which priority's exchange level 0 has to hand it at once.
"""

import anyio

from toska_common.events.amqp.envelope import Envelope
from toska_common.events.amqp.link import Link
from toska_common.events.amqp.names import SCHEDULE_LEVELS, SCHEDULE_UNIT_MS, levels_of
from toska_common.events.amqp.publisher import Post
from toska_common.events.amqp.topology import Topology, level_header, priority_header
from toska_common.events.errors import EventRefused
from toska_common.events.transport import Priority


class Schedule:
    """Where events wait for their time."""

    def __init__(self, link: Link, topology: Topology) -> None:
        self._link = link
        self._topology = topology
        self._declared: set[int] = set()
        self._declaring = anyio.Lock()

    async def post(self, topic: str, envelope: Envelope, wait_ms: int, priority: Priority) -> Post:
        """How to send an event so that it is delivered no earlier than `wait_ms` from now.

        Raises:
            EventRefused: That is too far off.
            Gone: The connection went away.
        """
        levels = levels_of(wait_ms, least=0 if priority is Priority.NORMAL else 1)
        if levels is None:
            days = (SCHEDULE_UNIT_MS << SCHEDULE_LEVELS) // 86_400_000
            raise EventRefused(f"RabbitMQ can hold an event for {days} days at most; publish it nearer its time")
        await self._declare(levels)
        marks = b"".join(_mark(level_header(level)) for level in levels)
        if priority is not Priority.NORMAL:
            marks += _mark(priority_header(priority))
        marked = envelope._replace(table=envelope.table + marks)
        return Post(self._topology.names.level(levels[-1]), topic, marked, priority=priority)

    async def _declare(self, levels: list[int]) -> None:
        if self._declared.issuperset(levels):
            return
        async with self._declaring, self._link.channel() as channel:
            if not self._declared:
                await self._topology.declare_schedule(channel)
            for level in levels:
                if level not in self._declared:
                    await self._topology.declare_level(channel, level)
                    self._declared.add(level)


def _mark(header: str) -> bytes:
    name = header.encode()
    return bytes((len(name),)) + name + b"t\1"
