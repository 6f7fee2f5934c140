"""The half of a bus that publishes: it makes events of a service, encodes them, and has the broker confirm them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import anyio

from toska_common import trace
from toska_common.clock import Clock
from toska_common.contracts.names import RESERVED_PREFIX
from toska_common.events.codecs import Codec
from toska_common.events.connection import Connection
from toska_common.events.errors import EventRefused, EventsUnavailable, EventTooLarge
from toska_common.events.event import Event, check_attributes, encode_json, new_id
from toska_common.events.metrics import EventMetrics
from toska_common.events.offering import Offers
from toska_common.events.payload import EventPayload
from toska_common.events.topics import check_topic, is_reserved
from toska_common.events.transport import Message, Priority

WITHIN = timedelta(seconds=5)
"""Longest wait for the broker, where nothing else is said."""

BeforePublishing = Callable[[Sequence[type[EventPayload]]], Awaitable[bool]]


class EventPublisher:
    """Publishes events of one service; the arguments are those of `EventBus`, which is one."""

    def __init__(
        self,
        service: str,
        connection: Connection,
        *,
        publishes: Sequence[type[EventPayload]],
        codec: Codec,
        max_bytes: int,
        clock: Clock,
        metrics: EventMetrics,
        before_publishing: BeforePublishing | None,
    ) -> None:
        self.service = service
        self.publishes = publishes
        self._connection = connection
        self._codec = codec
        self._max_bytes = max_bytes
        self._clock = clock
        self._metrics = metrics
        for payload_type in publishes:
            metrics.know(payload_type.event_topic)
        self._before_publishing = before_publishing
        self._checking = anyio.Lock()
        self._offers = Offers(self.publish_batch, metrics)

    def event(
        self,
        payload: EventPayload | str,
        data: Any = None,
        *,
        key: str | None = None,
        subject: str | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> Event:
        """An event of this service that happens now: of a payload, or of a topic and JSON data.

        Raises:
            InvalidInput: The topic, or an attribute, is wrong, or the data are no JSON.
        """
        extensions = dict(attributes or {})
        check_attributes(extensions, subject=subject or "", key=key or "")
        now = self._clock.now()
        context = trace.current.get()
        hop = None if context is None else trace.next_hop(context)
        typed = not isinstance(payload, str)
        return Event(
            topic=payload.event_topic if typed else check_topic(payload),
            source=f"/services/{self.service}",
            id=new_id(now),
            time=now,
            data=payload.model_dump_json().encode() if typed else _to_json(data),
            subject=subject,
            key=key,
            version=payload.event_version if typed else 1,
            traceparent="" if hop is None else hop.traceparent,
            tracestate="" if hop is None else hop.tracestate,
            attributes=extensions,
        )

    async def publish(
        self,
        payload: EventPayload | Event,
        *,
        key: str | None = None,
        subject: str | None = None,
        attributes: Mapping[str, str] | None = None,
        priority: Priority = Priority.NORMAL,
        delay: timedelta | None = None,
        deliver_at: datetime | None = None,
        expires_in: timedelta | None = None,
        within: timedelta = WITHIN,
    ) -> Event:
        """Publish one event, and return it once it is safe.

        Args:
            delay: Deliver it no earlier than so long from now; or `deliver_at`, a moment.
            expires_in: Drop it if nobody was given it so long from now.
            within: Longest wait for the broker.

        Raises:
            EventTooLarge: Its data are over the bus's limit.
            EventRefused: The topic takes no such event, or it is the mesh's own.
            EventsUnavailable: It was not confirmed in time; it may or may not have been published.
        """
        if not isinstance(payload, Event):
            payload = self.event(payload, key=key, subject=subject, attributes=attributes)
        now = self._clock.now()
        message = Message(
            payload,
            priority=priority,
            deliver_at=deliver_at if delay is None else now + delay,
            expires_at=None if expires_in is None else now + expires_in,
        )
        await self.publish_batch([message], within=within)
        return payload

    async def publish_batch(self, messages: Sequence[Message], *, within: timedelta = WITHIN) -> None:
        """Publish many events for the price of one; raises as `publish` does, about all of them."""
        encoded = [self._encode(message) for message in messages]
        try:
            with anyio.fail_after(within.total_seconds()):
                await self._check_types()
                transport = await self._connection.get()
                await transport.publish(encoded)
        except TimeoutError as error:
            self._metrics.failed(len(messages))
            raise EventsUnavailable(f"{self._connection.state} within {within.total_seconds():g} s") from error
        except EventsUnavailable:
            self._metrics.failed(len(messages))
            raise
        for message in messages:
            self._metrics.published(message.event.topic)

    def offer(
        self,
        payload: EventPayload,
        *,
        key: str | None = None,
        subject: str | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        """Publish an event soon, without waiting: it is kept in memory while the broker is away, the oldest dropped.

        One that is refused later is dropped as well, counted and logged.

        Raises:
            EventTooLarge: Its data are over the bus's limit.
        """
        message = Message(self.event(payload, key=key, subject=subject, attributes=attributes))
        self.check(message)
        self._offers.put(message)

    async def _check_types(self) -> None:
        if self._before_publishing is None:
            return
        async with self._checking:
            if self._before_publishing is not None and await self._before_publishing(self.publishes):
                self._before_publishing = None

    def check(self, message: Message) -> None:
        """Refuse now what would be refused when it is published.

        Raises:
            EventTooLarge: Its data are over the bus's limit.
        """
        self._encode(message)

    def _encode(self, message: Message) -> Message:
        if is_reserved(message.event.topic) and not self.service.startswith(RESERVED_PREFIX):
            # Whatever carries events refuses it, too, as far as it can tell who it is; this says so before it is sent.
            raise EventRefused(f"{message.event.topic} is a topic of the mesh itself: publish under a name of your own")
        event = self._codec.encode(message.event)
        if len(event.data) > self._max_bytes:
            raise EventTooLarge(
                f"the data of {event.topic} have {len(event.data)} bytes; {self._max_bytes} are allowed: "
                "publish a reference to them instead",
                max_bytes=self._max_bytes,
            )
        if event is message.event:
            return message
        return Message(event, message.priority, message.deliver_at, message.expires_at)


def _to_json(data: Any) -> bytes:
    return b"" if data is None else encode_json(data)
