"""Requests that stay open, and load that counts what went wrong."""

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import anyio
import httpx
from anyio.abc import SocketStream

from toska_tests.clients import http_client


async def send_get(url: str) -> SocketStream:
    """Open a connection and send a GET on it; the caller reads, or waits."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    stream = await anyio.connect_tcp(parts.hostname or "", parts.port or 80)
    await stream.send(f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
    return stream


@asynccontextmanager
async def open_requests(url: str, count: int) -> AsyncGenerator[list[SocketStream]]:
    """`count` connections with a GET sent on each."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(await send_get(url)) for _ in range(count)]


@dataclass(slots=True)
class Load:
    """What a stretch of load met: answers by status, or by body where they say what went wrong; errors by kind."""

    outcomes: Counter[str] = field(default_factory=Counter[str])

    @property
    def total(self) -> int:
        """Requests that have ended, well or not."""
        return self.outcomes.total()

    @property
    def failures(self) -> dict[str, int]:
        """Everything but 200."""
        return {outcome: count for outcome, count in self.outcomes.items() if outcome != "200"}


@asynccontextmanager
async def load(url: str, clients: int = 8) -> AsyncGenerator[Load]:
    """GET `url` over and over from so many clients until the block ends."""
    result = Load()

    async def ask(client: httpx.AsyncClient) -> None:
        while True:
            try:
                response = await client.get(url)
                result.outcomes[str(response.status_code) if response.is_success else response.text] += 1
            except httpx.HTTPError as error:
                result.outcomes[type(error).__name__] += 1

    async with http_client() as client, anyio.create_task_group() as group:
        for _ in range(clients):
            group.start_soon(ask, client)
        yield result
        group.cancel_scope.cancel()
