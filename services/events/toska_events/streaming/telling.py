"""Server-sent events: each event as CloudEvents' JSON, and as the message's id where a reader goes on after it.

While what carries events is away nothing comes; once it is back, a reader without a group is told what it missed.
"""

from datetime import datetime

from toska_common.event_stream import EventStream, Write, beginning, message
from toska_common.events import cloudevents
from toska_common.events.transport import Delivery, Subscription

from toska_events.parts import Parts
from toska_events.streaming.places import place
from toska_events.streaming.resuming import moment_id

AWAY = ": what carries events is away\n\n"


def tell_events(parts: Parts, subscription: Subscription) -> EventStream:
    """The response. Events are acked once the reader's socket has them."""

    async def tell(write: Write) -> None:
        with place(parts):
            begun = beginning()
            transport = parts.get_transport()
            if not transport.connected:
                # Begun nevertheless: an EventSource that is refused does not come back.
                if not await write(begun + AWAY):
                    return
                begun = ""
            first = await _ready(parts, subscription)
            async with transport.subscribe(subscription) as consumer:
                if not await write(begun + first):
                    return
                last = 0
                async for delivery in consumer:
                    if subscription.wants(delivery.event):
                        if not await write(_message(parts, subscription, delivery, last)):
                            return
                        last = max(last, delivery.offset or 0)
                    await delivery.ack()

    settings = parts.settings
    return EventStream(
        tell,
        stopping=parts.stopping,
        heartbeat_s=settings.stream_heartbeat.total_seconds(),
        patience_s=settings.stream_patience.total_seconds(),
    )


async def _ready(parts: Parts, subscription: Subscription) -> str:
    """`ready`, with where a reader goes on whose connection breaks before the first event."""
    if subscription.group is not None or not subscription.start.is_now:
        return message("{}", event="ready")
    # Looked up before it subscribes: what comes in between would come twice to who resumes, and never be missed.
    now = parts.clock.now()
    topics = await parts.get_transport().administration.topics()
    offset = max((topic.last_offset for topic in topics if topic.last_offset is not None), default=None)
    return message("{}", event="ready", id_=_resumption(parts, offset, now))


def _message(parts: Parts, subscription: Subscription, delivery: Delivery, last: int) -> str:
    data = cloudevents.to_structured(delivery.event).decode()
    if delivery.offset is not None and delivery.offset < last:
        # It was scheduled, and comes long after its offset's turn: who went on from there would have all twice.
        return message(data)
    if subscription.group is not None:
        return message(data, id_="" if delivery.offset is None else str(delivery.offset))
    return message(data, id_=_resumption(parts, delivery.offset, parts.clock.now()))


def _resumption(parts: Parts, offset: int | None, now: datetime) -> str:
    """What a reader comes back with: an offset, or a moment where what is kept has none that are known in time."""
    if offset is not None:
        return str(offset)
    return moment_id(now) if parts.log is None and parts.get_transport().durable else ""
