"""`POST /api/v1/events/publish`: events over HTTP, in each of CloudEvents' forms or in a plain one.

Source: CloudEvents HTTP binding 1.0.2 §3
"""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from toska_common.clock import Clock
from toska_common.contracts.eventing import PriorityName, Published, PublishRequest
from toska_common.errors import InvalidInput
from toska_common.events import cloudevents
from toska_common.events.errors import EventTooLarge
from toska_common.events.event import Event, encode_json, new_id
from toska_common.events.payload import invalid_payload
from toska_common.events.topics import check_topic
from toska_common.events.transport import Message, Priority
from toska_common.units import Duration

from toska_events.access import PREFIX, require_own
from toska_events.parts import Parts

SOURCE = "/http"
"""Of events that do not say who they are from."""
MAX_BATCH = 1000

_BODIES = {
    media: {"schema": {"type": kind}}
    for media, kind in (
        ("application/json", "object"),
        (cloudevents.STRUCTURED, "object"),
        (cloudevents.BATCH, "array"),
        ("*/*", "string"),
    )
}


def publishing_routes(parts: Parts) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix=PREFIX, tags=["events"])

    @router.post(
        "/publish",
        status_code=201,
        openapi_extra={"requestBody": {"required": True, "content": _BODIES}},
        responses={
            403: {"description": "The topic is the mesh's own"},
            409: {"description": "The topic takes no such event"},
            413: {"description": "An event is too large"},
            415: {"description": "The body is none of the forms of an event"},
            422: {"description": "An event is wrong; `problems` names every attribute"},
            503: {"description": "What carries events is away: ask again"},
            507: {"description": "The log has no room"},
        },
    )
    async def publish(
        request: Request,
        priority: Annotated[PriorityName, Query(description="Of CloudEvents, which have no field for it")] = "normal",
        delay: Annotated[Duration, Query(description="Deliver no earlier than so long from now")] = timedelta(0),
        expires_in: Annotated[Duration | None, Query(description="Drop what was not delivered by then")] = None,
    ) -> Published:
        """Publish an event, or a batch of CloudEvents: all of it is safe when this answers, or nothing was taken.

        Bodies are `application/json` as `PublishRequest` (topic, data, key, …), `application/cloudevents+json`,
        `application/cloudevents-batch+json`, or anything at all with `ce-…` headers (the binary form).
        """
        body = await request.body()
        now = parts.clock.now()
        if _media_type(request) == "application/json" and "ce-id" not in request.headers:
            messages = [_plain(body, parts.clock)]
        else:
            events = _read(request, body, now)
            messages = [_message(event, Priority[priority.upper()], delay, expires_in, now) for event in events]
        for message in messages:
            require_own(message.event.topic, request.state.access)
            if len(message.event.data) > parts.settings.max_event_bytes:
                raise EventTooLarge(
                    f"the data of {message.event.topic} have {len(message.event.data)} bytes; "
                    f"{parts.settings.max_event_bytes} are allowed",
                    max_bytes=parts.settings.max_event_bytes,
                )
        await parts.publish(messages)
        return Published(ids=tuple(message.event.id for message in messages))

    return router


def _read(request: Request, body: bytes, now: datetime) -> list[Event]:
    match _media_type(request):
        case cloudevents.STRUCTURED:
            return [cloudevents.from_structured(body, now=now)]
        case cloudevents.BATCH:
            events = cloudevents.from_batch(body, now=now)
            if len(events) > MAX_BATCH:
                reason = f"has {len(events)} events; {MAX_BATCH} are allowed"
                raise InvalidInput(f"the batch {reason}", problems=[{"field": "", "reason": reason}])
            return events
        case media_type if "ce-id" in request.headers:
            headers = {name.lower(): value for name, value in request.headers.items()}
            return [cloudevents.from_headers(headers, body, content_type=media_type, now=now)]
        case media_type:
            raise HTTPException(
                415, f"{media_type or 'a body without a type'} is no event: send CloudEvents, or application/json"
            )


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _plain(body: bytes, clock: Clock) -> Message:
    try:
        asked = PublishRequest.model_validate_json(body)
    except ValidationError as error:
        raise invalid_payload("event to publish", error) from error
    now = clock.now()
    event = Event(
        topic=check_topic(asked.topic),
        source=SOURCE,
        id=new_id(now),
        time=now,
        data=b"" if asked.data is None else encode_json(asked.data),
        subject=asked.subject,
        key=asked.key,
        version=asked.version,
        attributes=dict(asked.attributes),
    )
    cloudevents.from_attributes(cloudevents.to_attributes(event), b"", now=now)  # names what is wrong with an attribute
    return _message(event, Priority[asked.priority.upper()], asked.delay, asked.expires_in, now, asked.deliver_at)


def _message(
    event: Event,
    priority: Priority,
    delay: timedelta,
    expires_in: timedelta | None,
    now: datetime,
    deliver_at: datetime | None = None,
) -> Message:
    return Message(
        event,
        priority,
        deliver_at=now + delay if delay > timedelta(0) else deliver_at,
        expires_at=None if expires_in is None else now + expires_in,
    )
