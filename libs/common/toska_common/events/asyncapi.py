"""What a service publishes and consumes, as an AsyncAPI 3.0 document: the events' counterpart of OpenAPI.

Operations are `send` for what is published and `receive` for what is subscribed to; a channel is a topic or a pattern.
Source: https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from toska_common import __version__
from toska_common.events.bus import EventBus
from toska_common.events.handlers import Subscribed
from toska_common.events.payload import EventPayload
from toska_common.events.topics import matches

Document = dict[str, Any]


ASYNCAPI_PATH = "/asyncapi.json"


def serve_asyncapi(
    find_bus: Callable[[], EventBus], publishes: Sequence[type[EventPayload]]
) -> Callable[[Request], Response]:
    """The endpoint of one of the mesh's own services, whose bus knows more types than the service publishes."""

    def serve(_: Request) -> Response:
        return JSONResponse(build_asyncapi(find_bus(), version=__version__, publishes=publishes))

    return serve


def build_asyncapi(
    bus: EventBus,
    *,
    title: str = "",
    version: str = "0.0.0",
    server: str = "",
    publishes: Sequence[type[EventPayload]] | None = None,
) -> Document:
    """Describe a bus.

    Args:
        server: URL of the broker, without its credentials; left out if empty.
        publishes: What is sent, where that is not all that the bus may.
    """
    types = {item.event_topic: item for item in bus.types}
    sent = bus.publishes if publishes is None else publishes
    used = {item.event_topic: item for item in sent}
    channels: Document = {}
    operations: Document = {}
    for payload_type in sent:
        topic = payload_type.event_topic
        channels[_id(topic)] = _channel(topic, {topic: types[topic]})
        operations[f"publish.{_id(topic)}"] = _operation("send", topic, [topic], _summary(payload_type))
    for subscribed in bus.subscriptions:
        for pattern in subscribed.subscription.patterns:
            known = {topic: item for topic, item in types.items() if matches(pattern, topic)}
            used |= known
            channels.setdefault(_id(pattern), _channel(pattern, known))
            operation = _operation("receive", pattern, list(known), (subscribed.handler.__doc__ or "").strip())
            operations[f"{subscribed.name}.{_id(pattern)}"] = {**operation, **_consumer(subscribed)}
    document: Document = {
        "asyncapi": "3.0.0",
        "info": {"title": title or bus.service, "version": version},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": _components(used.values()),
    }
    if server:
        protocol, _, host = server.partition("://")
        document["servers"] = {"mesh": {"host": host.rpartition("@")[2] or "mesh", "protocol": protocol}}
    return document


def _channel(topic: str, types: Mapping[str, type[EventPayload]]) -> Document:
    return {
        "address": topic,
        "messages": {_id(name): {"$ref": f"#/components/messages/{_id(name)}"} for name in types},
    }


def _operation(action: str, topic: str, messages: list[str], summary: str) -> Document:
    channel = f"#/channels/{_id(topic)}"
    operation: Document = {
        "action": action,
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{_id(name)}"} for name in messages],
    }
    if summary:
        operation["summary"] = summary.splitlines()[0]
    return operation


def _consumer(subscribed: Subscribed) -> Document:
    subscription = subscribed.subscription
    return {
        "x-toska-group": subscription.group,
        "x-toska-ordered": subscription.ordered,
        "x-toska-attempts": subscription.attempts,
        **({"x-toska-where": dict(subscription.where)} if subscription.where else {}),
    }


def _components(types: Iterable[type[EventPayload]]) -> Document:
    messages: Document = {}
    schemas: Document = {}
    for payload_type in types:
        name = _id(payload_type.event_topic)
        schema = payload_type.model_json_schema(ref_template=f"#/components/schemas/{name}/$defs/{{model}}")
        schemas[name] = schema
        messages[name] = {
            "name": payload_type.__name__,
            "title": payload_type.event_topic,
            "summary": _summary(payload_type),
            "contentType": "application/json",
            "headers": {
                "type": "object",
                "properties": {
                    "type": {"const": payload_type.event_topic},
                    "dataversion": {"const": str(payload_type.event_version)},
                },
            },
            "payload": {"$ref": f"#/components/schemas/{name}"},
        }
    return {"messages": messages, "schemas": schemas}


def _summary(payload_type: type[EventPayload]) -> str:
    return (payload_type.__doc__ or "").strip().partition("\n")[0]


def _id(topic: str) -> str:
    # Keys of components are A-Z a-z 0-9 . _ -; a pattern has words that are not.
    return re.sub(r"[^A-Za-z0-9._-]", lambda found: {"*": "any", "#": "all"}.get(found[0], "_"), topic)
