"""Events by aio-pika alone, as its manual has it: an exchange, a quorum queue, confirms, and acks after the handler."""

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractExchange, AbstractIncomingMessage, AbstractQueue
from aiormq.exceptions import ConnectionInternalError
from toska_common.events.event import Event

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class BareBroker:
    """An exchange, and a quorum queue that is bound to it by a topic."""

    exchange: AbstractExchange
    queue: AbstractQueue
    tags: list[str] = field(default_factory=list[str])

    async def publish(self, message: aio_pika.Message, topic: str) -> None:
        """Publish one message; it is confirmed when this returns."""
        await self.exchange.publish(message, topic)

    async def handle(self, handler: Callable[[bytes], Awaitable[None]]) -> None:
        """Have each message's body handled, and acked after that."""

        async def take(message: AbstractIncomingMessage) -> None:
            await handler(message.body)
            await message.ack()

        self.tags.append(await self.queue.consume(take))


@asynccontextmanager
async def bare_broker(url: str, topic: str, *, prefetch: int) -> AsyncGenerator[BareBroker]:
    """One channel to publish and to consume on; what was declared is deleted at the end."""
    connection, broker = await _declared(url, topic, prefetch)
    try:
        yield broker
        for tag in broker.tags:
            await broker.queue.cancel(tag)
        await broker.queue.delete(if_unused=False, if_empty=False)
        await broker.exchange.delete()
    finally:
        await connection.close()


async def _declared(url: str, topic: str, prefetch: int) -> tuple[AbstractConnection, BareBroker]:
    # A busy node that has just started may not have a quorum queue's leader in time, and closes the connection.
    for left in reversed(range(_ATTEMPTS)):
        connection = await aio_pika.connect(url)
        try:
            return connection, await _declare(connection, topic, prefetch)
        except ConnectionInternalError:
            if not left:
                raise
    raise AssertionError("unreachable")


async def _declare(connection: AbstractConnection, topic: str, prefetch: int) -> BareBroker:
    channel = await connection.channel()
    await channel.set_qos(prefetch)
    name = f"bare{secrets.token_hex(4)}"
    exchange = await channel.declare_exchange(name, "topic", durable=True)
    queue = await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})
    await queue.bind(exchange, topic)
    return BareBroker(exchange, queue)


def bare_message(event: Event) -> aio_pika.Message:
    """The payload, with the attributes that CloudEvents requires as headers."""
    headers = {"specversion": "1.0", "id": event.id, "source": event.source, "type": event.topic}
    headers["time"] = event.time.isoformat()
    named = {f"cloudEvents_{attribute}": value for attribute, value in headers.items()}
    return aio_pika.Message(event.data, headers=dict(named), content_type=event.content_type, delivery_mode=2)
