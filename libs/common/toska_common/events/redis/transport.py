"""Events over Redis pub/sub: whoever listens gets them, and nobody else ever will.

It is for what is stale a moment later anyway. Nothing is kept: an event that is published while a subscriber's
connection is down, or while it is too slow, is gone, and `publish` returns without knowing whether anybody listened.
What would need keeping is refused: groups, order, schedules, reading again.

Each topic is a channel `NAMESPACE:TOPIC`, each message a CloudEvent in the JSON format.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import anyio
import structlog
from redis import asyncio as redis_client
from redis.exceptions import AuthenticationError, RedisError

from toska_common.clock import Clock, SystemClock
from toska_common.errors import ConfigurationError, InvalidInput
from toska_common.events.background import background
from toska_common.events.cloudevents import from_structured, to_structured
from toska_common.events.errors import EventRefused, EventsUnavailable, EventTooLarge, UnknownDeadLetter, UnknownGroup
from toska_common.events.event import Event
from toska_common.events.redis.globs import Wanted, channel_of
from toska_common.events.topics import check_pattern, check_topic
from toska_common.events.transport import (
    DEFAULT_MAX_BYTES,
    Administration,
    Consumer,
    DeadLetter,
    GroupState,
    Message,
    Start,
    Stored,
    Subscription,
    TopicSettings,
    TopicState,
)

log = structlog.get_logger(__name__)

WAITING = 10_000
"""Most events that wait in a subscriber; the oldest are dropped."""

_AGAIN_S = (0.1, 5.0)
_WITHIN_S = 5.0


@asynccontextmanager
async def open_redis(url: str, *, clock: Clock | None = None) -> AsyncGenerator["RedisTransport"]:
    """Connect to a Redis, and stay connected until the block ends.

    Raises:
        ConfigurationError: The URL is wrong.
        EventsUnavailable: It cannot be reached, or does not let us in.
    """
    plain, namespace = _read_url(url)
    client: Any = redis_client.Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
        plain, socket_timeout=_WITHIN_S, socket_connect_timeout=_WITHIN_S, health_check_interval=15
    )
    async with background() as tasks:
        transport = RedisTransport(client, namespace, clock or SystemClock())
        try:
            await transport.ping()
            tasks.start_soon(transport.watch)
            yield transport
        finally:
            with anyio.move_on_after(2, shield=True):
                await client.aclose()


class RedisTransport:
    """Redis pub/sub as a transport of events."""

    durable = False

    def __init__(self, client: Any, namespace: str, clock: Clock) -> None:
        self._client = client
        self._namespace = namespace
        self._now: Callable[[], datetime] = clock.now
        self._administration = RedisAdministration()
        self.connected = False

    @property
    def administration(self) -> Administration:
        """For operators, who find nothing: nothing is kept."""
        return self._administration

    async def ping(self) -> None:
        """Ask whether it is there.

        Raises:
            EventsUnavailable: It is not.
        """
        try:
            await self._client.ping()
        except AuthenticationError as error:
            self.connected = False
            raise EventsUnavailable("Redis refuses these credentials") from error
        except (RedisError, OSError) as error:
            self.connected = False
            raise EventsUnavailable(f"Redis cannot be reached: {type(error).__name__}") from error
        self.connected = True

    async def watch(self) -> None:
        """Keep `connected` right."""
        while True:
            await anyio.sleep(1)
            try:
                await self.ping()
            except EventsUnavailable as error:
                log.debug("redis_away", reason=error.detail)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Hand events to Redis, in one go.

        Raises:
            EventsUnavailable: It did not take them; some may have been published.
            EventTooLarge, EventRefused: One cannot be published this way; none was.
        """
        now = self._now()
        found = [(message.event, self._write(message)) for message in messages if not _expired(message, now)]
        if not found:
            return
        pipeline = self._client.pipeline(transaction=False)
        for event, body in found:
            pipeline.publish(channel_of(self._namespace, event.topic), body)
        try:
            await pipeline.execute()
        except (RedisError, OSError) as error:
            self.connected = False
            raise EventsUnavailable(f"Redis did not take the events: {type(error).__name__}") from error

    def _write(self, message: Message) -> bytes:
        event = message.event
        check_topic(event.topic)
        if message.deliver_at is not None and message.deliver_at > self._now():
            raise EventRefused("Redis keeps nothing, so an event cannot be scheduled over it")
        if len(event.data) > DEFAULT_MAX_BYTES:
            raise EventTooLarge(
                f"the data of {event.topic} have {len(event.data)} bytes; {DEFAULT_MAX_BYTES} are allowed",
                max_bytes=DEFAULT_MAX_BYTES,
            )
        return to_structured(event)

    def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[Consumer]:
        """Open a subscription.

        Raises:
            InvalidInput: It asks for what needs keeping.
        """
        for pattern in subscription.patterns:
            check_pattern(pattern)
        asked = {
            "group": subscription.group is not None,
            "ordered": subscription.ordered,
            "start": not subscription.start.is_now,
        }
        for field, given in asked.items():
            if given:
                raise _refused(field)
        return self._subscribe(subscription)

    @asynccontextmanager
    async def _subscribe(self, subscription: Subscription) -> AsyncGenerator[Consumer]:
        consumer = RedisConsumer(self._client, Wanted(self._namespace, subscription.patterns), subscription, self._now)
        async with background() as tasks:
            tasks.start_soon(consumer.run)
            with anyio.move_on_after(_WITHIN_S):
                await consumer.stands.wait()
            if not consumer.stands.is_set():
                raise EventsUnavailable("Redis did not answer a subscription")
            yield consumer

    async def read(self, patterns: Sequence[str], start: Start, *, limit: int | None = None) -> AsyncGenerator[Stored]:
        """Refused.

        Raises:
            InvalidInput: Always.
        """
        raise _refused("start")
        yield  # so that this is a generator, as the contract has it


