"""The event bus of one process: it publishes, and runs handlers for what it subscribed to.

    EventBus ── Message ──▶ Codec ──▶ Transport ──▶ … ──▶ Consumer ── Delivery ──▶ Codec ──▶ PayloadTypes ──▶ handler

A bus is made and decorated before anything is open. While it is open it keeps a connection by itself; opening never
waits for the broker, so a service starts and answers without one. Publishing waits for it within its deadline.
"""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

import anyio
import structlog
from anyio.abc import TaskGroup
from prometheus_client import CollectorRegistry

from toska_common import trace
from toska_common.clock import Clock, SystemClock
from toska_common.errors import InvalidInput
from toska_common.events.codecs import Codec
from toska_common.events.consuming import Consuming
from toska_common.events.errors import EventsUnavailable, EventTooLarge
from toska_common.events.event import EXTENSION, MAX_ATTRIBUTE, MAX_KEY, OWN_ATTRIBUTES, Event, new_id
from toska_common.events.handlers import Answer, Incoming, Subscribed
from toska_common.events.metrics import EventMetrics
from toska_common.events.offering import Offers
from toska_common.events.payload import EventPayload, PayloadTypes
from toska_common.events.requests import CORRELATION, REPLY_ERROR, REPLY_TO, REPLY_TYPE, Inbox, inbox_of
from toska_common.events.retrying import Retrying
from toska_common.events.topics import check_group, check_pattern, check_topic
from toska_common.events.transport import (
    DEFAULT_MAX_BYTES,
    NOW,
    Message,
    Priority,
    Start,
    Subscription,
    Transport,
)

log = structlog.get_logger(__name__)

Connect = Callable[[], AbstractAsyncContextManager[Transport]]
H = TypeVar("H", bound=Callable[[Incoming[Any]], Awaitable[Any]])

WITHIN = timedelta(seconds=5)
_RECONNECT_S = (0.1, 2.0)
DRAIN_S = 1.5
"""How long handlers may go on once the bus closes."""


