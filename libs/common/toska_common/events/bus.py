"""The event bus of one process: it publishes, and runs handlers for what it subscribed to.

    EventBus ── Message ──▶ Codec ──▶ Transport ──▶ … ──▶ Consumer ── Delivery ──▶ Codec ──▶ PayloadTypes ──▶ handler

A bus is made and decorated before anything is open. While it is open it keeps a connection by itself; opening never
waits for the broker, so a service starts and answers without one. Publishing waits for it within its deadline.
"""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

import anyio
import structlog
from anyio.abc import TaskGroup
from prometheus_client import CollectorRegistry

from toska_common.clock import Clock, SystemClock
from toska_common.errors import InvalidInput, MeshError
from toska_common.events.codecs import Codec
from toska_common.events.connection import Connect, Connection
from toska_common.events.consuming import Consuming
from toska_common.events.errors import EventsUnavailable
from toska_common.events.event import Event, new_id
from toska_common.events.handlers import Answer, Incoming, Subscribed
from toska_common.events.metrics import EventMetrics
from toska_common.events.payload import EventPayload, PayloadTypes
from toska_common.events.publishing import WITHIN, BeforePublishing, EventPublisher
from toska_common.events.requests import CORRELATION, REPLY_TO, Inbox, build_reply, inbox_of
from toska_common.events.retrying import Retrying
from toska_common.events.topics import check_group, check_pattern
from toska_common.events.transport import DEFAULT_MAX_BYTES, NOW, Start, Subscription, Transport, ignore_gap

log = structlog.get_logger(__name__)

H = TypeVar("H", bound=Callable[[Incoming[Any]], Awaitable[Any]])

DRAIN_S = 1.5
"""How long handlers may go on once the bus closes."""


class EventBus(EventPublisher):
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
        before_publishing: BeforePublishing | None = None,
    ) -> None:
        super().__init__(
            service,
            Connection(connect, service),
            publishes=tuple(publishes),
            codec=codec or Codec(),
            max_bytes=max_bytes,
            clock=clock or SystemClock(),
            metrics=EventMetrics(registry),
            before_publishing=before_publishing,
        )
        self._types = PayloadTypes(self.publishes)
        self._subscriptions: list[Subscribed] = []
        self._consuming: list[Consuming] = []
        self._inbox = Inbox(service)
        self._inbox_wanted = anyio.Event()
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
        return self._connection.connected

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
        on_gap: Callable[[], None] = ignore_gap,
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
            on_gap: Without a group: called when the subscription stands for the first time, and whenever it does so
                again after an interruption whose events are lost.

        Raises:
            InvalidInput: A pattern or the group's name is wrong.
            TypeError: The function is not async.
        """
        types = tuple(topic for topic in topics if not isinstance(topic, str))
        subscription = Subscription(
            _patterns_of(topics),
            group=None if group is None else check_group(group),
            where=dict(where or {}),
            start=start,
            ordered=ordered,
            prefetch=prefetch or 2 * concurrency,
            retrying=retrying or Retrying(),
            on_gap=on_gap,
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

    # Requests.

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
            EventsUnavailable: The bus is not open, or the question could not be published.
        """
        if self._group is None:
            raise EventsUnavailable(self._connection.state)
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
            inbox_of(question)
        except InvalidInput as invalid:
            log.warning("answer_not_sent", event_id=question.id, reason=invalid.detail)
            return
        reply = build_reply(question, answer, error)
        if reply is not None:
            await self.publish(self.event(reply.topic, reply.data, attributes=reply.attributes))

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
            group.start_soon(self._connection.keep, self._use)
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
            with contextlib.suppress(MeshError):
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

    async def _use(self, transport: Transport) -> None:
        async with anyio.create_task_group() as group:
            *handlers, inbox = self._consuming
            for consuming in handlers:
                group.start_soon(consuming.run, transport)
            await self._inbox_wanted.wait()
            await inbox.run(transport)

    async def _take_answer(self, incoming: Incoming[Any]) -> None:
        await self._inbox.take(incoming)


def _patterns_of(topics: Iterable[str | type[EventPayload]]) -> tuple[str, ...]:
    patterns = tuple(topic if isinstance(topic, str) else topic.event_topic for topic in topics)
    if not patterns:
        raise InvalidInput("a subscription needs a topic", problems=[{"field": "topics", "reason": "is empty"}])
    for pattern in patterns:
        check_pattern(pattern)
    return patterns
