"""Declaring what a namespace consists of. All of it is durable, and declared again on every connection.

    publishers ──▶ NS.events:high ─┐                      ┌─▶ NS.group.G, NS.group.G:high, NS.group.G:low
                   NS.events      ─┼─ topic ─▶ bindings ──┼─▶ NS.group.H:lanes ─▶ NS.group.H:lane-0 … (ordered)
                   NS.events:low  ─┘                      ├─▶ NS.log (stream)
                                                          └─▶ exclusive queues of those without a group
                   NS.ephemeral   ── topic ─▶ exclusive queues, NS.group.G:live
                   NS.schedule:26 ─▶ … ─▶ NS.schedule:0 ─▶ NS.events, or that of its priority
    NS.group.G  ── delivery limit ─▶ NS.dead ─▶ NS.group.G:dead

An event that nobody wants goes by NS.unwanted to a queue that holds one: what waits in the schedule is given on at
least once, and would stay there for ever without anybody to take it. That queue is replicated like all others that are
declared before anything is published: a classic one stands on one node, and nobody could publish while that is away.
"""

from aiormq.abc import AbstractChannel
from pamqp.common import FieldValue

from toska_common.events.amqp.envelope import EXPIRES, SLOT
from toska_common.events.amqp.errors import asked
from toska_common.events.amqp.names import SCHEDULE_LEVELS, Arguments, Names, lane_slots
from toska_common.events.transport import Priority

_WAITING_FOR = 30.0


