"""Locks that all processes of a namespace share: exclusive queues, which are gone with their holder's connection."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

from toska_common.events.amqp.errors import Locked, asked
from toska_common.events.amqp.link import Link
from toska_common.events.amqp.names import Names

_AGAIN_S = 0.1


class Locks:
    """Locks by name. Exclusive queues belong to a connection, so holders in one process take turns beforehand."""

    def __init__(self, link: Link, names: Names) -> None:
        self._link = link
        self._names = names
        self._here: dict[str, anyio.Lock] = {}

    @asynccontextmanager
    async def held(self, what: str) -> AsyncGenerator[None]:
        """Wait for a lock, and hold it.

        Raises:
            Gone: The connection went away, and the lock with it.
        """
        queue = self._names.lock(what)
        async with self._here.setdefault(what, anyio.Lock()):
            while True:
                async with self._link.channel() as channel:
                    try:
                        declaring = channel.queue_declare(queue, exclusive=True, auto_delete=True, timeout=30)
                        await asked(f"locking {what}", declaring)
                    except Locked:
                        pass
                    else:
                        try:
                            yield
                        finally:
                            with anyio.move_on_after(2, shield=True):
                                await asked(f"unlocking {what}", channel.queue_delete(queue))
                        return
                await anyio.sleep(_AGAIN_S)
