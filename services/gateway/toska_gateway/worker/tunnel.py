"""Two connections that have switched protocols: bytes pass between them as they come (RFC 9110 §7.8).

switched -> bytes, either way -> one side has said all it will -> so has the other: closed      or cut at any point
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.upstream import Upstream

_IDLE_FACTOR: Final = 10
"""So many times as long as a response, a tunnel may be silent."""


class Tunnel:
    """What both connections speak to once the upstream has agreed; each lets go of it when it is closed."""

    __slots__ = ("_down", "_exchange", "_upstream")

    def __init__(self, exchange: "Exchange", upstream: "Upstream") -> None:
        self._exchange = exchange
        self._down = exchange.down
        self._upstream = upstream

    def open(self) -> None:
        """From here on both connections speak to it."""
        self._touch()
        self._upstream.tunnel = self
        self._down.start_tunnel(self)

    def from_upstream(self, data: bytes) -> None:
        """Bytes from the upstream."""
        self._exchange.returned += len(data)
        self._down.transport.write(data)
        self._touch()

    def from_client(self, data: bytes) -> None:
        """Bytes from the client."""
        self._exchange.received += len(data)
        if not self._upstream.closed:
            self._upstream.transport.write(data)
        self._touch()

    def upstream_ended(self) -> None:
        """The upstream has said all it will; the client may still speak."""
        if self._down.eof:
            self._end()
        elif not self._down.transport.is_closing():
            self._down.transport.write_eof()

    def client_ended(self) -> None:
        """The client has said all it will; the upstream may still speak."""
        if self._upstream.eof:
            self._end()
        elif not self._upstream.closed:
            self._upstream.transport.write_eof()

    def _end(self) -> None:
        # Nothing is read after an end, so nobody but us would notice that both sides have come to theirs.
        self._upstream.close_gently()
        self._exchange.end_tunnel()

    def _touch(self) -> None:
        self._down.set_deadline(self._exchange.route.idle_timeout * _IDLE_FACTOR)
