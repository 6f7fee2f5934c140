"""One attempt to open a connection: over TCP it is open when the socket is, over TLS when the handshake is done."""

import asyncio
import ssl
from typing import TYPE_CHECKING

from toska_gateway.worker.endpoint import Endpoint
from toska_gateway.worker.tls_layer import TlsLayer, describe
from toska_gateway.worker.upstream import Upstream

if TYPE_CHECKING:
    from toska_gateway.worker.plane import Plane


class TlsFailed(OSError):
    """There is a connection and no TLS over it. Says why."""


def failure_of(error: BaseException | None) -> str | None:
    """Why TLS failed, if it was TLS that failed."""
    if isinstance(error, TlsFailed):
        return str(error)
    return describe(error) if isinstance(error, ssl.SSLError) else None


def _take_note(opened: "asyncio.Future[None]") -> None:
    if not opened.cancelled():
        opened.exception()


class Attempt:
    """Makes the protocol for a connection to `endpoint`, then waits until that is open."""

    def __init__(self, plane: "Plane", endpoint: Endpoint) -> None:
        self._upstream = Upstream(plane, endpoint)
        self._layer: TlsLayer | None = None
        self._opened: asyncio.Future[None] | None = None
        tls = endpoint.cluster.tls
        if tls is not None:
            self._opened = plane.loop.create_future()
            self._opened.add_done_callback(_take_note)  # also of a failure that comes when nobody waits any more
            self._layer = TlsLayer(
                tls.context,
                self._upstream,
                on_open=self._on_open,
                on_failed=self._on_failed,
                server_side=False,
                server_name=tls.server_name or endpoint.address,
            )

    def protocol(self) -> asyncio.Protocol:
        """What the socket's transport speaks to."""
        return self._layer or self._upstream

    async def upstream(self) -> Upstream:
        """Wait until requests can be sent.

        Raises:
            TlsFailed: The handshake came to nothing.
        """
        if self._opened is None or self._layer is None:
            return self._upstream
        try:
            await self._opened
        except BaseException:
            self._layer.abort()  # also when the time is over, or nobody waits any more
            raise
        return self._upstream

    def _on_open(self) -> None:
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)

    def _on_failed(self, error: Exception) -> None:
        if self._opened is not None and not self._opened.done():
            failure = TlsFailed(describe(error))
            failure.__cause__ = error
            self._opened.set_exception(failure)
