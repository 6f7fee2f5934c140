"""What a new connection meets before its first request, by the kind of its listener.

    accepted ──(PROXY header)──▶ ──(TLS handshake)──▶ Downstream
        └── too slow, not trusted, not TLS: closed; plain HTTP where TLS is spoken: 400

A plain listener that nobody speaks for has none of this: its connections are a `Downstream` from the start.
"""

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

from toska_gateway.worker.answers import REDIRECT_STATUS, redirect
from toska_gateway.worker.client_connection import peer_address
from toska_gateway.worker.downstream import Downstream
from toska_gateway.worker.http1 import ASTERISK, BadMessage, RequestHead, encode_path
from toska_gateway.worker.proxy_protocol import BadProxyHeader, read_proxy_header
from toska_gateway.worker.table import bare_host
from toska_gateway.worker.tls_layer import TlsLayer

if TYPE_CHECKING:
    from toska_gateway.worker.plane import Plane

_HANDSHAKE: Final = 22
"""First byte of a TLS connection: the content type of its first record (RFC 8446 §5.1)."""
_CHALLENGE: Final = b"/.well-known/acme-challenge/"
"""Where certificate authorities look over plain HTTP whether a name is ours (RFC 8555 §8.3)."""


class Door:
    """One listener of a worker. Calling it makes the protocol of a new connection.

    Args:
        plane: What connections share.
        spec: `tls` and `proxy_protocol` (true, false, or null: as the routing says), `redirect` (0: no) and `unix`.
    """

    def __init__(self, plane: "Plane", spec: dict[str, Any]) -> None:
        self.plane = plane
        self._tls: bool | None = spec["tls"]
        self._proxied: bool | None = spec["proxy_protocol"]
        self.redirect: int = spec["redirect"]
        self.unix: bool = spec["unix"]

    @property
    def tls(self) -> bool:
        """Whether TLS is spoken here."""
        return self.plane.server_tls is not None if self._tls is None else self._tls

    @property
    def proxied(self) -> bool:
        """Whether connections begin with a PROXY header."""
        return self.plane.proxy_peers is not None if self._proxied is None else self._proxied

    def __call__(self) -> asyncio.Protocol:
        return Opening(self.plane, self) if self.tls or self.proxied else self.downstream()

    def downstream(self, peer: str = "", *, tls: bool = False) -> Downstream:
        """The protocol of a connection that is ready for requests."""
        if self.redirect:
            return RedirectingDownstream(self.plane, peer, self.redirect)
        return Downstream(self.plane, peer, b"https" if tls else b"http")


class RedirectingDownstream(Downstream):
    """A connection on a listener that only says where HTTPS is, and serves what certificates are renewed with."""

    __slots__ = ("_port",)

    def __init__(self, plane: "Plane", peer: str, port: int) -> None:
        super().__init__(plane, peer, b"http")
        self._port = port

    def _begin(self, head: RequestHead) -> None:
        host = bare_host(head.host)
        if head.path.startswith(_CHALLENGE) or head.path == ASTERISK or not host:
            super()._begin(head)
            return
        if self._port != 443:
            host += b":%d" % self._port
        close = head.close or self.plane.draining or head.body_length != 0
        answer = redirect(b"https://" + host + encode_path(head.path) + head.query, close=close)
        self.transport.write(answer)
        self._tell(head, None, REDIRECT_STATUS, name="(redirect)")
        self._after_answer(close=close)


