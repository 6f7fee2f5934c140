"""A delivery of RabbitMQ's in the hands of a consumer."""

from collections.abc import Awaitable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from toska_common.events.event import Event

if TYPE_CHECKING:
    from toska_common.events.amqp.session import Session, Source


class AmqpDelivery:
    """An event, and where it came from. Settling one whose channel is gone does nothing: it comes again."""

    __slots__ = (
        "_settled", "attempt", "attempt_is_local", "body", "content_type", "event", "headers", "offset", "session",
        "source", "tag",
    )  # fmt: skip

    def __init__(
        self,
        session: "Session",
        source: "Source",
        tag: int,
        event: Event,
        headers: Mapping[str, Any],
        content_type: str,
        body: bytes,
        attempt: int,
    ) -> None:
        self.session = session
        self.source = source
        self.tag = tag
        self.event = event
        self.headers = headers
        self.content_type = content_type
        self.body = body
        self.attempt = attempt
        self.offset: int | None = None
        self._settled = False
        self.attempt_is_local = False

    async def ack(self) -> None:
        """It was handled."""
        if not self._settled:
            self._settled = True
            self.session.done(self)

    async def retry(self, after: timedelta, reason: str) -> None:
        """Hand it out again.

        Raises:
            EventsUnavailable: RabbitMQ is away; then it comes again by itself.
        """
        if not self._settled:
            await self._settle(self.session.again(self, after, reason))

    async def reject(self, reason: str) -> None:
        """Keep it with the dead letters.

        Raises:
            EventsUnavailable: RabbitMQ is away; then it comes again by itself.
        """
        if not self._settled:
            await self._settle(self.session.bury(self, reason))

    def reopen(self) -> None:
        """It is handed out once more, without having left the process."""
        self._settled = False
        self.attempt_is_local = True
        self.attempt += 1

    async def _settle(self, way: Awaitable[None]) -> None:
        done, self._settled = False, True  # another way to settle it does nothing meanwhile
        try:
            await way
            done = True
        finally:
            self._settled = done
