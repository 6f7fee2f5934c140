"""Events: what happened, told to whoever wants to know, at least once and in order where a key asks for it.

    bus = mesh.events(publishes=[OrderPlaced])

    @bus.subscribe("payments.*.*", group="orders")
    async def settle(incoming: Incoming[PaymentTaken]) -> None: ...

    await bus.publish(OrderPlaced(id="o-1"), key="o-1")

One API over several transports, chosen by the scheme of a URL: the embedded log of a laptop's mesh (`embedded://`),
RabbitMQ (`amqp://`), and Redis for what may be lost (`redis://`). Names are loaded when first used, so that a service
which publishes nothing pays nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toska_common.events.bus import EventBus
    from toska_common.events.errors import (
        EventRefused,
        EventsUnavailable,
        EventTooLarge,
        InvalidPayload,
        Reject,
        Retry,
        SchemaRefused,
    )
    from toska_common.events.event import Event
    from toska_common.events.handlers import Incoming
    from toska_common.events.payload import EventPayload
    from toska_common.events.retrying import Retrying
    from toska_common.events.transport import Message, Priority, Start

_HOMES = {
    "EventBus": "bus",
    "EventPayload": "payload",
    "Incoming": "handlers",
    "Event": "event",
    "Retrying": "retrying",
    "Message": "transport",
    "Priority": "transport",
    "Start": "transport",
    "EventRefused": "errors",
    "EventTooLarge": "errors",
    "EventsUnavailable": "errors",
    "InvalidPayload": "errors",
    "Reject": "errors",
    "Retry": "errors",
    "SchemaRefused": "errors",
}

__all__ = [
    "Event",
    "EventBus",
    "EventPayload",
    "EventRefused",
    "EventTooLarge",
    "EventsUnavailable",
    "Incoming",
    "InvalidPayload",
    "Message",
    "Priority",
    "Reject",
    "Retry",
    "Retrying",
    "SchemaRefused",
    "Start",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
