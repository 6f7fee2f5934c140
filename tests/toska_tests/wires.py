"""A wire that can be cut: a TCP proxy between a client and a server, in the test's own loop."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import SocketAttribute, SocketStream

_GONE = (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream, OSError)


class Wire:
    """Passes bytes on, until it is cut.

    Attributes:
        port: Where clients connect.
        passed: Bytes that went from clients to the server.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._open: set[SocketStream] = set()
        self._cut_at: int | None = None
        self._severed = False
        self.port = 0
        self.passed = 0

    async def cut(self) -> None:
        """Reset every connection; new ones pass."""
        for stream in list(self._open):
            with anyio.CancelScope(shield=True):
                await stream.aclose()

    async def sever(self) -> None:
        """Reset every connection, and each new one until it is mended."""
        self._severed = True
        await self.cut()

    def mend(self) -> None:
        """Let connections pass again."""
        self._severed = False

    def cut_after(self, count: int) -> None:
        """Reset every connection once so many more bytes went to the server, in the middle of whatever that is."""
        self._cut_at = self.passed + count

    async def serve(self, client: SocketStream) -> None:
        """One client's connection."""
        if self._severed:
            await client.aclose()
            return
        try:
            server = await anyio.connect_tcp("127.0.0.1", self._target)
        except OSError:
            await client.aclose()
            return
        self._open |= {client, server}
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._pass, client, server, True)
                tasks.start_soon(self._pass, server, client, False)
        finally:
            self._open -= {client, server}
            with anyio.CancelScope(shield=True):
                await client.aclose()
                await server.aclose()

    async def _pass(self, source: SocketStream, target: SocketStream, outwards: bool) -> None:
        try:
            while True:
                data = await source.receive()
                if outwards and self._cut_at is not None and self.passed + len(data) >= self._cut_at:
                    data = data[: self._cut_at - self.passed]
                    self._cut_at = None
                    await target.send(data)
                    await self.cut()
                    return
                await target.send(data)
                self.passed += len(data) if outwards else 0
        except _GONE:
            for stream in (source, target):
                await stream.aclose()


@asynccontextmanager
async def wire_to(target: int) -> AsyncGenerator[Wire]:
    """A wire to a port of this machine."""
    wire = Wire(target)
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener,
        anyio.create_task_group() as tasks,
    ):
        wire.port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - not Django's
        tasks.start_soon(listener.serve, wire.serve)
        try:
            yield wire
        finally:
            tasks.cancel_scope.cancel()
