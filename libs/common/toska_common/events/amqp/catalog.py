"""The facts about topics and groups, kept up to date from their stream, and told to it."""

import asyncio
import secrets

import anyio
import structlog
from aiormq import spec

from toska_common.events.amqp.envelope import MARKER
from toska_common.events.amqp.errors import Gone, asked
from toska_common.events.amqp.facts import MAX_BYTES, Fact, Facts, TopicFact, read, write
from toska_common.events.amqp.link import Link
from toska_common.events.amqp.names import Names
from toska_common.events.amqp.streams import headers_of, reading
from toska_common.events.errors import EventRefused, EventsUnavailable
from toska_common.events.transport import TopicSettings

log = structlog.get_logger(__name__)

_LOOK_AFTER = 1000
"""Records after which somebody looks whether a fact fades."""


class Catalog:
    """Facts of a namespace, a moment old; `current` waits until they are not."""

    def __init__(self, reading_from: Link, telling_by: Link, names: Names) -> None:
        self._reading_from, self._telling_by = reading_from, telling_by
        self._names = names
        self._markers: dict[str, asyncio.Event] = {}
        self._announcing = anyio.Lock()
        self.facts = Facts()

    async def run(self) -> None:
        """Follow the stream, until cancelled."""
        while True:
            try:
                async with reading(self._reading_from, self._names.catalog, self.facts.last + 1) as records:
                    async for offset, message in records:
                        headers = headers_of(message)
                        self.facts.learn(offset, read(message.body))
                        marker = self._markers.get(str(headers.get(MARKER)))
                        if marker is not None:
                            marker.set()
                        if offset % _LOOK_AFTER == _LOOK_AFTER - 1:
                            await self._tell_fading()
            except (Gone, EventsUnavailable) as error:
                log.debug("catalog_interrupted", reason=str(error))
            await anyio.sleep(0.2)

    async def current(self) -> Facts:
        """The facts, with everything in them that was told before this was called."""
        return await self._put(b"")

    async def tell(self, fact: Fact) -> None:
        """Make a fact known; returns once it is true here as well.

        Raises:
            EventRefused: It is too long to be kept.
        """
        record = write(fact)
        if len(record) > MAX_BYTES:
            raise EventRefused(f"what RabbitMQ has to remember of it has {len(record)} bytes; {MAX_BYTES} are allowed")
        await self._put(record)

    async def _put(self, record: bytes) -> Facts:
        name = secrets.token_hex(8)
        arrived = self._markers[name] = asyncio.Event()
        try:
            await self._append(record, {MARKER: name})
            await arrived.wait()
        finally:
            del self._markers[name]
        return self.facts

    async def know_topic(self, topic: str) -> TopicFact:
        """The topic's fact; one that is published to for the first time is announced."""
        async with self._announcing:
            fact = self.facts.topic(topic)
            if fact is None:
                before = self.facts.topics.get(topic)
                deleted_at = 0 if before is None else before.deleted_at
                await self.tell(TopicFact(TopicSettings(topic), deleted_at))
                fact = self.facts.topics[topic]
            return fact

    async def _tell_fading(self) -> None:
        # Of many that notice, whoever is first is soon heard of by the others.
        await anyio.sleep(secrets.randbelow(1000) / 1000)
        for fact in list(self.facts.fading()):
            await self._append(write(fact), {})

    async def _append(self, record: bytes, headers: dict[str, str]) -> None:
        while True:
            try:
                async with self._telling_by.channel(confirms=True) as channel:
                    properties = spec.Basic.Properties(delivery_mode=2, headers=dict(headers))
                    publishing = channel.basic_publish(
                        record, routing_key=self._names.catalog, properties=properties, mandatory=True
                    )
                    await asked("telling the catalog", publishing)
                    return
            except Gone as error:
                # A record that was told twice is as true as one that was told once.
                log.debug("catalog_not_told", reason=str(error))
                await anyio.sleep(0.2)
