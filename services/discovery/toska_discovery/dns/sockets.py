"""The DNS server on UDP and TCP."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from typing import cast

from toska_common.errors import ConfigurationError
from toska_common.server import bind

from toska_discovery.dns.recursion import Recursion
from toska_discovery.dns.server import DnsServer, Foreign

TCP_IDLE_S = 10.0
"""How long a connection may take for its next query."""
MAX_CONNECTIONS = 1024
_LENGTH_BYTES = 2
_BIND_ATTEMPTS = 20


class _Udp(asyncio.DatagramProtocol):
    """One packet in, at most one out."""

    def __init__(self, server: DnsServer, recursion: Recursion) -> None:
        self._server = server
        self._recursion = recursion
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self._server.reply(data, udp=True)
        if isinstance(reply, Foreign):
            self._recursion.ask(data, lambda answer: self._send(answer, addr), udp=True)
        elif reply is not None:
            self._send(reply, addr)

    def _send(self, reply: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(reply, addr)


class _Tcp(asyncio.Protocol):
    """Queries one after the other on a connection, each behind its length (RFC 7766), until it falls silent."""

    def __init__(self, server: DnsServer, recursion: Recursion, connections: set["_Tcp"]) -> None:
        self._server = server
        self._recursion = recursion
        self._connections = connections
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        opened = cast("asyncio.Transport", transport)
        if len(self._connections) >= MAX_CONNECTIONS:
            opened.abort()
            return
        self._transport = opened
        self._connections.add(self)
        self._wait()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._buffer[:_LENGTH_BYTES])
            if len(self._buffer) < end:
                return
            packet = bytes(self._buffer[_LENGTH_BYTES:end])
            del self._buffer[:end]
            self._wait()
            self._reply(packet)

    def pause_writing(self) -> None:
        """Read no more from somebody who does not read."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        if self._transport is not None:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """End the connection, with what is not sent yet."""
        if self._transport is not None:
            self._transport.abort()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(TCP_IDLE_S, self.close)

    def _reply(self, packet: bytes) -> None:
        reply = self._server.reply(packet, udp=False)
        if isinstance(reply, Foreign):
            self._recursion.ask(packet, self._send, udp=False)
        elif reply is None:
            self.close()
        else:
            self._send(reply)

    def _send(self, reply: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(len(reply).to_bytes(_LENGTH_BYTES) + reply)


@asynccontextmanager
async def serve_dns(server: DnsServer, recursion: Recursion, host: str, port: int) -> AsyncGenerator[int]:
    """Answer at `host:port` on UDP and TCP until the block ends; yields the port, which 0 leaves open.

    Raises:
        ConfigurationError: The port is taken.
    """
    loop = asyncio.get_running_loop()
    connections: set[_Tcp] = set()
    with ExitStack() as stack:
        udp, tcp = _bind_both(host, port, stack)
        transport, _ = await loop.create_datagram_endpoint(lambda: _Udp(server, recursion), sock=udp.dup())
        listener = await loop.create_server(lambda: _Tcp(server, recursion, connections), sock=tcp.dup())
        try:
            yield udp.getsockname()[1]
        finally:
            transport.close()
            listener.close()
            for connection in [*connections]:
                connection.close()


def _bind_both(host: str, port: int, stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Sockets of one number for both transports; of 0, the next that is free on both."""
    for attempt in range(_BIND_ATTEMPTS):
        tcp = bind(host, port)
        try:
            udp = _bind_udp(host, tcp.getsockname()[1])
        except ConfigurationError:
            tcp.close()
            if port or attempt == _BIND_ATTEMPTS - 1:
                raise
        else:
            stack.callback(tcp.close)
            stack.callback(udp.close)
            return udp, tcp
    raise AssertionError("the last attempt raises")


def _bind_udp(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.bind((host, port))
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigurationError(
            f"cannot listen on {host}:{port} (UDP): {error.strerror}; stop what uses it, or set "
            "TOSKA_DISCOVERY_DNS_PORT to another, or to -1 for none",
            host=host,
            port=port,
        ) from error
    return sock