class Topology:
    """Declares exchanges and queues by their names."""

    def __init__(self, names: Names, *, log: bool) -> None:
        self.names = names
        self._log = log

    async def declare(self, channel: AbstractChannel) -> None:
        """What publishers need."""
        names = self.names
        await self._exchange(channel, names.unwanted, "fanout")
        await self._queue(channel, names.last_unwanted, names.unwanted_arguments())
        await self._bind(channel, names.last_unwanted, names.unwanted, "")
        await self._exchange(channel, names.ephemeral, "topic")
        for name in names.events.values():
            await self._exchange(channel, name, "topic", {"alternate-exchange": names.unwanted})
        if self._log:
            await self._queue(channel, names.log, names.log_arguments())
            for name in names.events.values():
                await self._bind(channel, names.log, name, "#")
        await self._queue(channel, names.catalog, names.catalog_arguments())
        await self._declare_graves(channel)

    async def _declare_graves(self, channel: AbstractChannel) -> None:
        # What expired in a group's queue is buried as well, and must not be kept: those that can expire say so in a
        # header. Headers that begin with x- are not looked at, so RabbitMQ's own reason cannot be asked for.
        names = self.names
        await self._exchange(channel, names.expired, "fanout")
        direct = f"{names.dead_letters}:kept"
        await self._exchange(channel, direct, "direct")
        await self._exchange(channel, names.dead_letters, "headers", {"alternate-exchange": direct})
        await asked(
            f"binding {names.expired}",
            channel.exchange_bind(
                destination=names.expired,
                source=names.dead_letters,
                arguments={"x-match": "all", EXPIRES: None},
                timeout=_WAITING_FOR,
            ),
        )

    async def declare_group(self, channel: AbstractChannel, group: str, lanes: int) -> list[str]:
        """A group's queues, without bindings to events; `lanes` of them if it is ordered, else 0."""
        names = self.names
        await self._queue(channel, names.dead(group), names.dead_arguments())
        await self._bind(channel, names.dead(group), f"{names.dead_letters}:kept", group)
        if not lanes:
            queues = [names.queue(group, priority) for priority in sorted(Priority, reverse=True)]
            for queue in queues:
                await self._queue(channel, queue, names.work_arguments(group))
            return queues
        queues = [names.lane(group, number) for number in range(lanes)]
        await self._exchange(channel, names.keyless(group), "fanout")
        await self._exchange(channel, names.lanes(group), "headers", {"alternate-exchange": names.keyless(group)})
        for queue in queues:
            await self._queue(channel, queue, names.work_arguments(group, lane=True))
        for number, slots in lane_slots(lanes).items():
            for slot in slots:
                # Nobody waits for each of so many: what is asked next on the channel comes after all of them.
                arguments: dict[str, FieldValue] = {"x-match": "all", SLOT: slot}
                binding = channel.queue_bind(queues[number], names.lanes(group), nowait=True, arguments=arguments)
                await asked(f"binding {queues[number]}", binding)
        await self._bind(channel, queues[0], names.keyless(group), "")
        return queues

    async def bind_group(self, channel: AbstractChannel, group: str, lanes: int, pattern: str, *, undo: bool) -> None:
        """Have a group get what the pattern stands for, or no more."""
        names = self.names
        for priority, exchange in names.events.items():
            if lanes:
                change = channel.exchange_unbind if undo else channel.exchange_bind
                destination = names.lanes(group)
                await asked(
                    f"binding {destination}",
                    change(destination=destination, source=exchange, routing_key=pattern, timeout=_WAITING_FOR),
                )
            elif undo:
                queue = names.queue(group, priority)
                await asked(f"unbinding {queue}", channel.queue_unbind(queue, exchange, pattern))
            else:
                await self._bind(channel, names.queue(group, priority), exchange, pattern)

    async def declare_live(self, channel: AbstractChannel, group: str, patterns: list[str]) -> str:
        """The queue of a group's ephemeral events; it is gone with the last member."""
        queue = self.names.live(group)
        await asked(
            f"declaring the queue {queue}", channel.queue_declare(queue, auto_delete=True, timeout=_WAITING_FOR)
        )
        for pattern in patterns:
            await self._bind(channel, queue, self.names.ephemeral, pattern)
        return queue

    async def declare_members(self, channel: AbstractChannel, group: str) -> str:
        """The queue by which an ordered group's members are counted: of a lane RabbitMQ counts the active one alone."""
        queue = self.names.members(group)
        await asked(
            f"declaring the queue {queue}", channel.queue_declare(queue, auto_delete=True, timeout=_WAITING_FOR)
        )
        return queue

    async def declare_alone(self, channel: AbstractChannel, patterns: tuple[str, ...]) -> str:
        """A queue of somebody without a group; its name is RabbitMQ's."""
        declared = await asked(
            "declaring an exclusive queue",
            channel.queue_declare(
                "", exclusive=True, auto_delete=True, arguments={"x-max-priority": 2}, timeout=_WAITING_FOR
            ),
        )
        queue = declared.queue or ""  # AMQP takes no name for that of the channel's last one
        for pattern in patterns:
            for exchange in (*self.names.events.values(), self.names.ephemeral):
                await self._bind(channel, queue, exchange, pattern)
        return queue

    async def declare_retry(self, channel: AbstractChannel, queue: str, wait_ms: int) -> str:
        """Where retries of a queue wait so long; declaring it again keeps it from expiring."""
        name = self.names.retry(queue, wait_ms)
        await self._queue(channel, name, self.names.retry_arguments(queue, wait_ms))
        return name

    async def declare_schedule(self, channel: AbstractChannel) -> None:
        """The exchanges of all levels: each gives what has no business with its level on to the next."""
        for level in range(SCHEDULE_LEVELS):
            below = self.names.below(level)
            await self._exchange(channel, self.names.level(level), "headers", {"alternate-exchange": below})
        for priority, exchange in self.names.events.items():
            if priority is not Priority.NORMAL:  # which is what level 0 gives everything on as
                await asked(
                    f"binding {exchange}",
                    channel.exchange_bind(
                        destination=exchange,
                        source=self.names.level(0),
                        arguments={"x-match": "all", priority_header(priority): True},
                        timeout=_WAITING_FOR,
                    ),
                )

    async def declare_level(self, channel: AbstractChannel, level: int) -> None:
        """The queue of one level."""
        name = self.names.level(level)
        await self._queue(channel, name, self.names.level_arguments(level))
        await self._bind(channel, name, name, "", {"x-match": "all", level_header(level): True})

    async def _queue(self, channel: AbstractChannel, name: str, arguments: Arguments) -> None:
        await asked(
            f"declaring the queue {name}",
            channel.queue_declare(name, durable=True, arguments=dict(arguments), timeout=_WAITING_FOR),
        )

    async def _exchange(
        self, channel: AbstractChannel, name: str, kind: str, arguments: Arguments | None = None
    ) -> None:
        await asked(
            f"declaring the exchange {name}",
            channel.exchange_declare(
                exchange=name, exchange_type=kind, durable=True, arguments=dict(arguments or {}), timeout=_WAITING_FOR
            ),
        )

    async def _bind(
        self, channel: AbstractChannel, queue: str, exchange: str, key: str, arguments: Arguments | None = None
    ) -> None:
        await asked(
            f"binding {queue}",
            channel.queue_bind(queue, exchange, key, arguments=dict(arguments or {}), timeout=_WAITING_FOR),
        )


def level_header(level: int) -> str:
    """The header by which an event asks to be held by a level."""
    return f"toska-wait-{level}"


def priority_header(priority: Priority) -> str:
    """The header by which an event asks to leave the schedule with a priority that is not the normal one."""
    return f"toska-then-{priority.name.lower()}"
