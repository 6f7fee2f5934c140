"""A client connection as such: when it is read, how it ends, and who holds the other end.

open ──close_gently──▶ closing (what is written goes out, what comes is thrown away) ──▶ closed
  └──abort──▶ reset
"""

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Final, cast

from toska_gateway.worker.outbox import Outlet

if TYPE_CHECKING:
    from toska_gateway.worker.plane import Plane

UNIX_PEER: Final = "unix"
"""The address of whoever comes through a Unix socket."""
_PIPELINE_BYTES: Final = 64 * 1024
_LINGER: Final = 2.0
"""Seconds in which a client may finish reading an answer given before its request was whole (RFC 9112 §9.6)."""
_NEVER: Final = float("inf")
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER without a time: closing sends RST."""


def peer_address(transport: asyncio.BaseTransport) -> str:
    """Where a connection comes from."""
    peername: object = transport.get_extra_info("peername")  # of a Unix socket it is no pair
    host = cast("tuple[object, ...]", peername)[0] if isinstance(peername, tuple) and peername else ""
    return _plain_address(host) if isinstance(host, str) and host else UNIX_PEER


def _plain_address(address: str) -> str:
    """An address as networks are written: on a listener for both families, IPv4 clients come as ::ffff:192.0.2.1."""
    mapped = address.startswith("::ffff:") and address.count(":") == 3 and "." in address
    return address[7:] if mapped else address


class ClientConnection(asyncio.Protocol):
    """What a connection is before anything is known of what is said over it.

    Attributes:
        blocked: The client does not take what is written.
        deadline: Monotonic seconds; `on_deadline` of the heirs is called some time after it.
        eof: The client has said all it will.
        peer: Its address; empty until it is connected, unless somebody has spoken for it.
    """

    __slots__ = (
        "_buffer", "_closing", "_patience", "_paused", "_unsent", "blocked", "deadline", "eof", "peer", "plane",
        "transport",
    )  # fmt: skip

    transport: Outlet  # from `connection_made` on

    def __init__(self, plane: "Plane", peer: str) -> None:
        self.plane = plane
        self.peer = peer
        self.deadline = _NEVER
        self.blocked = False
        self.eof = False
        self._buffer = bytearray()
        self._paused = False
        self._closing = False
        self._unsent = 0  # while closing: what the client had not taken when last looked at, ...
        self._patience = _NEVER  # ... and until when it has to take some

    # -- flow control

    @property
    def paused(self) -> bool:
        """Whether it is us who do not read, so that silence is not the client's."""
        return self._paused

    @property
    def overflows(self) -> bool:
        """Whether more has come than may wait."""
        return len(self._buffer) > _PIPELINE_BYTES

    def pause_reading(self) -> None:
        """Take no more bytes from the client for now."""
        if not self._paused and not self._closing:
            self._paused = True
            self.transport.pause_reading()

    def resume_if_paused(self) -> None:
        """Take bytes again, unless a pipeline is full."""
        if self._paused and not self.overflows and not self._closing:
            self._resume()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    # -- how it ends

    @property
    def closing(self) -> bool:
        """Whether nothing more is served on it, and nothing is left to be taken by the client."""
        return self._closing and not self.transport.get_write_buffer_size()

    def close_gently(self) -> None:
        """Close after what is written has gone out, reading on for a moment lest a reset destroys the answer."""
        if self._closing:
            return
        self._closing = True
        self._buffer = bytearray()
        if self.transport.is_closing():
            return
        now = self.plane.now
        self.deadline = now + _LINGER
        self._unsent = self.transport.get_write_buffer_size()
        self._patience = now + self.plane.limits.idle_timeout
        if self.eof or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self._resume()

    def _linger_on(self) -> None:
        """Closing: end when the client has had everything for a moment, or takes nothing for too long."""
        unsent, now = self.transport.get_write_buffer_size(), self.plane.now
        if unsent != self._unsent:
            self._unsent = unsent
            self._patience = now + self.plane.limits.idle_timeout
        elif not unsent or now >= self._patience:
            self.transport.abort()
        self.deadline = now + _LINGER

    def abort(self) -> None:
        """Reset the connection: the client must not take what it has for a whole response."""
        self._closing = True
        if not self.transport.is_closing():
            # Closing alone would look like the end of a body that has no other end (RFC 9112 §6.3).
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()
