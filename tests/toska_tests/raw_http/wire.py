"""One end of a connection, and messages as they are on it."""

import asyncio
import contextlib
import hashlib
import re
import socket
import ssl
import struct
from dataclasses import dataclass, field

from toska_tests.waiting import wait_until

PATIENCE_S = 8.0
"""No step between programs of one machine takes longer unless something hangs; and less than a gateway's own 10 s."""
LIMIT = 1 << 16
"""Bytes that an end takes without being asked (twice that, in fact): so whoever does not read, does not receive."""

_CHUNK = re.compile(rb"([0-9A-Fa-f]+)\r\n")
_RESET = struct.pack("ii", 1, 0)


class CutOff(Exception):
    """The connection ended inside a message."""


@dataclass
class Message:
    """A message as it was on the wire."""

    start: bytes
    fields: list[tuple[bytes, bytes]]
    head: bytes
    body: bytes = b""
    interim: list["Message"] = field(default_factory=list["Message"])

    def values(self, name: str) -> list[bytes]:
        """The values of all lines of a field, in order."""
        return [value for key, value in self.fields if key == name.encode()]

    def value(self, name: str) -> bytes | None:
        """A field's only value.

        Raises:
            AssertionError: There are several lines of it.
        """
        values = self.values(name)
        assert len(values) < 2, f"{name} stands {len(values)} times in {self.head!r}"
        return values[0] if values else None

    def names(self) -> list[str]:
        """The names of all fields, in order, lower-case."""
        return [key.decode() for key, _ in self.fields]

    @property
    def method(self) -> str:
        """A request's method."""
        return self.start.split(b" ")[0].decode()

    @property
    def target(self) -> str:
        """A request's target."""
        return self.start.split(b" ")[1].decode()

    @property
    def status(self) -> int:
        """A response's status."""
        return int(self.start.split(b" ")[1])

    @property
    def error(self) -> str | None:
        """The gateway's own code, if it answered itself."""
        value = self.value("x-toska-error")
        return None if value is None else value.decode()


class Wire:
    """One end of a TCP connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience_s: float = PATIENCE_S
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._patience_s = patience_s
        self.received = bytearray()

    @property
    def tls(self) -> ssl.SSLObject:
        """What TLS knows of the connection."""
        found: ssl.SSLObject | None = self._writer.get_extra_info("ssl_object")
        assert found is not None
        return found

    @property
    def port(self) -> int:
        """The port of the other end."""
        return self._writer.get_extra_info("peername")[1]

    async def send(self, data: bytes) -> None:
        """Send bytes and wait until the other end's buffers have taken (nearly) all."""
        async with asyncio.timeout(self._patience_s):
            self._writer.write(data)
            await self._writer.drain()

    async def until_sent(self) -> None:
        """Wait until the kernel has all that was sent, or the connection is over; closing at once loses the rest."""
        transport = self._writer.transport
        await wait_until(
            lambda: transport.is_closing() or not transport.get_write_buffer_size(),
            within=self._patience_s,
            every=0.005,
        )

    def post(self, data: bytes) -> None:
        """Send bytes without waiting."""
        self._writer.write(data)

    async def some(self, size: int = 65536) -> bytes:
        """What comes next, at most `size` bytes; empty at the end."""
        async with asyncio.timeout(self._patience_s):
            data = await self._reader.read(size)
        self.received += data
        return data

    async def skip(self, size: int) -> bytes:
        """Take the next `size` bytes, however many, and return their SHA-256.

        Raises:
            CutOff: The connection ended before.
        """
        digest = hashlib.sha256()
        while size:
            async with asyncio.timeout(self._patience_s):
                data = await self._reader.read(min(size, 1 << 18))
            if not data:
                raise CutOff(f"{size} bytes are missing")
            digest.update(data)
            size -= len(data)
        return digest.digest()

    async def exactly(self, size: int) -> bytes:
        """The next `size` bytes.

        Raises:
            CutOff: The connection ended before.
        """
        try:
            async with asyncio.timeout(self._patience_s):
                data = await self._reader.readexactly(size)
        except asyncio.IncompleteReadError as error:
            self.received += error.partial
            raise CutOff(f"after {len(error.partial)} of {size} bytes") from None
        self.received += data
        return data

    async def until(self, mark: bytes) -> bytes:
        """Everything up to `mark`, with it.

        Raises:
            CutOff: The connection ended before.
            EOFError: It ended before the first byte.
        """
        try:
            async with asyncio.timeout(self._patience_s):
                data = await self._reader.readuntil(mark)
        except asyncio.IncompleteReadError as error:
            self.received += error.partial
            if not error.partial:
                raise EOFError from None
            raise CutOff(f"inside {error.partial!r}") from None
        self.received += data
        return data

    async def to_end(self) -> bytes:
        """Everything until the other end closes in order; a reset raises `ConnectionResetError`."""
        found = b""
        while data := await self.some():
            found += data
        return found

    async def is_closed(self) -> bool:
        """Whether the other end closes now, in order or by a reset, without another byte."""
        try:
            return await self.some() == b""
        except ConnectionError:
            return True

    def end_writing(self) -> None:
        """Half-close: no more bytes from here."""
        self._writer.write_eof()

    @property
    def closed(self) -> bool:
        """Whether the other end has closed, as far as it has been read."""
        return self._reader.at_eof() or self._writer.is_closing()

    def cut(self) -> None:
        """End a TLS connection in order, and without saying so: FIN, and no close_notify."""
        with socket.fromfd(self._writer.get_extra_info("socket").fileno(), socket.AF_INET, socket.SOCK_STREAM) as end:
            end.shutdown(socket.SHUT_WR)

    async def finish(self) -> None:
        """Close this end in order, once everything is sent; over TLS that says close_notify."""
        self._writer.close()
        async with asyncio.timeout(self._patience_s):
            await self._writer.wait_closed()

    def reset(self) -> None:
        """Break the connection off with a RST."""
        if not self._writer.transport.is_closing():
            transport_socket = self._writer.get_extra_info("socket")
            transport_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._writer.transport.abort()

    async def aclose(self) -> None:
        """Close this end at once."""
        self._writer.close()
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def head(self) -> Message:
        """Read a message's head."""
        raw = await self.until(b"\r\n\r\n")
        start, *lines = raw[:-4].split(b"\r\n")
        fields: list[tuple[bytes, bytes]] = []
        for line in lines:
            name, colon, value = line.partition(b":")
            assert colon, f"no field line: {line!r}"
            assert re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name), f"bad field name: {line!r}"
            fields.append((name.lower(), value.strip(b" \t")))
        return Message(start, fields, raw)

    async def chunked(self) -> bytes:
        """Read a chunked body, strictly; its trailers have to be none.

        Raises:
            CutOff: It ended before its last chunk.
        """
        found: list[bytes] = []
        while True:
            try:
                line = await self.until(b"\r\n")
            except EOFError:
                raise CutOff("between two chunks") from None
            match = _CHUNK.fullmatch(line)
            assert match, f"no chunk-size line: {line!r}"
            size = int(match[1], 16)
            piece = await self.exactly(size + 2)
            assert piece[-2:] == b"\r\n", f"a chunk without its end, or a trailer: {piece[-20:]!r}"
            if size == 0:
                return b"".join(found)
            found.append(piece[:-2])


def open_socket(window: int, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    """A socket of which the kernel takes at most `window` bytes unread; 0 leaves that to the kernel."""
    end = socket.socket(family)
    end.setblocking(False)
    if window:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        # The other end's buffer grows with the segments' size: on the loopback device it would take megabytes.
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
    return end
