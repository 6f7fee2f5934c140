"""Messages to one certain queue; RabbitMQ gives back those for which there is none, instead of dropping them."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import anyio
from aiormq import PublishError, spec
from aiormq.abc import AbstractChannel

from toska_common.events.amqp.errors import Gone, NoQueue, asked
from toska_common.events.amqp.link import Link, close_channel

_AT_ONCE = 200


class Letter(NamedTuple):
    """A message to a queue, or to the queues behind an exchange."""

    queue: str
    headers: Mapping[str, Any]
    content_type: str
    body: bytes
    exchange: str = ""
    message_id: str | None = None


class Postman:
    """Sends letters over a channel that it opens when it needs it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._channel: AbstractChannel | None = None
        self._opening = anyio.Lock()

    async def post(self, letter: Letter) -> None:
        """Return once it is confirmed.

        Raises:
            NoQueue: There is none to take it.
            Gone: The connection went away; it may have been sent.
        """
        channel = await self._open()
        properties = spec.Basic.Properties(
            content_type=letter.content_type,
            headers=dict(letter.headers),
            delivery_mode=2,
            message_id=letter.message_id,
        )
        try:
            await asked(
                "sending to a queue",
                channel.basic_publish(
                    letter.body,
                    exchange=letter.exchange,
                    routing_key=letter.queue,
                    properties=properties,
                    mandatory=True,
                ),
            )
        except Gone as error:
            if isinstance(error.__cause__, PublishError):
                raise NoQueue(f"there is no queue {letter.queue}") from None
            raise

    async def post_all(self, letters: Iterable[Letter]) -> None:
        """Send many, some of them at once; in their order, as long as none fails.

        Raises:
            NoQueue, Gone: As above; some may have been sent.
        """
        batch: list[Letter] = []
        for letter in letters:
            batch.append(letter)
            if len(batch) == _AT_ONCE:
                await self._post_batch(batch)
                batch = []
        await self._post_batch(batch)

    async def _post_batch(self, letters: list[Letter]) -> None:
        results = await asyncio.gather(*map(self.post, letters), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def close(self) -> None:
        """Send no more."""
        if self._channel is not None:
            await close_channel(self._channel)

    async def _open(self) -> AbstractChannel:
        if self._channel is None or self._channel.is_closed:
            async with self._opening:
                if self._channel is None or self._channel.is_closed:
                    connection = await self._link.connected()
                    self._channel = await asked("opening a channel", connection.channel(frame_buffer_size=1000))
        return self._channel
