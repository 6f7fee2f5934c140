"""A test's own share of a RabbitMQ."""

import os
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiormq
import anyio
from aiormq.abc import AbstractChannel
from toska_common.events.amqp.transport import AmqpTransport, open_amqp
from toska_common.events.event import Event
from toska_common.events.transport import Consumer, Subscription

from toska_tests.event_carriers import rabbit_carrier
from toska_tests.rabbit_servers import RabbitServer
from toska_tests.waiting import PATIENT_S


class Rig:
    """A broker and a namespace of the test's own on it."""

    def __init__(self, server: RabbitServer) -> None:
        self.server = server
        self.namespace = f"t{os.urandom(4).hex()}"
        self.carrier = rabbit_carrier(server)
        self.wanted = Subscription((self.carrier.topic("#"),), group="workers")

    def open(self, url: str = "", **parameters: object) -> AbstractAsyncContextManager[AmqpTransport]:
        query = "&".join(f"{name}={value}" for name, value in {"namespace": self.namespace, **parameters}.items())
        return open_amqp(f"{url or self.server.url}?{query}")

    def events(self, first: int, last: int, **more: Any) -> list[Event]:
        return [self.carrier.event("a", str(number).encode(), **more) for number in range(first, last)]

    @asynccontextmanager
    async def channel(self) -> AsyncGenerator[AbstractChannel]:
        """A channel of somebody else's."""
        connection = await aiormq.connect(self.server.url)
        try:
            yield await connection.channel()
        finally:
            await connection.close()


async def collect(consumer: Consumer, seen: list[int], *, until: int) -> None:
    """Take and ack until so many different ones came."""
    with anyio.fail_after(3 * PATIENT_S):
        async for delivery in consumer:
            seen.append(int(delivery.event.data))
            await delivery.ack()
            if len(set(seen)) == until:
                return
