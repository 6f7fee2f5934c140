"""The bus of one of the mesh's own services: it announces what happened, and never keeps the service from its work."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from prometheus_client import CollectorRegistry

from toska_common.clock import Clock
from toska_common.contracts.events import MESH_EVENTS
from toska_common.events.bus import EventBus
from toska_common.events.opening import open_transport
from toska_common.events.transport import Transport
from toska_common.settings import ServiceSettings


def mesh_bus(service: str, settings: ServiceSettings, *, clock: Clock, registry: CollectorRegistry) -> EventBus:
    """A bus for `offer`ing the mesh's own events: what cannot be published now is kept in bounded memory.

    Args:
        service: `toska-discovery` and so on.
    """
    return EventBus(service, _connector(service, settings), publishes=MESH_EVENTS, clock=clock, registry=registry)


def _connector(service: str, settings: ServiceSettings) -> Callable[[], AbstractAsyncContextManager[Transport]]:
    def connect() -> AbstractAsyncContextManager[Transport]:
        return open_transport(
            settings.events_url.get_secret_value(),
            home=settings.home,
            token=settings.credentials().admin,
            service=service,
        )

    return connect