class EventBus:
    """Publishes events and hands them to handlers.

    Args:
        service: Whose bus it is; events say `source: /services/SERVICE`.
        connect: Opens the transport (`toska_common.events.opening`).
        publishes: Payload types of this service's own events; what it subscribes to by type is known as well.
        codec: What is done to payloads on the wire.
        max_bytes: Most bytes of an event's data, as they travel.
        before_publishing: Told of the payload types before events are published, until it says that it need not be any
            more; raises `EventRefused` for one that does not fit what the topic's readers know.
    """

    def __init__(
        self,
        service: str,
        connect: Connect,
        *,
        publishes: Iterable[type[EventPayload]] = (),
        codec: Codec | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        clock: Clock | None = None,
        registry: CollectorRegistry | None = None,
        before_publishing: Callable[[Sequence[type[EventPayload]]], Awaitable[bool]] | None = None,
    ) -> None:
        self.service = service
        self.publishes = tuple(publishes)
        self._connect = connect
        self._codec = codec or Codec()
        self._max_bytes = max_bytes
        self._clock = clock or SystemClock()
        self._metrics = EventMetrics(registry)
        self._types = PayloadTypes(self.publishes)
        for payload_type in self.publishes:
            self._metrics.know(payload_type.event_topic)
        self._before_publishing = before_publishing
        self._checking = anyio.Lock()
        self._subscriptions: list[Subscribed] = []
        self._consuming: list[Consuming] = []
        self._inbox = Inbox(service)
        self._inbox_wanted = anyio.Event()
        self._offers = Offers(self.publish_batch, self._metrics)
        self._connection = _Connection()
        self._group: TaskGroup | None = None

    @property
    def subscriptions(self) -> Sequence[Subscribed]:
        """What it subscribed to."""
        return tuple(self._subscriptions)

    @property
    def types(self) -> Sequence[type[EventPayload]]:
        """The payload types that it knows: those it publishes, and those it subscribed to by type."""
        return tuple(self._types)

    @property
    def connected(self) -> bool:
        """Whether the broker is there now."""
        transport = self._connection.transport
        return transport is not None and transport.connected

    async def subscribed(self) -> None:
        """Wait until every subscription stands: what is published from then on reaches those without a group too."""
        for consuming in self._consuming[:-1]:
            await consuming.ready.wait()

    # Subscribing.

    def subscribe(
        self,
        *topics: str | type[EventPayload],
        group: str | None = None,
        where: Mapping[str, str] | None = None,
        ordered: bool = False,
        start: Start = NOW,
        retrying: Retrying | None = None,
        concurrency: int = 16,
        prefetch: int = 0,
        timeout: timedelta = timedelta(seconds=30),
        name: str = "",
    ) -> Callable[[H], H]:
        """Have an async function called with each event of these topics.

        Args:
            topics: Patterns (`mesh.instance.*`, `orders.#`) or payload types.
            group: Who shares the work; without one every process gets every event from now on.
            where: Attributes that an event must have; the others are acked unseen.
            ordered: One event of a key after the other.
            start: Where a new group begins.
            retrying: How often and when an event comes again that was not handled.
            concurrency: Most events in the handler at once, in this process.
            prefetch: Most events taken from the broker and not settled; twice the concurrency if 0.
            timeout: A call that takes longer is cancelled and tried again.
            name: For logs and metrics; the function's own if left out.

        Raises:
            InvalidInput: A pattern or the group's name is wrong.
            TypeError: The function is not async.
        """
        types = tuple(topic for topic in topics if not isinstance(topic, str))
        patterns = tuple(topic if isinstance(topic, str) else topic.event_topic for topic in topics)
        if not patterns:
            raise InvalidInput("a subscription needs a topic", problems=[{"field": "topics", "reason": "is empty"}])
        for pattern in patterns:
            check_pattern(pattern)
        subscription = Subscription(
            patterns,
            group=None if group is None else check_group(group),
            where=dict(where or {}),
            start=start,
            ordered=ordered,
            prefetch=prefetch or 2 * concurrency,
            retrying=retrying or Retrying(),
        )

        def register(handler: H) -> H:
            named = name or getattr(handler, "__qualname__", "handler").rpartition(".")[2]
            self._add(Subscribed(handler, subscription, named, concurrency, timeout, types))
            return handler

        return register

    def _add(self, subscribed: Subscribed) -> None:
        if self._group is not None:
            raise RuntimeError("subscribe before the bus is opened")
        for payload_type in subscribed.types:
            self._types.add(payload_type)
        self._subscriptions.append(subscribed)

    # Publishing.

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
            InvalidInput: The topic, an attribute's name, or a length is wrong.
        """
        extensions = dict(attributes or {})
        _check_attributes(extensions, subject=subject or "", key=key or "")
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
            EventRefused: The topic takes no such event.
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
            raise EventsUnavailable(f"the broker did not confirm within {within.total_seconds():g} s") from error
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

    async def request(
        self,
        payload: EventPayload,
        *,
        key: str | None = None,
        attributes: Mapping[str, str] | None = None,
        within: timedelta = WITHIN,
    ) -> Incoming[Any]:
        """Ask, and wait for the answer of whoever subscribed first to be done with it.

        Raises:
            RequestRejected: Whoever was asked cannot answer.
            UpstreamTimeout: Nobody answered in time.
        """
        correlation = new_id(self._clock.now())
        routing = {**(attributes or {}), REPLY_TO: self._inbox.topic, CORRELATION: correlation}
        question = self.event(payload, key=key, attributes=routing)

        async def send() -> None:
            self._inbox_wanted.set()
            await self._consuming[-1].ready.wait()  # nothing is asked before its answer could arrive
            await self.publish(question, expires_in=within, within=within)

        return await self._inbox.ask(correlation, send, within)

    async def _answer(self, question: Event, answer: Answer, error: str) -> None:
        try:
            inbox = inbox_of(question)
        except InvalidInput as invalid:
            log.warning("answer_not_sent", event_id=question.id, reason=invalid.detail)
            return
        if inbox is None or (answer is None and not error):
            return
        attributes = {CORRELATION: question.attributes[CORRELATION]}
        if answer is None:
            attributes[REPLY_ERROR] = error
            event = self.event(inbox, attributes=attributes)
        else:
            attributes[REPLY_TYPE] = answer.event_topic
            event = self.event(inbox, answer.model_dump(mode="json"), attributes=attributes)
        await self.publish(event)

    # Life.

    @asynccontextmanager
    async def open(self) -> AsyncGenerator["EventBus"]:
        """Connect, and run the handlers until the block ends.

        Handlers that have an event in hand then have a moment to be done with it; what they are not goes back to the
        broker.
        """
        async with anyio.create_task_group() as group:
            self._group = group
            inbox = Subscribed(self._take_answer, Subscription((self._inbox.topic,)), "inbox", concurrency=64)
            self._consuming = [self._consume(subscribed) for subscribed in (*self._subscriptions, inbox)]
            group.start_soon(self._stay_connected)
            group.start_soon(self._offers.run)
            try:
                yield self
            finally:
                with anyio.move_on_after(DRAIN_S, shield=True):
                    await self._drain()
                group.cancel_scope.cancel()
                self._group = None

    async def _drain(self) -> None:
        async with anyio.create_task_group() as group:
            for consuming in self._consuming:
                group.start_soon(consuming.drain)
        if self.connected:
            with contextlib.suppress(EventsUnavailable):
                await self._offers.drain()

    def _consume(self, subscribed: Subscribed) -> Consuming:
        return Consuming(
            subscribed,
            types=self._types,
            codec=self._codec,
            clock=self._clock,
            metrics=self._metrics,
            answering=self._answer,
        )

    async def _stay_connected(self) -> None:
        wait_s, told = _RECONNECT_S[0], False
        while True:
            try:
                async with self._connect() as transport, anyio.create_task_group() as group:
                    self._connection.set(transport)
                    wait_s, told = _RECONNECT_S[0], False
                    *handlers, inbox = self._consuming
                    for consuming in handlers:
                        group.start_soon(consuming.run, transport)
                    await self._inbox_wanted.wait()
                    await inbox.run(transport)
            except* EventsUnavailable as errors:
                if not told:  # once an outage: a mesh without events is one for days
                    log.info("events_unavailable", bus=self.service, reason=str(errors.exceptions[0]))
                    told = True
            finally:
                self._connection.clear()
            await anyio.sleep(wait_s)
            wait_s = min(_RECONNECT_S[1], wait_s * 2)

    async def _take_answer(self, incoming: Incoming[Any]) -> None:
        await self._inbox.take(incoming)


class _Connection:
    """The transport, or the wait for it."""

    def __init__(self) -> None:
        self.transport: Transport | None = None
        self._arrived = anyio.Event()

    def set(self, transport: Transport) -> None:
        self.transport = transport
        self._arrived.set()

    def clear(self) -> None:
        self.transport = None
        self._arrived = anyio.Event()

    async def get(self) -> Transport:
        while self.transport is None:
            await self._arrived.wait()
        return self.transport


def _check_attributes(extensions: Mapping[str, str], *, subject: str, key: str) -> None:
    for name in extensions:
        if not EXTENSION.fullmatch(name) or name in OWN_ATTRIBUTES:
            reason = "is CloudEvents' own" if name in OWN_ATTRIBUTES else "is not a-z and 0-9 (20 at most)"
            raise InvalidInput(f"attribute {name[:40]!r} {reason}", problems=[{"field": name[:40], "reason": reason}])
    for name, value, most in (
        ("key", key, MAX_KEY),
        ("subject", subject, MAX_ATTRIBUTE),
        *((name, value, MAX_ATTRIBUTE) for name, value in extensions.items()),
    ):
        if len(value) > most:
            reason = f"is longer than {most} characters"
            raise InvalidInput(f"{name} {reason}", problems=[{"field": name, "reason": reason}])


def _to_json(data: Any) -> bytes:
    from pydantic_core import to_json

    return b"" if data is None else to_json(data)
