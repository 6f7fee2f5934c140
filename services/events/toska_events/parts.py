"""What the API stands on, while the service is open."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import anyio
from toska_common.clients.consul import ConsulClient
from toska_common.clock import Clock, SystemClock
from toska_common.events.errors import EventsUnavailable
from toska_common.events.transport import Message, Transport

from toska_events.hosting import HostedLog
from toska_events.schemas.book import SchemaBook
from toska_events.settings import Settings
from toska_events.webhooks.book import WebhookBook

PUBLISHED_WITHIN = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Webhooks:
    """Where webhooks are kept, and how the mesh's own addresses are asked for."""

    book: WebhookBook
    consul: ConsulClient


@dataclass(slots=True)
class Parts:
    """Of one events service.

    Attributes:
        transport: The way to whatever carries events, with the admin token; `None` while that is away.
        log: The log of this service's own; `None` where RabbitMQ or Redis carries events.
        schemas: `None` while the service is not open.
        webhooks: The same.
        stopping: Set when the service begins to stop: streams end at once.
        streams: How many there are.
    """

    settings: Settings
    clock: Clock = field(default_factory=SystemClock)
    transport: Transport | None = None
    log: HostedLog | None = None
    schemas: SchemaBook | None = None
    webhooks: Webhooks | None = None
    stopping: anyio.Event = field(default_factory=anyio.Event)
    streams: int = 0

    def get_transport(self) -> Transport:
        """The way to whatever carries events.

        Raises:
            EventsUnavailable: It is away.
        """
        if self.transport is None:
            raise EventsUnavailable("what carries events is away")
        return self.transport

    def get_schemas(self) -> SchemaBook:
        """The schema registry.

        Raises:
            EventsUnavailable: The service is not open.
        """
        if self.schemas is None:
            raise EventsUnavailable("the events service is starting")
        return self.schemas

    def get_webhooks(self) -> Webhooks:
        """The webhooks.

        Raises:
            EventsUnavailable: The service is not open.
        """
        if self.webhooks is None:
            raise EventsUnavailable("the events service is starting")
        return self.webhooks

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publish, or say in time that it could not be done.

        Raises:
            EventsUnavailable: It was not confirmed in time.
        """
        try:
            with anyio.fail_after(PUBLISHED_WITHIN.total_seconds()):
                await self.get_transport().publish(messages)
        except TimeoutError as error:
            within = PUBLISHED_WITHIN.total_seconds()
            raise EventsUnavailable(f"it was not confirmed within {within:g} s, and may have been published") from error
