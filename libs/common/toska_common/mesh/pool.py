"""The connections of this process to other services: one pool, whatever number of clients and services there are.

The httpx API is kept for users, and underneath aiohttp moves the bytes: plain httpx costs three times as much a call
(docs/sdk.md has the measurement). What goes wrong comes out as errors of `toska_common.mesh.errors`.
"""

import contextlib
import ssl
from collections.abc import Generator
from typing import cast

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from toska_common.clients.guarded import guarded_connector
from toska_common.mesh.errors import CallBroken, CallTimeout, ConnectFailed

KEEP_ALIVE_S = 4.0
"""Below the 5 seconds after which uvicorn closes an idle connection: a request must not meet that close half-way."""

_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class ConnectionPool:
    """A pool for the event loop that first uses it."""

    def __init__(self) -> None:
        # Instances are spoken to in plain HTTP. A context without certificates costs 0.1 ms instead of 20, and could
        # not be talked into trusting anybody.
        self._transport = AiohttpTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), client=_open_session)

    async def send(self, request: httpx.Request, host: str, port: int) -> httpx.Response:
        """Send `request` to `host:port`, whatever its URL says; returns with the response's head.

        Raises:
            ConnectFailed: Nobody accepted the connection; nothing was sent.
            CallBroken: It ended before the response began.
            CallTimeout: The read timeout passed before that.
        """
        addressed = httpx.Request.__new__(httpx.Request)
        # Not `copy.copy`, which goes through httpx's pickling and leaves the body behind.
        addressed.__dict__.update(request.__dict__)
        # The transport takes no more than the URL's text, and building an httpx.URL again costs 30 µs.
        place = f"[{host}]" if ":" in host else host
        addressed.url = cast("httpx.URL", f"http://{place}:{port}{request.url.raw_path.decode('ascii')}")
        with translated(f"{host}:{port}"):
            return await self._transport.handle_async_request(addressed)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


def _open_session() -> aiohttp.ClientSession:
    session = aiohttp.ClientSession(
        connector=guarded_connector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
        # httpx keeps the cookies; a jar here would be shared by all clients of the process.
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
    )
    # aiohttp would send a broken idempotent request once more by itself: to the same instance, and past our budget.
    session._retry_connection = False  # pyright: ignore[reportPrivateUsage] - there is no public switch
    return session


@contextlib.contextmanager
def translated(where: str) -> Generator[None]:
    """Turn the errors of a call, or of reading its body, into those of the mesh."""
    try:
        yield
    except httpx.TransportError as error:
        # By its cause: httpx-aiohttp calls a connection that broke in mid-request a ConnectTimeout, and whether a call
        # may be repeated depends on telling that from a refused one.
        cause = error.__cause__
        if isinstance(cause, _NOT_SENT):
            raise ConnectFailed(f"cannot connect to {where}: {cause}") from error
        if isinstance(error, httpx.UnsupportedProtocol):
            raise
        if isinstance(cause, TimeoutError):
            raise CallTimeout(f"no answer from {where} in time") from error
        raise CallBroken(f"the connection to {where} broke: {cause or error}") from error
    except TimeoutError as error:
        raise CallTimeout(f"no answer from {where} in time") from error
    except (aiohttp.ClientError, OSError) as error:
        raise CallBroken(f"the call to {where} failed: {error}") from error
