"""`/api/v1/events/stream` and `/ws`: events as they come."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response, WebSocket
from pydantic import ValidationError
from toska_common.contracts.eventing import SocketQuery, StreamQuery
from toska_common.errors import InvalidInput, MeshError
from toska_common.problem import field_problems, problem_response

from toska_events.access import PREFIX
from toska_events.parts import Parts
from toska_events.streaming.asked import subscription_of
from toska_events.streaming.resuming import read_last_event_id
from toska_events.streaming.socket import serve_socket
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

        A reader whose connection broke goes on by the last `id` that it was given: an event's offset, or over RabbitMQ
        a moment, a minute before which it goes on. Without a group
        everybody gets everything, from now on or from where it is said.
        """
        resumed = read_last_event_id(last_event_id)
        return tell_events(parts, subscription_of(query, request.state.access, resumed=resumed))

    @router.websocket("/ws")
    async def socket(websocket: WebSocket) -> None:
        try:
            query = _read_query(websocket)
            subscription = subscription_of(query, websocket.state.access, prefetch=query.prefetch)
            await serve_socket(parts, websocket, subscription, query)
        except MeshError as error:  # before it was accepted
            await websocket.send_denial_response(problem_response(error))

    return router


def _read_query(websocket: WebSocket) -> SocketQuery:
    params = websocket.query_params
    given = {
        name: params.getlist(name) if name in ("topic", "where") else params[name]  # the last one, as of any query
        for name in params
    }
    try:
        return SocketQuery.model_validate(given)
    except ValidationError as error:
        problems = [
            {**problem, "field": "query" if problem["field"] == "(root)" else f"query.{problem['field']}"}
            for problem in field_problems(error.errors())
        ]
        detail = "; ".join(f"{problem['field']}: {problem['reason']}" for problem in problems)
        raise InvalidInput(detail, problems=problems) from error
