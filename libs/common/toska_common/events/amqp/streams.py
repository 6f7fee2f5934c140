"""Reading a stream over AMQP from a place in it, as it grows. Whoever reads remembers the offset; AMQP stores none."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiormq
from aiormq.abc import AbstractChannel, DeliveredMessage

from toska_common.events.amqp.errors import Gone, asked
from toska_common.events.amqp.link import Link
from toska_common.events.amqp.untyped import closing
from toska_common.events.transport import Start

OFFSET = "x-stream-offset"
_AHEAD = 256


def place(start: Start) -> Any:
    """A start as a stream's consumer says it; that of a time is that of the chunk which has it, some events early."""
    if start.offset is not None:
        return max(0, start.offset)
    if start.time is not None:
        return start.time.replace(microsecond=0)
    return "first" if start.beginning else "next"


class StreamReader:
    """Records as they come, in order."""

    def __init__(self, channel: AbstractChannel) -> None:
        self._channel = channel
        self._records: deque[DeliveredMessage] = deque()
        self._came = asyncio.Event()
        self._ended = False
        self._unacked = 0

    def __aiter__(self) -> "StreamReader":
        return self

    async def __anext__(self) -> tuple[int, DeliveredMessage]:
        while not self._records:
            if self._ended:
                raise Gone("the stream's channel is closed")
            self._came.clear()
            await self._came.wait()
        message = self._records.popleft()
        self._unacked += 1
        if self._unacked >= _AHEAD // 4:
            self._unacked = 0
            await asked(
                "acking a stream", self._channel.basic_ack(message.delivery_tag or 0, multiple=True, wait=False)
            )
        return _offset(message), message

    async def open(self, stream: str, at: Any) -> None:
        """Begin."""
        self._channel.on_consumer_cancel_callbacks.add(self._cancelled)
        closing(self._channel).add_done_callback(lambda _: self._end())
        await asked("reading a stream", self._channel.basic_qos(prefetch_count=_AHEAD))
        await asked(
            f"reading {stream}", self._channel.basic_consume(stream, self._take, arguments={OFFSET: at}, timeout=30)
        )

    async def _take(self, message: DeliveredMessage) -> None:
        self._records.append(message)
        self._came.set()

    async def _cancelled(self, _: aiormq.spec.Basic.Cancel | aiormq.spec.Basic.CancelOk) -> None:
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._came.set()


@asynccontextmanager
async def reading(link: Link, stream: str, at: Any) -> AsyncGenerator[StreamReader]:
    """Read a stream on a channel of its own.

    Raises:
        Gone: The connection went away; also while reading.
    """
    async with link.channel() as channel:
        reader = StreamReader(channel)
        await reader.open(stream, at)
        yield reader


def _offset(message: DeliveredMessage) -> int:
    value = (message.header.properties.headers or {}).get(OFFSET)
    return value if isinstance(value, int) else -1


def headers_of(message: DeliveredMessage) -> dict[str, Any]:
    """The headers of a message, those of the broker included."""
    headers: Any = message.header.properties.headers
    return headers or {}
