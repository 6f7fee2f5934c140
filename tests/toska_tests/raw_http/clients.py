"""Clients that send bytes as they are told, and read answers strictly."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator

from toska_tests.raw_http.wire import LIMIT, PATIENCE_S, Message, Wire, open_socket


class Client(Wire):
    """A client that sends raw bytes and reads responses."""

    async def response(self, *, to: str = "GET") -> Message:
        """Read the final response to a request of method `to`; interim ones are kept in `interim`.

        Raises:
            CutOff: The connection ended inside it.
        """
        interim: list[Message] = []
        while True:
            message = await self.head()
            if message.status >= 200 or message.status == 101:
                break
            interim.append(message)
        message.interim = interim
        if to != "HEAD" and message.status not in (101, 204, 304):
            message.body = await self._body(message)
        return message

    async def _body(self, message: Message) -> bytes:
        coding, length = message.value("transfer-encoding"), message.value("content-length")
        if coding is not None:
            assert coding == b"chunked"
            assert length is None, f"both framings: {message.head!r}"
            return await self.chunked()
        return await self.to_end() if length is None else await self.exactly(int(length))

    async def ask(self, request: bytes, *, to: str = "GET") -> Message:
        """Send a request and read its response."""
        await self.send(request)
        return await self.response(to=to)


@contextlib.asynccontextmanager
async def connected(
    address: tuple[str, int],
    *,
    window: int = 0,
    tls: ssl.SSLContext | None = None,
    name: str | None = None,
    patience_s: float = PATIENCE_S,
) -> AsyncGenerator[Client]:
    """A client connected to `address`; over TLS it asks for `name`."""
    client = await connect(address, window=window, tls=tls, name=name, patience_s=patience_s)
    try:
        yield client
    finally:
        await client.aclose()


async def connect(
    address: tuple[str, int],
    *,
    window: int = 0,
    tls: ssl.SSLContext | None = None,
    name: str | None = None,
    patience_s: float = PATIENCE_S,
) -> Client:
    """Connect a client; its owner closes it. `window` bounds what the kernel takes for it unread.

    The address of a Unix socket is its path and 0.
    """
    host, port = address
    family = socket.AF_INET if port else socket.AF_UNIX
    end = open_socket(window, socket.AF_INET6 if port and ":" in host else family)
    async with asyncio.timeout(patience_s):
        try:
            await asyncio.get_running_loop().sock_connect(end, address if port else host)
        except BaseException:
            end.close()
            raise
        asked_for = None if tls is None else name or host
        limit = window or LIMIT
        reader, writer = await asyncio.open_connection(sock=end, limit=limit, ssl=tls, server_hostname=asked_for)
    return Client(reader, writer, patience_s)


async def ask(
    address: tuple[str, int],
    request: bytes,
    *,
    to: str = "GET",
    tls: ssl.SSLContext | None = None,
    name: str | None = None,
    patience_s: float = PATIENCE_S,
) -> Message:
    """Send one request on a connection of its own."""
    async with connected(address, tls=tls, name=name, patience_s=patience_s) as client:
        return await client.ask(request, to=to)
