"""Deliveries in, settled deliveries out: reads payloads, calls handlers, and decides what became of each event.

payload unreadable ──▶ rejected (it will not become readable)
handler returns    ──▶ acked, after its answer was published where one was asked for
handler raises     ──▶ Reject: rejected; Retry or anything else: retried by the subscription's backoff, at last rejected
its answer is none ──▶ rejected: whoever asked is told, and the same answer would be none again
handler is late    ──▶ cancelled, and as if it had raised
bus is closing     ──▶ neither: the broker hands it to somebody else
"""

import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta

import anyio
import structlog
from anyio.abc import TaskGroup

from toska_common import trace
from toska_common.clock import Clock
from toska_common.errors import CallerError, MeshError
from toska_common.events.codecs import Codec
from toska_common.events.errors import EventTooLarge, InvalidPayload, Reject, Retry
from toska_common.events.event import Event
from toska_common.events.handlers import Answer, Incoming, Subscribed
from toska_common.events.metrics import EventMetrics, Outcome
from toska_common.events.payload import PayloadTypes
from toska_common.events.requests import REPLY_TYPE
from toska_common.events.topics import is_ephemeral
from toska_common.events.transport import Delivery, Transport

log = structlog.get_logger(__name__)

RECONNECT_S = (0.2, 5.0)
MAX_REASON = 500

Answering = Callable[[Event, Answer, str], Awaitable[None]]
"""Told of a handler's answer to an event, or of the reason why there is none."""


class _TooLate(Exception):
    """The handler's time is over; what it raised by itself, a `TimeoutError` as well, is another thing."""


class Consuming:
    """Runs one subscription over a transport, for as long as the bus is open."""

    def __init__(
        self,
        subscribed: Subscribed,
        *,
        types: PayloadTypes,
        codec: Codec,
        clock: Clock,
        metrics: EventMetrics,
        answering: Answering,
    ) -> None:
        self._subscribed = subscribed
        self._types = types
        self._codec = codec
        self._clock = clock
        self._metrics = metrics
        self._answering = answering
        self._slots = anyio.Semaphore(subscribed.concurrency)
        self._waiting: anyio.CancelScope | None = None
        self._taking: anyio.CancelScope | None = None
        self._ended = anyio.Event()
        self._draining = False
        self.ready = anyio.Event()
        """Set once the subscription stood for the first time."""

    async def run(self, transport: Transport) -> None:
        """Handle deliveries until it is drained; a transport that is away is asked again."""
        wait_s = RECONNECT_S[0]
        while not self._draining:
            with anyio.CancelScope() as self._waiting:
                try:
                    await self._consume(transport)
                    wait_s = RECONNECT_S[0]
                except* MeshError as errors:
                    # One that is refused for now stands later: when the members are gone that keep order otherwise.
                    reason = str(_first_of(errors))
                    log.warning("subscription_interrupted", handler=self._subscribed.name, reason=reason)
                await anyio.sleep(wait_s)
                wait_s = min(RECONNECT_S[1], wait_s * 2)
        self._ended.set()

    async def drain(self) -> None:
        """Take no more, and wait until what is in hand is settled."""
        self._draining = True
        # What is in hand belongs to the outer scope: it goes on when only the inner one is cancelled.
        scope = self._taking or self._waiting
        if scope is not None:
            scope.cancel()
            await self._ended.wait()

    async def _consume(self, transport: Transport) -> None:
        async with (
            transport.subscribe(self._subscribed.subscription) as consumer,
            anyio.create_task_group() as group,
        ):
            self._subscribed.subscription.on_gap()
            self.ready.set()
            try:
                with anyio.CancelScope() as self._taking:
                    async for delivery in consumer:
                        await self._take(delivery, group)
            finally:
                self._taking = None

    async def _take(self, delivery: Delivery, group: TaskGroup) -> None:
        if not self._subscribed.subscription.wants(delivery.event):
            self._metrics.skipped(self._subscribed.name)
            await delivery.ack()
            return
        await self._slots.acquire()
        group.start_soon(self._handle, delivery)

    async def _handle(self, delivery: Delivery) -> None:
        try:
            name = self._subscribed.name
            began = self._clock.monotonic()
            lateness = (self._clock.now() - delivery.event.time).total_seconds()
            self._metrics.began(name, lateness, delivery.attempt)
            outcome = Outcome.RETRIED
            try:
                outcome = await self._settle(delivery)
            except MeshError as error:
                log.warning("event_not_settled", handler=name, event_id=delivery.event.id, reason=str(error))
                with contextlib.suppress(MeshError):  # then the broker takes it back by itself
                    await delivery.retry(self._subscribed.subscription.retrying.first, "the broker was away")
            finally:
                self._metrics.ended(name, outcome, self._clock.monotonic() - began)
        finally:
            self._slots.release()

    async def _settle(self, delivery: Delivery) -> Outcome:
        try:
            answer = await self._call(delivery)
        except (Reject, InvalidPayload, EventTooLarge) as error:
            return await self._give_up(delivery, str(error))
        except Retry as error:
            return await self._try_again(delivery, error.reason, error.after)
        except _TooLate:
            within = self._subscribed.timeout.total_seconds()
            return await self._try_again(delivery, f"not handled within {within:g} s")
        except Exception as error:
            log.exception("event_handler_failed", handler=self._subscribed.name, event_id=delivery.event.id)
            # The type alone: what an exception says may be a secret, and dead letters are shown to operators.
            return await self._try_again(delivery, f"the handler raised {type(error).__name__}")
        try:
            await self._answering(delivery.event, answer, "")
        except CallerError as error:
            return await self._give_up(delivery, f"its answer cannot be sent: {error.detail}")
        await delivery.ack()
        return Outcome.HANDLED

    async def _call(self, delivery: Delivery) -> Answer:
        event = self._codec.decode(delivery.event)
        topic = event.attributes.get(REPLY_TYPE, "") if is_ephemeral(event.topic) else ""
        incoming = Incoming(self._types.read(event, topic=topic), event, delivery.attempt, delivery.offset)
        token = trace.current.set(_context(event))
        try:
            with anyio.move_on_after(self._subscribed.timeout.total_seconds()):
                return await self._subscribed.handler(incoming)
            raise _TooLate
        finally:
            trace.current.reset(token)

    async def _try_again(self, delivery: Delivery, reason: str, after: timedelta | None = None) -> Outcome:
        delay = self._subscribed.subscription.retrying.delay_after(delivery.attempt)
        if delay is None:
            return await self._give_up(delivery, f"{reason}; that was attempt {delivery.attempt}, the last one")
        await delivery.retry(delay if after is None else after, reason[:MAX_REASON])
        return Outcome.RETRIED

    async def _give_up(self, delivery: Delivery, reason: str) -> Outcome:
        log.warning(
            "event_rejected",
            handler=self._subscribed.name,
            topic=delivery.event.topic,
            event_id=delivery.event.id,
            attempts=delivery.attempt,
            reason=reason[:MAX_REASON],
        )
        try:
            await self._answering(delivery.event, None, reason[:MAX_REASON])
        except CallerError as error:
            log.warning("answer_not_sent", event_id=delivery.event.id, reason=error.detail)
        await delivery.reject(reason[:MAX_REASON])
        return Outcome.REJECTED


def _first_of(error: MeshError | ExceptionGroup[MeshError]) -> MeshError:
    return error if isinstance(error, MeshError) else _first_of(error.exceptions[0])


def _context(event: Event) -> trace.TraceContext:
    parent = trace.parse_traceparent(event.traceparent, event.tracestate) if event.traceparent else None
    return trace.new_trace() if parent is None else trace.next_hop(parent)
