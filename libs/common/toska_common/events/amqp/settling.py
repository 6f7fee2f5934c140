"""What becomes of an event that was not handled: it waits and goes back to its queue, or is buried with the reason.

Either way a copy is confirmed before the original is acked, so that it is never gone; it may be doubled.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog
from anyio.abc import TaskGroup

from toska_common.events.amqp.catalog import Catalog
from toska_common.events.amqp.delivery import AmqpDelivery
from toska_common.events.amqp.envelope import ATTEMPT, DIED, ID, REASON, TOPIC, milliseconds
from toska_common.events.amqp.errors import Gone, NoQueue
from toska_common.events.amqp.facts import with_wait
from toska_common.events.amqp.link import Link
from toska_common.events.amqp.names import RETRY_GRACE, retry_wait_ms
from toska_common.events.amqp.posting import Letter, Postman
from toska_common.events.amqp.topology import Topology
from toska_common.events.errors import EventsUnavailable
from toska_common.events.event import new_id

log = structlog.get_logger(__name__)

_DECLARE_EVERY = RETRY_GRACE / 10


class Settling:
    """Retries and burials of one group."""

    def __init__(
        self,
        group: str | None,
        link: Link,
        postman: Postman,
        topology: Topology,
        catalog: Catalog,
        tasks: TaskGroup,
        now: Callable[[], datetime],
    ) -> None:
        self._group = group
        self._link = link
        self._postman = postman
        self._topology = topology
        self._catalog = catalog
        self._tasks = tasks
        self._now = now
        self._declared: dict[tuple[str, int], datetime] = {}

    async def retry(self, delivery: AmqpDelivery, after: timedelta, reason: str) -> None:
        """Have it go back to its queue.

        Raises:
            EventsUnavailable: RabbitMQ is away.
        """
        headers = {**own_headers(delivery.headers), ATTEMPT: delivery.attempt, REASON: reason}
        await self._send(delivery, headers, after)

    async def bury(self, delivery: AmqpDelivery, reason: str) -> None:
        """Keep it with the dead letters.

        Raises:
            EventsUnavailable: RabbitMQ is away.
        """
        if self._group is None:
            return
        now = self._now()
        headers = {
            **own_headers(delivery.headers),
            ATTEMPT: delivery.attempt,
            REASON: reason,
            DIED: milliseconds(now),
            ID: f"{self._group}:{new_id(now)}",
            TOPIC: delivery.event.topic,
        }
        queue = self._topology.names.dead(self._group)
        await self._post(Letter(queue, headers, delivery.content_type, delivery.body), redeclare=None)

    def bury_soon(self, delivery: AmqpDelivery, reason: str) -> None:
        """The same for one that no handler is given."""

        async def bury() -> None:
            log.warning("event_buried", group=self._group, event_id=delivery.event.id, reason=reason)
            try:
                await self.bury(delivery, reason)
                delivery.session.done(delivery)
            except EventsUnavailable as error:
                log.warning("event_not_buried", group=self._group, reason=error.detail)  # it comes again

        self._tasks.start_soon(bury)

    async def _send(self, delivery: AmqpDelivery, headers: Mapping[str, Any], after: timedelta) -> None:
        queue = delivery.source.queue
        if after <= timedelta(0):
            await self._post(Letter(queue, headers, delivery.content_type, delivery.body), redeclare=None)
            return
        wait_ms = retry_wait_ms(after)
        name = await self._declare(queue, wait_ms, again=False)
        letter = Letter(name, headers, delivery.content_type, delivery.body)
        await self._post(letter, redeclare=(queue, wait_ms))

    async def _post(self, letter: Letter, *, redeclare: tuple[str, int] | None) -> None:
        try:
            try:
                await self._postman.post(letter)
            except NoQueue:
                if redeclare is None:
                    raise
                await self._declare(*redeclare, again=True)
                await self._postman.post(letter)
        except Gone as error:
            raise EventsUnavailable(f"RabbitMQ did not take back an event: {error}") from error

    async def _declare(self, queue: str, wait_ms: int, *, again: bool) -> str:
        now = self._now()
        declared = self._declared.get((queue, wait_ms))
        if again or declared is None or now - declared > _DECLARE_EVERY:
            try:
                async with self._link.channel() as channel:
                    await self._topology.declare_retry(channel, queue, wait_ms)
            except Gone as error:
                raise EventsUnavailable(f"RabbitMQ did not take back an event: {error}") from error
            self._declared[queue, wait_ms] = now
            await self._remember(wait_ms)
        return self._topology.names.retry(queue, wait_ms)

    async def _remember(self, wait_ms: int) -> None:
        fact = self._catalog.facts.group(self._group or "")
        if fact is not None and wait_ms not in fact.waits:
            await self._catalog.tell(with_wait(fact, wait_ms))


def own_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Headers to send again: without those of the broker, which are about the way that a message took."""
    return {name: value for name, value in headers.items() if not name.startswith("x-")}
