"""Between protobuf messages and what the service works with."""

from datetime import UTC, datetime, timedelta
from typing import Any

from toska_common.errors import InvalidInput
from toska_common.events import cloudevents
from toska_common.events.event import Event, new_id
from toska_common.events.topics import check_group, check_pattern, check_topic
from toska_common.events.transport import (
    Delivery,
    Message,
    Priority,
    Start,
    Subscription,
    TopicSettings,
    TopicState,
)
from toska_common.protos import events_v1_pb2

pb: Any = events_v1_pb2  # made by protoc, without types

SOURCE = "/grpc"
"""Of events that do not say who they are from."""
MAX_TOPICS = 64
_PRIORITIES = {0: Priority.NORMAL, 1: Priority.LOW, 2: Priority.NORMAL, 3: Priority.HIGH}


def read_event(message: Any, now: datetime, field: str) -> Event:
    """An event to publish.

    Raises:
        InvalidInput: It is none; names each wrong field, below `field`.
    """
    attributes = {
        "specversion": "1.0",
        "id": message.id or new_id(now),
        "source": message.source or SOURCE,
        "type": check_topic(message.topic, field=f"{field}.topic"),
        "time": _moment(message.time, f"{field}.time").isoformat() if message.HasField("time") else "",
        "datacontenttype": message.content_type,
        "subject": message.subject,
        "dataschema": message.schema,
        "partitionkey": message.key,
        "dataversion": str(message.version or 1),
        "traceparent": message.traceparent,
        "tracestate": message.tracestate,
    }
    known = {name: value for name, value in attributes.items() if value}
    both = known.keys() & dict(message.attributes).keys()
    if both:
        raise wrong(f"{field}.attributes", f"{min(both)} has a field of its own")
    try:
        return cloudevents.from_attributes({**message.attributes, **known}, message.data, now=now)
    except InvalidInput as error:
        problems = [{**item, "field": f"{field}.{item['field']}"} for item in error.extensions["problems"]]
        raise InvalidInput(error.detail, problems=problems) from error


def read_messages(request: Any, now: datetime) -> list[Message]:
    """What is to be published.

    Raises:
        InvalidInput: Something of it is wrong.
    """
    priority = _PRIORITIES.get(request.priority)
    if priority is None:
        raise wrong("priority", "PRIORITY_LOW, PRIORITY_NORMAL or PRIORITY_HIGH")
    delay = _duration(request, "delay") or timedelta(0)
    expires_in = _duration(request, "expires_in")
    return [
        Message(
            read_event(message, now, f"events[{place}]"),
            priority,
            deliver_at=now + delay if delay else None,
            expires_at=None if expires_in is None else now + expires_in,
        )
        for place, message in enumerate(request.events)
    ]


def read_subscription(request: Any) -> Subscription:
    """What somebody wants to be told of.

    Raises:
        InvalidInput: It is wrong.
    """
    if not 1 <= len(request.topics) <= MAX_TOPICS:
        raise wrong("topics", f"between 1 and {MAX_TOPICS} patterns")
    if request.WhichOneof("start") == "offset" and request.offset < 0:
        raise wrong("offset", "0 or more")
    return Subscription(
        tuple(check_pattern(pattern, field="topics") for pattern in request.topics),
        group=check_group(request.group, field="group") if request.group else None,
        where=dict(request.where),
        start=Start(
            beginning=request.beginning,
            offset=request.offset if request.WhichOneof("start") == "offset" else None,
            time=_moment(request.since, "since") if request.WhichOneof("start") == "since" else None,
        ),
    )


def read_settings(request: Any) -> TopicSettings:
    """How a topic is to be kept.

    Raises:
        InvalidInput: It is wrong.
    """
    if request.max_bytes < 0:
        raise wrong("max_bytes", "0 or more")
    return TopicSettings(
        check_topic(request.name, field="name"),
        max_age=_duration(request, "max_age"),
        max_bytes=request.max_bytes,
        time_to_live=_duration(request, "time_to_live"),
        replayable=request.replayable if request.HasField("replayable") else True,
        description=request.description[:1024],
    )


def received(delivery: Delivery) -> Any:
    """A delivery as it is sent."""
    event = delivery.event
    made = pb.Event(
        id=event.id,
        source=event.source,
        topic=event.topic,
        data=event.data,
        content_type=event.content_type,
        subject=event.subject or "",
        schema=event.schema or "",
        key=event.key or "",
        version=event.version,
        attributes=event.attributes,
        traceparent=event.traceparent,
        tracestate=event.tracestate,
    )
    made.time.FromDatetime(event.time)
    return pb.Received(event=made, attempt=delivery.attempt, offset=delivery.offset)


def topic(state: TopicState) -> Any:
    """A topic as it is shown."""
    settings = state.settings
    made = pb.Topic(
        name=settings.name,
        max_bytes=settings.max_bytes,
        replayable=settings.replayable,
        description=settings.description,
        events=state.events,
        bytes=state.bytes,
        published=state.published,
        first_offset=state.first_offset,
        last_offset=state.last_offset,
    )
    if settings.max_age is not None:
        made.max_age.FromTimedelta(settings.max_age)
    if settings.time_to_live is not None:
        made.time_to_live.FromTimedelta(settings.time_to_live)
    if state.last_at is not None:
        made.last_at.FromDatetime(state.last_at)
    return made


def wrong(field: str, reason: str) -> InvalidInput:
    """The error that names a field."""
    return InvalidInput(f"{field}: {reason}", problems=[{"field": field, "reason": reason}])


def _duration(request: Any, field: str) -> timedelta | None:
    if not request.HasField(field):
        return None
    found: timedelta = getattr(request, field).ToTimedelta()
    if not timedelta(0) < found <= timedelta(days=365):
        raise wrong(field, "more than nothing, and a year at most")
    return found


def _moment(message: Any, field: str) -> datetime:
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise wrong(field, "a moment of the years 1 to 9999") from error
