"""`/api/v1/events/stream` and `/ws`: events as they come."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from toska_common.contracts.eventing import StreamQuery

from toska_events.access import PREFIX
from toska_events.parts import Parts
from toska_events.streaming.asked import read_last_event_id, subscription_of
from toska_events.streaming.telling import tell_events


def stream_routes(parts: Parts) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix=PREFIX, tags=["events"])

    @router.get(
        "/stream",
        response_class=Response,
        responses={
            200: {"content": {"text/event-stream": {}}},
            401: {"description": "A group, and no token"},
            503: {"description": "What carries events is away, or too many read streams: ask again"},
        },
    )
    async def stream(
        request: Request,
        query: Annotated[StreamQuery, Query()],
        last_event_id: Annotated[str, Header(max_length=20, description="Go on after this event; not of a group")] = "",
    ) -> Response:
        """Server-sent events, each a CloudEvent; they begin with `ready`, and comments keep a quiet stream alive.

        An event's offset is its `id`, so that a reader whose connection broke goes on where it was. Without a group
        everybody gets everything, from now on or from where it is said.
        """
        resume_after = read_last_event_id(last_event_id)
        return tell_events(parts, subscription_of(query, request.state.access, resume_after=resume_after))

    return router