class RedisConsumer:
    """What comes, for as long as it is open; what came while the connection was down is lost."""

    def __init__(self, client: Any, wanted: Wanted, subscription: Subscription, now: Callable[[], datetime]) -> None:
        self._client = client
        self._wanted = wanted
        self._subscription = subscription
        self._now = now
        self._ready: deque[RedisDelivery] = deque()
        self._came = asyncio.Event()
        self._out = 0
        self.dropped = 0
        self.stands = anyio.Event()
        self._lost = False

    def __aiter__(self) -> "RedisConsumer":
        return self

    async def __anext__(self) -> "RedisDelivery":
        while not self._ready or self._out >= self._subscription.prefetch:
            self._came.clear()
            await self._came.wait()
        self._out += 1
        return self._ready.popleft()

    async def run(self) -> None:
        """Stay subscribed, until cancelled."""
        wait_s = _AGAIN_S[0]
        while True:
            try:
                async with self._client.pubsub() as pubsub:
                    await self._listen(pubsub)
            except (RedisError, OSError) as error:
                # Once an outage, however often it is tried meanwhile.
                level = logging.DEBUG if self._lost else logging.WARNING
                log.log(level, "redis_subscription_lost", reason=type(error).__name__)
            self._lost = True
            await anyio.sleep(wait_s)
            wait_s = min(_AGAIN_S[1], wait_s * 2) if not self.stands.is_set() else _AGAIN_S[0]

    def again(self, delivery: "RedisDelivery") -> None:
        """Hand one out once more."""
        self._ready.append(delivery)
        self._came.set()

    def free(self) -> None:
        """One is in nobody's hands any more."""
        self._out -= 1
        self._came.set()

    async def _listen(self, pubsub: Any) -> None:
        if self._wanted.channels:
            await pubsub.subscribe(*self._wanted.channels)
        if self._wanted.globs:
            await pubsub.psubscribe(*self._wanted.globs)
        expected = len(self._wanted.channels) + len(self._wanted.globs)
        while True:
            # Its timeout makes the client ask whether the connection still stands.
            message = await pubsub.get_message(timeout=5.0)
            if message is None:
                continue
            if message["type"] in ("subscribe", "psubscribe"):
                expected -= 1
                if not expected:
                    self._stand()
            else:
                self._take(message)

    def _stand(self) -> None:
        if self.stands.is_set():
            self._subscription.on_gap()
        self._lost = False
        self.stands.set()

    def _take(self, message: dict[str, Any]) -> None:
        channel: str = message["channel"].decode()
        pattern: bytes | None = message["pattern"]
        if not self._wanted.takes(channel, None if pattern is None else pattern.decode()):
            return
        try:
            event = from_structured(message["data"], now=self._now())
        except InvalidInput as error:
            log.warning("event_unreadable", channel=channel, reason=error.detail)
            return
        if not self._subscription.wants(event):
            return
        if len(self._ready) >= WAITING:
            self._ready.popleft()
            self.dropped += 1
            if self.dropped % 1000 == 1:
                log.warning("events_dropped", reason="the subscriber is too slow", dropped=self.dropped)
        self._ready.append(RedisDelivery(event, self))
        self._came.set()


