"""The transport contract over the embedded log's socket."""

import struct
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from toska_common.events.background import background
from toska_common.events.embedded.client import LogClient
from toska_common.events.embedded.consumer import EmbeddedConsumer
from toska_common.events.embedded.frames import ID_BYTES, MAX_BATCH
from toska_common.events.embedded.paths import socket_path
from toska_common.events.embedded.records import decode_event, encode_messages, moment, unpack_stored
from toska_common.events.embedded.wording import (
    ReadRequest,
    read_group,
    read_letter,
    read_topic,
    settings_json,
    start_json,
)
from toska_common.events.errors import EventsUnavailable, EventTooLarge
from toska_common.events.topics import check_group, check_pattern, check_topic
from toska_common.events.transport import (
    DeadLetter,
    GroupState,
    Message,
    Start,
    Stored,
    Subscription,
    TopicSettings,
    TopicState,
)

_PAGE_HEAD = struct.Struct("<Bqq")
_REMEMBERED_TOPICS = 10_000


@asynccontextmanager
async def open_embedded(
    home: Path, *, token: str, service: str, timeout: timedelta = timedelta(seconds=10)
) -> AsyncGenerator["EmbeddedTransport"]:
    """Reach the event log of the mesh whose state is in `home`.

    Args:
        token: The join token, or the admin token for `administration`.
        service: Who this is, for logs.
        timeout: How long each call waits while the log is away.

    Raises:
        EventsUnavailable: The log is not there. Once it was, the connection comes back by itself.
    """
    client = LogClient(socket_path(home), token, service, timeout.total_seconds())
    async with background() as tasks:
        tasks.start_soon(client.run)
        try:
            await client.first_attempt
            yield EmbeddedTransport(client)
        finally:
            client.close()


class EmbeddedTransport:
    """The log, while it is reached; `open_embedded` makes it."""

    durable = True

    def __init__(self, client: LogClient) -> None:
        self._client = client
        self._topics: set[str] = set()
        self.administration = EmbeddedAdministration(client)

    @property
    def connected(self) -> bool:
        """Whether the log is there now."""
        return self._client.connected

    async def publish(self, messages: Sequence[Message]) -> None:
        """Store events, all or none, and return when they are safe."""
        if not messages:
            return
        limit = self._client.max_event_bytes
        for message in messages:
            self._check_topic(message.event.topic)
            if len(message.event.data) > limit:
                raise EventTooLarge(
                    f"the data of {message.event.topic} have {len(message.event.data)} bytes; {limit} are allowed",
                    max_bytes=limit,
                )
        pieces = encode_messages(messages)
        size = sum(map(len, pieces))
        if size > MAX_BATCH:
            raise EventTooLarge(
                f"the events of one call have {size} bytes; {MAX_BATCH} are allowed", max_bytes=MAX_BATCH
            )
        await self._client.publish(pieces, size)

    @asynccontextmanager
    async def subscribe(self, subscription: Subscription) -> AsyncGenerator[EmbeddedConsumer]:
        """Open a subscription."""
        for pattern in subscription.patterns:
            check_pattern(pattern)
        if subscription.group is not None:
            check_group(subscription.group)
        consumer = await self._client.subscribe(subscription)
        try:
            yield consumer
        finally:
            self._client.unsubscribe(consumer)

    async def read(self, patterns: Sequence[str], start: Start, *, limit: int | None = None) -> AsyncGenerator[Stored]:
        """What is kept, a page at a time."""
        request = ReadRequest(tuple(check_pattern(pattern) for pattern in patterns), start, limit=limit)
        left = limit
        while left is None or left > 0:
            page = await self._client.read(request.json())
            last, after, upto = _PAGE_HEAD.unpack_from(page, ID_BYTES)
            for entry in unpack_stored(page, ID_BYTES + _PAGE_HEAD.size):
                yield Stored(entry.offset, decode_event(entry.head, entry.data), moment(entry.stored_at))
                if left is not None:
                    left -= 1
                    if left == 0:
                        return
            if last:
                return
            request = ReadRequest(request.patterns, start, after, upto, left)

    def _check_topic(self, topic: str) -> None:
        if topic not in self._topics:
            check_topic(topic)
            if len(self._topics) >= _REMEMBERED_TOPICS:
                self._topics.clear()
            self._topics.add(topic)


class EmbeddedAdministration:
    """Topics, groups and dead letters; the log refuses who has not the admin token."""

    def __init__(self, client: LogClient) -> None:
        self._client = client

    async def topics(self) -> list[TopicState]:
        """Every topic, by name."""
        return [read_topic(content) for content in (await self._call("topics"))["topics"]]

    async def put_topic(self, settings: TopicSettings) -> None:
        """Create a topic, or set it anew."""
        await self._call("put_topic", settings=settings_json(settings))

    async def delete_topic(self, name: str) -> None:
        """Forget a topic and its events."""
        await self._call("delete_topic", name=name)

    async def groups(self) -> list[GroupState]:
        """Every group, by name."""
        return [read_group(content) for content in (await self._call("groups"))["groups"]]

    async def delete_group(self, name: str) -> None:
        """Forget a group."""
        await self._call("delete_group", name=name)

    async def seek(self, group: str, start: Start) -> None:
        """Move a group."""
        await self._call("seek", group=group, start=start_json(start))

    async def dead_letters(self, group: str | None = None, *, limit: int = 100, after: str = "") -> list[DeadLetter]:
        """By id, those after `after`; at most 1000 at a time, and fewer where they are large."""
        answer = await self._call("dead_letters", group=group, limit=limit, after=after)
        return [read_letter(content) for content in answer["letters"]]

    async def dead_letter(self, id: str) -> DeadLetter:  # noqa: A002 - what it is called
        """One of them."""
        return read_letter((await self._call("dead_letter", id=id))["letter"])

    async def redrive(self, ids: Sequence[str]) -> int:
        """Give them to their groups again."""
        return int((await self._call("redrive", ids=list(ids)))["count"])

    async def purge(self, ids: Sequence[str]) -> int:
        """Forget them."""
        return int((await self._call("purge", ids=list(ids)))["count"])

    async def _call(self, do: str, **content: Any) -> dict[str, Any]:
        return await self._client.call({"do": do, **content})


__all__ = ["EmbeddedTransport", "EventsUnavailable", "open_embedded"]
