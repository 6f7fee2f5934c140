"""Reading the log back: what is kept of some topics, from a place on, up to what is there when reading begins."""

import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from aiormq import spec
from aiormq.abc import DeliveredMessage

from toska_common.errors import InvalidInput
from toska_common.events.amqp.catalog import Catalog
from toska_common.events.amqp.envelope import AT, MARKER, BadEnvelope, milliseconds, moment, number, unseal
from toska_common.events.amqp.errors import Gone, asked
from toska_common.events.amqp.link import Link
from toska_common.events.amqp.names import Names
from toska_common.events.amqp.streams import headers_of, place, reading
from toska_common.events.cloudevents import from_structured
from toska_common.events.event import Event
from toska_common.events.topics import check_pattern, is_ephemeral, matches
from toska_common.events.transport import Start, Stored


class Record(NamedTuple):
    """A message of the log that is wanted."""

    offset: int
    event: Event
    at: int
    message: DeliveredMessage


class Log:
    """The stream of all events."""

    def __init__(self, link: Link, names: Names, catalog: Catalog, now: Callable[[], datetime], *, kept: bool) -> None:
        self._link = link
        self._names = names
        self._catalog = catalog
        self._now = now
        self.kept = kept

    async def read(self, patterns: Sequence[str], start: Start, *, limit: int | None = None) -> AsyncGenerator[Stored]:
        """What is kept, by offset.

        Raises:
            InvalidInput: No log is kept, or a pattern is none.
            Gone: The connection went away.
        """
        left = limit
        if left is not None and left <= 0:
            return
        async for record in self.records(patterns, start):
            yield Stored(record.offset, record.event, moment(record.at))
            if left is not None:
                left -= 1
                if not left:
                    return

    def require(self) -> None:
        """Whether there is one.

        Raises:
            InvalidInput: There is none.
        """
        if not self.kept:
            reason = "the URL of RabbitMQ says log=false, so nothing is kept for reading again"
            raise InvalidInput(reason, problems=[{"field": "start", "reason": reason}])

    async def records(self, patterns: Sequence[str], start: Start) -> AsyncGenerator[Record]:
        """The messages themselves."""
        self.require()
        for pattern in patterns:
            check_pattern(pattern)
        if start.is_now:
            return
        if start.offset is not None and start.offset >= await self._end():
            return
        first_at = 0 if start.time is None else milliseconds(start.time)
        async with reading(self._link, self._names.log, place(start)) as messages:
            # Marked once reading has begun: a moment after the last event means what comes next, and that is the mark.
            end = await self._mark()
            async for offset, message in messages:
                if headers_of(message).get(MARKER) == end:
                    return
                record = self._record(offset, message)
                if record is None or not any(matches(pattern, record.event.topic) for pattern in patterns):
                    continue
                # A stream begins with a whole chunk, and so with some that are older.
                if offset >= (start.offset or 0) and record.at >= first_at:
                    yield record

    def _record(self, offset: int, message: DeliveredMessage) -> Record | None:
        headers = headers_of(message)
        if MARKER in headers:
            return None
        try:
            event = unseal(headers, content_type_of(message), message.body, structured=self._structured)
        except BadEnvelope:
            return None  # it goes to the dead letters of those who were given it
        at = number(headers, AT)
        at = milliseconds(event.time) if at is None else at
        if is_ephemeral(event.topic) or self._is_hidden(event.topic, at):
            return None
        return Record(offset, event, at, message)

    def _is_hidden(self, topic: str, at: int) -> bool:
        facts = self._catalog.facts
        if facts.forgotten(topic, at):
            return True
        fact = facts.topic(topic)
        if fact is None:
            return False
        settings = fact.settings
        too_old = settings.max_age is not None and milliseconds(self._now() - settings.max_age) > at
        return too_old or not settings.replayable

    async def _end(self) -> int:
        """The offset after that of the last event."""
        mark = await self._mark()
        async with reading(self._link, self._names.log, "last") as messages:
            async for offset, message in messages:
                if headers_of(message).get(MARKER) == mark:
                    return offset
        raise Gone("the log ended")

    async def _mark(self) -> str:
        # AMQP does not say where a stream ends. A record of our own does, and nobody else sees it.
        name = secrets.token_hex(8)
        async with self._link.channel(confirms=True) as channel:
            properties = spec.Basic.Properties(delivery_mode=2, headers={MARKER: name})
            publishing = channel.basic_publish(b"", routing_key=self._names.log, properties=properties, mandatory=True)
            await asked("marking the end of the log", publishing)
        return name

    def _structured(self, body: bytes) -> Event:
        return from_structured(body, now=self._now())


def content_type_of(message: DeliveredMessage) -> str:
    """The content type of a message, or nothing."""
    return message.header.properties.content_type or ""
