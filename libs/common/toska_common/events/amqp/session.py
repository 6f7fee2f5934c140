"""What one channel delivers, from when it is opened until it closes; a reconnection has another session."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pamqp.frame
import structlog
from aiormq import spec
from aiormq.abc import AbstractChannel, ChannelFrame, DeliveredMessage

from toska_common.events.amqp.acks import Acks
from toska_common.events.amqp.delivery import AmqpDelivery
from toska_common.events.amqp.envelope import (
    AT,
    ATTEMPT,
    DELIVERIES,
    EXPIRES,
    BadEnvelope,
    milliseconds,
    number,
    unreadable,
    unseal,
)
from toska_common.events.amqp.errors import asked
from toska_common.events.amqp.facts import Facts
from toska_common.events.amqp.order import KeyOrder
from toska_common.events.amqp.precedence import Precedence
from toska_common.events.amqp.reading import Record, content_type_of
from toska_common.events.amqp.settling import Settling
from toska_common.events.amqp.streams import headers_of
from toska_common.events.amqp.untyped import outgoing
from toska_common.events.cloudevents import from_structured
from toska_common.events.event import Event
from toska_common.events.topics import is_ephemeral
from toska_common.events.transport import Subscription

log = structlog.get_logger(__name__)

_LATER_S = 0.005


@dataclass(frozen=True, slots=True)
class Source:
    """A queue that is consumed.

    Attributes:
        rank: Those of lower ranks are handed out first.
        stays: Whether retries of it wait in this process: for order's sake, or because the queue does not outlive it.
        buries: Whether what is rejected is kept.
        waiting: Events in it before it was consumed, as far as they matter for what goes first.
    """

    queue: str
    rank: int = 0
    stays: bool = False
    buries: bool = True
    waiting: int = 0


class Session:
    """Deliveries and acks of one channel.

    Args:
        ready: Is given what can be handed out.
        freed: Is told how many that were handed out are no longer in anybody's hands.
        is_new: Tells events that were seen from others, where one comes by two ways.
    """

    def __init__(
        self,
        channel: AbstractChannel,
        subscription: Subscription,
        settling: Settling,
        facts: Facts,
        *,
        ready: Callable[[AmqpDelivery], None],
        freed: Callable[[int], None],
        now: Callable[[], datetime],
        is_new: Callable[[Event], bool] | None = None,
    ) -> None:
        self._channel = channel
        self._subscription = subscription
        self._settling = settling
        self._facts = facts
        self._ready, self._freed = ready, freed
        self._now = now
        self._is_new = is_new
        self._loop = asyncio.get_running_loop()
        self._acks = Acks()
        self._order: KeyOrder[AmqpDelivery] | None = KeyOrder() if subscription.ordered else None
        self._out: set[AmqpDelivery] = set()
        self._flushing = False
        self.precedence = Precedence(subscription.prefetch)
        self.alive = True
        self.shedding = False
        self.of_lane = False
        self._resting = 0
        self._received: dict[str, int] = {}
        self._came = asyncio.Event()
        self.ended = asyncio.Event()

    async def consume(self, source: Source) -> None:
        """Have a queue deliver."""
        self._received[source.queue] = 0
        self.of_lane = source.stays and source.buries

        async def arrive(message: DeliveredMessage) -> None:
            self._arrive(source, message)

        self._channel.on_consumer_cancel_callbacks.add(self._cancelled)
        await asked("limiting deliveries", self._channel.basic_qos(prefetch_count=self._subscription.prefetch))
        await asked(f"consuming {source.queue}", self._channel.basic_consume(source.queue, arrive, timeout=30))

    def end(self) -> None:
        """Nothing of it can be settled any more: it comes again on another channel."""
        if self.alive:
            self.alive = False
            self._came.set()
            self.ended.set()
            self._freed(len(self._out))

    async def have_come(self, expected: Mapping[str, int]) -> None:
        """Wait until at least so many came of each of these queues, or nothing comes any more."""
        while self.alive and any(self._received[queue] < number for queue, number in expected.items()):
            self._came.clear()
            await self._came.wait()

    @property
    def busy(self) -> bool:
        """Whether it was given anything."""
        return any(self._received.values())

    def shed(self) -> None:
        """Let go of its queues, once what is in somebody's hands is settled; the rest goes to another consumer."""
        self.shedding = True
        self._shed_if_idle()

    def take(self, delivery: AmqpDelivery) -> None:
        """Somebody has it in hand."""
        self._out.add(delivery)

    def done(self, delivery: AmqpDelivery) -> None:
        """Ack a delivery, together with others of this moment."""
        if not self.alive:
            return
        self._ack(delivery)
        self._leave(delivery)
        following = None if self._order is None else self._order.release(delivery.event.key)
        if following is not None:
            self._ready(following)

    async def again(self, delivery: AmqpDelivery, after: timedelta, reason: str) -> None:
        """Have it come again, no earlier."""
        if not self.alive:
            return
        if delivery.attempt >= self._subscription.attempts:
            await self.bury(delivery, reason)
            return
        if delivery.source.stays:
            # Its key stays its own, so that nothing overtakes it.
            self._resting += 1
            self._leave(delivery)
            self._loop.call_later(after.total_seconds(), self._hand_out_again, delivery)
            return
        await self._settling.retry(delivery, after, reason)
        self.done(delivery)

    async def bury(self, delivery: AmqpDelivery, reason: str) -> None:
        """Keep it with the dead letters."""
        if not self.alive:
            return
        if delivery.source.buries:
            await self._settling.bury(delivery, reason)
        else:
            log.warning("event_dropped", topic=delivery.event.topic, event_id=delivery.event.id, reason=reason)
        self.done(delivery)

    def flush(self) -> None:
        """Send the acks that are due."""
        self._flushing = False
        if not self.alive:
            return
        queue = outgoing(self._channel)
        if queue.full():
            self._flushing = True
            self._loop.call_later(_LATER_S, self.flush)
            return
        payload = b"".join(
            pamqp.frame.marshal(spec.Basic.Ack(delivery_tag=tag, multiple=multiple), self._channel.number)
            for tag, multiple in self._acks.take()
        )
        if payload:
            queue.put_nowait(ChannelFrame(payload=payload, should_close=False))

    def _hand_out_again(self, delivery: AmqpDelivery) -> None:
        self._resting -= 1
        if self.alive:
            delivery.reopen()
            self._ready(delivery)

    def offer_of_log(self, source: Source, record: Record) -> None:
        """Hand out what the log has, as if it had been delivered here."""
        message = record.message
        headers, kind = headers_of(message), content_type_of(message)
        if not self._unwanted(record.event, headers):
            delivery = AmqpDelivery(self, source, 0, record.event, headers, kind, message.body, 1)
            delivery.offset = record.offset
            self._offer(delivery)

    def _offer(self, delivery: AmqpDelivery) -> None:
        if self._order is None or self._order.offer(delivery.event.key, delivery):
            self._ready(delivery)

    def _ack(self, delivery: AmqpDelivery) -> None:
        if not delivery.tag:
            return
        self._acks.settle(delivery.tag)
        self.precedence.settled(delivery.source.rank, self._loop.time())
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self.flush)

    def _leave(self, delivery: AmqpDelivery) -> None:
        if delivery in self._out:
            self._out.discard(delivery)
            self._freed(1)
            self._shed_if_idle()

    def _shed_if_idle(self) -> None:
        # What waits to be tried again stays: elsewhere nobody would know how long, and how often it was tried.
        if self.shedding and not self._out and not self._resting:
            self.ended.set()

    async def _cancelled(self, _: spec.Basic.Cancel | spec.Basic.CancelOk) -> None:
        log.warning("queue_lost", group=self._subscription.group, reason="RabbitMQ ended the consumer")
        self.end()

    def _arrive(self, source: Source, message: DeliveredMessage) -> None:
        self._received[source.queue] += 1
        self._came.set()
        self.precedence.arrived(source.rank)
        headers, kind = headers_of(message), content_type_of(message)
        attempt = 1 + (number(headers, ATTEMPT) or 0) + (number(headers, DELIVERIES) or 0)
        bad = ""
        try:
            event = unseal(headers, kind, message.body, structured=self._structured)
        except Exception as error:  # noqa: BLE001 - anybody may have written it, and whatever it does must not come again
            bad = str(error) if isinstance(error, BadEnvelope) else f"it cannot be read: {type(error).__name__}"
            event = unreadable(
                message.routing_key or "", message.header.properties.message_id or "", message.body, kind
            )
        delivery = AmqpDelivery(self, source, message.delivery_tag or 0, event, headers, kind, message.body, attempt)
        if not bad and (self._unwanted(event, headers) or self._was_seen(event)):
            self._ack(delivery)
            return
        if bad or attempt > self._subscription.attempts:
            reason = bad or f"it was delivered {attempt - 1} times, and never settled"
            self._settling.bury_soon(delivery, reason)
            return
        self._offer(delivery)

    def _unwanted(self, event: Event, headers: Mapping[str, Any]) -> bool:
        expires = number(headers, EXPIRES)
        if expires is not None and expires <= milliseconds(self._now()):
            return True
        if self._facts.forgotten(event.topic, number(headers, AT) or 0):
            return True
        return bool(self._subscription.where) and not self._subscription.wants(event)

    def _was_seen(self, event: Event) -> bool:
        return self._is_new is not None and not is_ephemeral(event.topic) and not self._is_new(event)

    def _structured(self, body: bytes) -> Event:
        return from_structured(body, now=self._now())
