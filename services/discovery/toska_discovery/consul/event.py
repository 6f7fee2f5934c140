"""`event/…`: events that users fire."""

import base64
from typing import Any

from toska_discovery.consul.endpoints import Endpoints, refuse_other_datacenter
from toska_discovery.consul.request import ConsulRequest, Refusal, Reply, json_reply
from toska_discovery.errors import EventRefused
from toska_discovery.user_events import EVENTS, UserEvent

VERSION = 1
"""Of the form of events."""


async def fire(here: Endpoints, request: ConsulRequest) -> Reply:
    """`PUT event/fire/:name`, with `node`, `service` and `tag` for whom it is meant."""
    query = request.query
    refuse_other_datacenter(here, request)
    if not request.name:
        raise Refusal(400, "Missing name")
    node, service, tag = (query.first(name) for name in ("node", "service", "tag"))
    event = UserEvent(request.name, await request.body(), node, service, tag)
    try:
        return json_reply(_view(here.registry.fire(event)))
    except EventRefused as error:
        raise Refusal(500, error.detail) from error


async def list_events(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET event/list`, with `name`. Its index is no number that grows: it is that of the latest event."""
    name = request.query.first("name")

    def index_now() -> int:
        found = here.registry.events.list_named(name)
        return found[-1].stamp if found else 1

    await here.changed_stamp(request, (EVENTS,), index_now)
    views = [_view(event) for event in here.registry.events.list_named(name)]
    return json_reply(views, (b"x-consul-index", str(index_now()).encode()))


def _view(event: UserEvent) -> dict[str, Any]:
    return {
        "ID": event.id,
        "Name": event.name,
        "Payload": base64.b64encode(event.payload).decode() if event.payload else None,
        "NodeFilter": event.node,
        "ServiceFilter": event.service,
        "TagFilter": event.tag,
        "Version": VERSION,
        "LTime": event.ltime,
    }