class RedisDelivery:
    """An event in the hands of a handler; retries wait in this process, and are gone with it."""

    __slots__ = ("_consumer", "_settled", "attempt", "event", "offset")

    def __init__(self, event: Event, consumer: RedisConsumer) -> None:
        self._consumer = consumer
        self._settled = False
        self.event = event
        self.attempt = 1
        self.offset: int | None = None

    async def ack(self) -> None:
        """It was handled."""
        self._settle()

    async def retry(self, after: timedelta, reason: str) -> None:
        """Hand it out again."""
        if self._settle():
            asyncio.get_running_loop().call_later(after.total_seconds(), self._again)

    async def reject(self, reason: str) -> None:
        """Drop it: there are no dead letters."""
        if self._settle():
            log.warning("event_dropped", topic=self.event.topic, event_id=self.event.id, reason=reason)

    def _settle(self) -> bool:
        if self._settled:
            return False
        self._settled = True
        self._consumer.free()
        return True

    def _again(self) -> None:
        self._settled = False
        self.attempt += 1
        self._consumer.again(self)


class RedisAdministration:
    """There is nothing to administer, and it says so."""

    async def topics(self) -> list[TopicState]:
        return []

    async def put_topic(self, settings: TopicSettings) -> None:
        raise EventRefused("Redis keeps nothing, so a topic cannot be set up")

    async def delete_topic(self, name: str) -> None:
        raise EventRefused("Redis keeps nothing, so there is no topic to delete")

    async def groups(self) -> list[GroupState]:
        return []

    async def delete_group(self, name: str) -> None:
        raise UnknownGroup("Redis pub/sub has no groups")

    async def seek(self, group: str, start: Start) -> None:
        raise UnknownGroup("Redis pub/sub has no groups")

    async def dead_letters(self, group: str | None = None, *, limit: int = 100, after: str = "") -> list[DeadLetter]:
        return []

    async def dead_letter(self, id: str) -> DeadLetter:  # noqa: A002 - what it is called
        raise UnknownDeadLetter("Redis pub/sub has no dead letters")

    async def redrive(self, ids: Sequence[str]) -> int:
        return 0

    async def purge(self, ids: Sequence[str]) -> int:
        return 0


def _expired(message: Message, now: datetime) -> bool:
    return message.expires_at is not None and message.expires_at <= now


def _refused(field: str) -> InvalidInput:
    reason = "Redis pub/sub keeps nothing; use RabbitMQ or the embedded log for this"
    return InvalidInput(f"{field}: {reason}", problems=[{"field": field, "reason": reason}])


def _read_url(url: str) -> tuple[str, str]:
    try:
        split = urlsplit(url)
        query = dict(parse_qsl(split.query))
        host, _ = split.hostname, split.port  # the latter raises if it is no number
    except ValueError as error:
        raise ConfigurationError("the URL of Redis cannot be read") from error
    if split.scheme not in ("redis", "rediss") or not host:
        raise ConfigurationError("the URL of Redis is redis://HOST or rediss://HOST, with a port if it is not 6379")
    namespace = query.pop("namespace", "toska")
    if query:
        raise ConfigurationError(f"the URL of Redis has no parameter {min(query)[:40]!r}; it may have namespace")
    return urlunsplit(split._replace(query="")), namespace
