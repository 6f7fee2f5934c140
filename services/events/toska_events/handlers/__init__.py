"""The events service's HTTP API: parse, call one method of transport or book, return a contract."""

from fastapi import FastAPI

from toska_events.handlers.dead_letters import dead_letter_routes
from toska_events.handlers.groups import group_routes
from toska_events.handlers.publishing import publishing_routes
from toska_events.handlers.schemas import schema_routes
from toska_events.handlers.streams import stream_routes
from toska_events.handlers.topics import topic_routes
from toska_events.handlers.webhooks import webhook_routes
from toska_events.parts import Parts


def add_handlers(app: FastAPI, parts: Parts) -> None:
    """Give `app` the whole API."""
    for routes in (
        publishing_routes,
        topic_routes,
        group_routes,
        dead_letter_routes,
        schema_routes,
        stream_routes,
        webhook_routes,
    ):
        app.include_router(routes(parts))
