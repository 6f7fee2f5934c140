"""The ASGI layer that `Mesh` puts around an app: prefix, trace, deadline, metrics, and the way out of open streams."""

import asyncio
import re
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toska_common import http_context
from toska_common.mesh.callers import Callers
from toska_common.mesh.exchanges import Exchanges
from toska_common.metrics import ServiceMetrics, is_watching, route_template

_PREFIX_HEADER = b"x-forwarded-prefix"
_CALLER_HEADER = http_context.CALLER_HEADER.encode()
_HEADERS = http_context.CONTEXT_HEADERS | {_PREFIX_HEADER, _CALLER_HEADER}
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)+")
_DOT_SEGMENT = re.compile(r"/\.\.?(?:/|$)")


class Lifecycle(Protocol):
    """What the middleware tells about the life of the app."""

    def running(self, scope: Scope) -> AbstractAsyncContextManager[None]:
        """From before the app's own start to after its end."""
        ...

    def start(self) -> None:
        """The app has started."""
        ...

    async def leave(self) -> None:
        """The app is about to stop; no listener is open any more."""
        ...


class ForwardedPrefix:
    """Reads `X-Forwarded-Prefix` where the peer is believed: on loopback, or in one of `trusted` networks."""

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        self._trusted: list[IPv4Network | IPv6Network] = [ip_network(network) for network in trusted]

    def apply(self, scope: Scope, prefix: str) -> None:
        """Make `prefix` the root path of the request, so that the URLs and redirects that the app makes lead back.

        ASGI wants `path` to contain the root path (https://asgi.readthedocs.io/en/latest/specs/www.html).
        """
        prefix = prefix.rstrip("/")
        if not self._is_trusted(scope) or _PREFIX.fullmatch(prefix) is None or _DOT_SEGMENT.search(prefix):
            return
        root: str = scope.get("root_path", "")
        # `FastAPI(root_path=...)` sets a root path that a proxy has already taken off the path.
        added = prefix if scope["path"].startswith(root) else prefix + root
        scope["root_path"] = prefix + root
        scope["path"] = added + scope["path"]
        if scope.get("raw_path") is not None:
            scope["raw_path"] = added.encode() + scope["raw_path"]

    def _is_trusted(self, scope: Scope) -> bool:
        client = scope.get("client")
        if client is None:
            return False
        host, port = client
        if port == 0:
            # uvicorn puts the user's address there when it believes its peer's X-Forwarded-For (--forwarded-allow-ips),
            # without a port. The peer itself can no longer be seen, and the server has vouched for it.
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return address.is_loopback or any(address in network for network in self._trusted)


class MeshMiddleware:
    """Stands around the whole app, within the server's error handler only."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        lifecycle: Lifecycle,
        metrics: ServiceMetrics,
        exchanges: Exchanges,
        prefix: ForwardedPrefix,
        callers: Callers,
    ) -> None:
        self.app = app
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._exchanges = exchanges
        self._prefix = prefix
        self._callers = callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        headers = http_context.pick_headers(scope, _HEADERS)
        http_context.enter(headers)
        prefix = headers.get(_PREFIX_HEADER)
        if prefix:
            self._prefix.apply(scope, prefix)
        caller = headers.get(_CALLER_HEADER)
        if caller is not None and not is_watching(scope):
            self._callers.count(caller)
        await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        counted = scope["type"] == "http" and not is_watching(scope)
        exchange = self._exchanges.begin(scope, receive, send)
        begun = time.perf_counter()
        if counted:
            self._metrics.begin()
        try:
            await self.app(scope, receive, exchange.send)
        except asyncio.CancelledError:
            if not exchange.ended:
                exchange.status = 499  # the caller went away
                raise
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            await exchange.finish()
        finally:
            self._exchanges.end(exchange)
            if counted:
                elapsed = time.perf_counter() - begun
                self._metrics.end(scope["method"], route_template(scope), exchange.status, elapsed)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_or_leave() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._lifecycle.leave()
            return message

        async def send_and_start(message: Message) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                self._lifecycle.start()

        failure: BaseException | None = None
        async with self._lifecycle.running(scope):
            try:
                await self.app(scope, receive_or_leave, send_and_start)
            except Exception as error:  # noqa: BLE001 - raised again below, outside of the task group that would wrap it
                failure = error
        if failure is not None:
            raise failure
