"""Events over RabbitMQ: `Transport` on AMQP 0-9-1, for RabbitMQ 3.10 and later.

Two connections: RabbitMQ stops reading from one that publishes while it is short of memory or disk, and acks of what
was consumed must still come through. Closing leaves nothing behind but what is durable.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from functools import partial

import anyio
from aiormq.abc import AbstractChannel
from anyio.abc import TaskGroup

from toska_common.clock import Clock, SystemClock
from toska_common.errors import InvalidInput
from toska_common.events.amqp.administration import AmqpAdministration
from toska_common.events.amqp.alone import Alone
from toska_common.events.amqp.catalog import Catalog
from toska_common.events.amqp.consumer import AmqpConsumer, Arrange
from toska_common.events.amqp.dead_letters import DeadLetters
from toska_common.events.amqp.envelope import milliseconds, seal
from toska_common.events.amqp.errors import Gone
from toska_common.events.amqp.facts import GroupFact
from toska_common.events.amqp.groups import Groups, live_patterns
from toska_common.events.amqp.link import Link
from toska_common.events.amqp.locks import Locks
from toska_common.events.amqp.names import Names
from toska_common.events.amqp.options import AmqpOptions, parse_url
from toska_common.events.amqp.posting import Postman
from toska_common.events.amqp.publisher import Post, Publisher
from toska_common.events.amqp.reading import Log
from toska_common.events.amqp.schedule import Schedule
from toska_common.events.amqp.session import Source
from toska_common.events.amqp.settling import Settling
from toska_common.events.amqp.topology import Topology
from toska_common.events.background import background
from toska_common.events.errors import EventsUnavailable, EventTooLarge
from toska_common.events.topics import check_group, check_pattern, check_topic, is_ephemeral
from toska_common.events.transport import Administration, Consumer, Message, Start, Stored, Subscription

MAX_ATTRIBUTES = 64 << 10
"""Bytes of all attributes of an event, as they are sent; a frame of AMQP holds them all."""

_START_S = 30.0


@asynccontextmanager
async def open_amqp(url: str, *, service: str = "toska", clock: Clock | None = None) -> AsyncGenerator["AmqpTransport"]:
    """Connect to RabbitMQ, and stay connected until the block ends.

    Args:
        service: Who this is, in RabbitMQ's list of connections.

    Raises:
        ConfigurationError: The URL is wrong, or a file that it names.
        EventsUnavailable: No node can be reached, or it is not what this version can use.
    """
    options = parse_url(url)
    if any(node.tls for node in options.nodes):
        options.tls.context()  # to refuse files that are of no use before anything is open
    async with background() as tasks:
        transport = AmqpTransport(options, service, clock or SystemClock(), tasks)
        try:
            await transport.start()
            yield transport
        finally:
            await transport.stop()


class AmqpTransport:
    """RabbitMQ as a transport of events."""

    durable = True

    def __init__(self, options: AmqpOptions, service: str, clock: Clock, tasks: TaskGroup) -> None:
        self._options = options
        self._tasks = tasks
        self._now: Callable[[], datetime] = clock.now
        self._sending, self._receiving = Link(options, f"{service} sending"), Link(options, f"{service} receiving")
        names = Names(options)
        self._topology = Topology(names, log=options.log)
        self._publisher = Publisher(
            self._sending, self._topology, window=options.window, window_bytes=options.window_bytes
        )
        self._postman = Postman(self._sending)
        self._catalog = Catalog(self._receiving, self._sending, names)
        self._schedule = Schedule(self._sending, self._topology)
        self._log = Log(self._receiving, names, self._catalog, clock.now, kept=options.log)
        locks = Locks(self._receiving, names)
        self._groups = Groups(self._receiving, locks, self._topology, self._catalog, self._log, self._postman)
        dead_letters = DeadLetters(self._receiving, locks, self._topology, self._postman, clock.now)
        self._administration = AmqpAdministration(
            options, self._receiving, self._catalog, self._groups, dead_letters, clock.now
        )

    async def start(self) -> None:
        """Connect, and learn what there is.

        Raises:
            EventsUnavailable: That failed.
        """
        for run in (self._sending.run, self._receiving.run, self._publisher.run):
            self._tasks.start_soon(run)
        await self._sending.first()
        await self._receiving.first()
        try:
            with anyio.fail_after(_START_S):
                await self._publisher.ready()
                self._tasks.start_soon(self._catalog.run)
                await self._catalog.current()
        except TimeoutError as error:
            raise EventsUnavailable(f"RabbitMQ did not get ready within {_START_S:g} s") from error

    async def stop(self) -> None:
        """Say goodbye to RabbitMQ."""
        with anyio.move_on_after(2, shield=True):
            await self._postman.close()

    @property
    def connected(self) -> bool:
        """Whether it is there now."""
        return self._sending.up and self._receiving.up

    @property
    def administration(self) -> Administration:
        """For operators."""
        return self._administration

    async def publish(self, messages: Sequence[Message]) -> None:
        """Store events; returns when RabbitMQ has confirmed each.

        Raises:
            EventsUnavailable: They were not confirmed in time; each of them may or may not have been published.
            EventTooLarge, EventRefused, InvalidInput: One cannot be; none was.
        """
        within = self._options.confirm_within.total_seconds()
        try:
            with anyio.fail_after(within):
                posts = await self._posts(messages)
                await self._publisher.publish(posts)
        except TimeoutError as error:
            why = self._sending.problem
            reason = "it may be short of memory or disk" if why is None else why.detail
            raise EventsUnavailable(f"RabbitMQ did not confirm within {within:g} s: {reason}") from error
        except Gone as error:
            raise EventsUnavailable(f"RabbitMQ went away: {error}") from error

    @asynccontextmanager
    async def _subscribe(self, subscription: Subscription) -> AsyncGenerator[Consumer]:
        for pattern in subscription.patterns:
            check_pattern(pattern)
        if not subscription.patterns:
            raise InvalidInput("a subscription has a topic", problems=[{"field": "topic", "reason": "is missing"}])
        async with background() as tasks:
            settling = Settling(
                subscription.group, self._receiving, self._postman, self._topology, self._catalog, tasks, self._now
            )
            consumer = await self._make_consumer(subscription, settling)
            tasks.start_soon(consumer.run)
            await consumer.stands.wait()
            if consumer.problem is not None:
                raise consumer.problem
            yield consumer

    async def _make_consumer(self, subscription: Subscription, settling: Settling) -> AmqpConsumer:
        alone: Alone | None = None
        members: Callable[[], Awaitable[int]] | None = None
        if subscription.group is None:
            alone = Alone(self._topology, self._log, subscription, self._now)
            channels: list[Arrange] = [alone.arrange]
        else:
            check_group(subscription.group)
            try:
                fact = await self._groups.join(subscription)
            except Gone as error:
                raise EventsUnavailable(f"RabbitMQ went away: {error}") from error
            channels = self._channels(fact, subscription)
            members = partial(self._groups.members, fact) if fact.lanes > 1 else None
        return AmqpConsumer(
            self._receiving,
            subscription,
            settling,
            self._catalog.facts,
            channels,
            self._now,
            backlog=alone,
            members=members,
        )

    def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[Consumer]:
        """Open a subscription."""
        return self._subscribe(subscription)

    async def read(self, patterns: Sequence[str], start: Start, *, limit: int | None = None) -> AsyncGenerator[Stored]:
        """What is kept, from `start` up to what is there when reading begins, by offset."""
        try:
            async for stored in self._log.read(patterns, start, limit=limit):
                yield stored
        except Gone as error:
            raise EventsUnavailable(f"RabbitMQ went away while the log was read: {error}") from error

    def _channels(self, fact: GroupFact, subscription: Subscription) -> list[Arrange]:
        channels = [self._levels(fact)]
        if fact.lanes:
            channels = [self._presence(fact), *(self._lane(fact, number) for number in range(fact.lanes))]
        live = live_patterns(subscription.patterns)
        if live:

            async def arrange(channel: AbstractChannel) -> list[Source]:
                queue = await self._topology.declare_live(channel, fact.name, live)
                return [Source(queue, stays=True, buries=False)]

            channels.append(arrange)
        return channels

    def _levels(self, fact: GroupFact) -> Arrange:
        async def arrange(_: AbstractChannel) -> list[Source]:
            queues = await self._groups.declare(self._catalog.facts.group(fact.name) or fact)
            waiting = await self._groups.counts(queues[:-1])
            return [Source(queue, rank, waiting=waiting.get(queue, (0, 0))[0]) for rank, queue in enumerate(queues)]

        return arrange

    def _presence(self, fact: GroupFact) -> Arrange:
        async def arrange(channel: AbstractChannel) -> list[Source]:
            return [Source(await self._topology.declare_members(channel, fact.name), stays=True, buries=False)]

        return arrange

    def _lane(self, fact: GroupFact, number: int) -> Arrange:
        async def arrange(_: AbstractChannel) -> list[Source]:
            if number == 0:
                await self._groups.declare(self._catalog.facts.group(fact.name) or fact)
            return [Source(self._topology.names.lane(fact.name, number), stays=True)]

        return arrange

    async def _posts(self, messages: Sequence[Message]) -> list[Post]:
        now = self._now()
        at = milliseconds(now)
        posts: list[Post] = []
        topics = self._catalog.facts.topics
        for message in messages:
            event = message.event
            topic = event.topic
            expires_at = message.expires_at
            if is_ephemeral(topic):
                check_topic(topic)
                posts.append(self._post(message, at, self._topology.names.ephemeral, expires_at, persistent=False))
                continue
            fact = topics.get(topic)
            if fact is None or not fact.here:
                check_topic(topic)
                fact = await self._catalog.know_topic(topic)
            if expires_at is None and fact.settings.time_to_live is not None:
                expires_at = (message.deliver_at or now) + fact.settings.time_to_live
            if expires_at is not None and expires_at <= now:
                continue
            if message.deliver_at is not None and message.deliver_at > now:
                wait_ms = milliseconds(message.deliver_at) - at + 1
                post = self._post(message, at + wait_ms, "", expires_at)
                posts.append(await self._schedule.post(topic, post.envelope, wait_ms, message.priority))
            else:
                posts.append(self._post(message, at, self._topology.names.events[message.priority], expires_at))
        return posts

    def _post(
        self, message: Message, at: int, exchange: str, expires_at: datetime | None, *, persistent: bool = True
    ) -> Post:
        event = message.event
        expires = None if expires_at is None else milliseconds(expires_at)
        envelope = seal(event, at, expires)
        if envelope.size > self._options.max_bytes:
            raise EventTooLarge(
                f"{event.topic} has {envelope.size} bytes with its attributes; {self._options.max_bytes} are allowed",
                max_bytes=self._options.max_bytes,
            )
        if len(envelope.table) > MAX_ATTRIBUTES:
            reason = f"have {len(envelope.table)} bytes; {MAX_ATTRIBUTES} are allowed"
            raise InvalidInput(f"the attributes of {event.topic} {reason}", problems=[{"field": "", "reason": reason}])
        expiration = None if expires is None else max(0, expires - at)
        return Post(exchange, event.topic, envelope, persistent, message.priority, expiration)