class _PlainWhereTlsIs(Downstream):
    """Somebody speaks HTTP to a listener that speaks HTTPS."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self.closing:
            self._refuse(BadMessage(400, "https-required", "this port speaks HTTPS, and the request was plain HTTP"))


class Opening(asyncio.Protocol):
    """A connection on its way to its first request; counted as one, and with a deadline for all of it."""

    __slots__ = (
        "_buffer",
        "_counted",
        "_door",
        "_gone",
        "_layer",
        "_peer",
        "_proxied",
        "deadline",
        "plane",
        "transport",
    )

    def __init__(self, plane: "Plane", door: Door) -> None:
        self.plane = plane
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.deadline = plane.now + plane.limits.handshake_timeout
        self._door = door
        self._proxied = door.proxied
        self._peer = ""
        self._counted = False
        self._gone = False
        self._buffer = b""
        self._layer: TlsLayer | None = None

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        plane = self.plane
        self._peer = peer_address(transport)
        plane.downstreams[self] = None
        if len(plane.downstreams) > plane.limits.connections:
            self._turn_away()
        elif not self._proxied:
            self._count()
        elif not self._door.unix and not plane.speaks_for_others(self._peer):
            self._turn_away()

    def data_received(self, data: bytes) -> None:
        if self._gone:
            return
        self._buffer += data
        if self._proxied and not self._read_proxy_header():
            return
        if self._buffer:
            self._begin()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    # -- step by step

    def _read_proxy_header(self) -> bool:
        try:
            header = read_proxy_header(self._buffer)
        except BadProxyHeader:
            self._turn_away()
            return False
        if header is None:
            return False
        self._proxied = False
        self._buffer = self._buffer[header.size :]
        self._peer = header.client or self._peer
        self._count()
        return not self._gone

    def _begin(self) -> None:
        data, self._buffer = self._buffer, b""
        if not self._door.tls:
            self._hand_over(self._door.downstream(self._peer), data)
        elif data[0] == _HANDSHAKE:
            self._begin_tls(data)
        elif data[:1].isalpha():
            self._hand_over(_PlainWhereTlsIs(self.plane, self._peer), b"")
        else:
            self._failed()

    def _begin_tls(self, data: bytes) -> None:
        contexts = self.plane.server_tls
        if contexts is None:
            self._turn_away()
            return
        self._layer = layer = TlsLayer(
            contexts.default,
            self._door.downstream(self._peer, tls=True),
            on_open=self._opened,
            on_failed=self._failed,
            server_side=True,
        )
        layer.connection_made(self.transport)
        self.transport.set_protocol(layer)
        layer.data_received(data)

    def _opened(self) -> None:
        self._layer = None
        self._leave()
        self.plane.stats.handshakes += 1

    def _failed(self, _: Exception | None = None) -> None:
        self._layer = None
        if not self._gone:
            self.plane.stats.handshake_failures += 1
            self._leave()
        self.transport.close()

    def _hand_over(self, down: Downstream, data: bytes) -> None:
        self._leave()
        self.transport.set_protocol(down)
        down.connection_made(self.transport)
        if data:
            down.data_received(data)

    # -- being counted, as connections are

    def _count(self) -> None:
        plane, peer = self.plane, self._peer
        self._counted = True
        mine = plane.per_client[peer] = plane.per_client.get(peer, 0) + 1
        if mine > plane.limits.connections_per_client and not self._door.unix:
            self._turn_away()

    def _turn_away(self) -> None:
        self.plane.stats.refused += 1
        self._leave()
        self.transport.abort()

    def _leave(self) -> None:
        if self._gone:
            return
        self._gone = True
        plane, peer = self.plane, self._peer
        plane.downstreams.pop(self, None)
        if self._counted:
            left = plane.per_client[peer] - 1
            if left:
                plane.per_client[peer] = left
            else:
                del plane.per_client[peer]

    # -- what the plane asks of every connection

    @property
    def closing(self) -> bool:
        """A connection that opens is not closing: the request that it is made for is on its way."""
        return False

    def on_deadline(self) -> None:
        """Too slow."""
        self.deadline = float("inf")
        self.plane.stats.handshake_failures += 1
        self._leave()
        self.abort()

    def answer_for_the_last_time(self) -> None:
        """Draining: nothing has been asked yet."""

    def close_if_idle(self) -> None:
        """Draining: it has until its deadline, as it has at any time."""

    def abort(self) -> None:
        """Reset the connection."""
        self.transport.abort()
