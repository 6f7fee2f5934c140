"""Server-sent events: each event as CloudEvents' JSON, its offset as the message's id where it has one."""

from toska_common.event_stream import EventStream, Write, beginning, message
from toska_common.events import cloudevents
from toska_common.events.transport import Delivery, Subscription

from toska_events.parts import Parts
from toska_events.streaming.places import place


def tell_events(parts: Parts, subscription: Subscription) -> EventStream:
    """The response. Events are acked once the reader's socket has them."""

    async def tell(write: Write) -> None:
        with place(parts):
            first = await _ready(parts, subscription)
            async with parts.get_transport().subscribe(subscription) as consumer:
                if not await write(beginning() + first):
                    return
                async for delivery in consumer:
                    if subscription.wants(delivery.event) and not await write(_message(delivery)):
                        return
                    await delivery.ack()

    settings = parts.settings
    return EventStream(
        tell,
        stopping=parts.stopping,
        heartbeat_s=settings.stream_heartbeat.total_seconds(),
        patience_s=settings.stream_patience.total_seconds(),
    )


async def _ready(parts: Parts, subscription: Subscription) -> str:
    """`ready`, with the offset from which a reader goes on whose connection breaks before the first event."""
    offset: int | None = None
    if subscription.group is None and subscription.start.is_now:
        # Looked up before it subscribes: what comes in between would come twice to who resumes, and never be missed.
        topics = await parts.get_transport().administration.topics()
        offset = max((topic.last_offset for topic in topics if topic.last_offset is not None), default=None)
    return message("{}", event="ready", id_="" if offset is None else str(offset))


def _message(delivery: Delivery) -> str:
    data = cloudevents.to_structured(delivery.event).decode()
    return message(data, id_="" if delivery.offset is None else str(delivery.offset))
