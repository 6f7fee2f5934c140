"""HTTP/1.1 as bytes: a client that sends what it is told, and an upstream that records what it was sent.

Neither hides anything: what a test sends goes out as it stands, and messages are read by the letter of RFC 9112, so
that a proxy's mistake cannot be smoothed over by a forgiving library. Every wait has a deadline.
"""

import asyncio
import contextlib
import hashlib
import re
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field

PATIENCE_S = 8.0
"""No step between programs of one machine takes longer unless something hangs; and less than a gateway's own 10 s."""

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

_CHUNK = re.compile(rb"([0-9A-Fa-f]+)\r\n")
_RESET = struct.pack("ii", 1, 0)
_LIMIT = 1 << 16
"""Bytes that an end takes without being asked (twice that, in fact): so whoever does not read, does not receive."""


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

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
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
        async with asyncio.timeout(PATIENCE_S):
            self._writer.write(data)
            await self._writer.drain()

    def post(self, data: bytes) -> None:
        """Send bytes without waiting."""
        self._writer.write(data)

    async def some(self, size: int = 65536) -> bytes:
        """What comes next, at most `size` bytes; empty at the end."""
        async with asyncio.timeout(PATIENCE_S):
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
            async with asyncio.timeout(PATIENCE_S):
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
            async with asyncio.timeout(PATIENCE_S):
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
            async with asyncio.timeout(PATIENCE_S):
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
        async with asyncio.timeout(PATIENCE_S):
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


def _socket(window: int, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    end = socket.socket(family)
    end.setblocking(False)
    if window:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        # The other end's buffer grows with the segments' size: on the loopback device it would take megabytes.
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
    return end


@contextlib.asynccontextmanager
async def connected(
    address: tuple[str, int], *, window: int = 0, tls: ssl.SSLContext | None = None, name: str | None = None
) -> AsyncGenerator[Client]:
    """A client connected to `address`; over TLS it asks for `name`."""
    client = await connect(address, window=window, tls=tls, name=name)
    try:
        yield client
    finally:
        await client.aclose()


async def connect(
    address: tuple[str, int], *, window: int = 0, tls: ssl.SSLContext | None = None, name: str | None = None
) -> Client:
    """Connect a client; its owner closes it. `window` bounds what the kernel takes for it unread.

    The address of a Unix socket is its path and 0.
    """
    host, port = address
    family = socket.AF_INET if port else socket.AF_UNIX
    end = _socket(window, socket.AF_INET6 if port and ":" in host else family)
    async with asyncio.timeout(PATIENCE_S):
        try:
            await asyncio.get_running_loop().sock_connect(end, address if port else host)
        except BaseException:
            end.close()
            raise
        asked_for = None if tls is None else name or host
        limit = window or _LIMIT
        reader, writer = await asyncio.open_connection(sock=end, limit=limit, ssl=tls, server_hostname=asked_for)
    return Client(reader, writer)


async def ask(
    address: tuple[str, int],
    request: bytes,
    *,
    to: str = "GET",
    tls: ssl.SSLContext | None = None,
    name: str | None = None,
) -> Message:
    """Send one request on a connection of its own."""
    async with connected(address, tls=tls, name=name) as client:
        return await client.ask(request, to=to)


class Conversation(Wire):
    """An upstream's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: "Upstream") -> None:
        super().__init__(reader, writer)
        self._upstream = upstream
        self.requests: list[Message] = []

    async def request(self) -> Message:
        """Read a whole request.

        Raises:
            EOFError: The connection ended before its first byte.
            CutOff: It ended inside.
        """
        message = await self.request_head()
        coding, length = message.value("transfer-encoding"), message.value("content-length")
        assert coding in (None, b"chunked")
        assert coding is None or length is None, f"both framings: {message.head!r}"
        if coding:
            message.body = await self.chunked()
        elif length is not None:
            message.body = await self.exactly(int(length))
        return message

    async def request_head(self) -> Message:
        """Read a request's head; the body is left to the script."""
        message = await self.head()
        self.requests.append(message)
        self._upstream.requests.append(message)
        return message

    async def until_closed(self) -> None:
        """Wait until the other end has closed, in order or by a reset."""
        with contextlib.suppress(ConnectionError):
            while await self.some():
                pass


Script = Callable[[Conversation], Awaitable[None]]


def answering(*answers: bytes) -> Script:
    """A script that gives these answers in turn, the last one for ever."""

    async def script(conversation: Conversation) -> None:
        given = 0
        while True:
            await conversation.request()
            await conversation.send(answers[min(given, len(answers) - 1)])
            given += 1

    return script


class Upstream:
    """A server that records every byte it is sent and answers by a script, which runs once for each connection."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.conversations: list[Conversation] = []
        self.requests: list[Message] = []
        self.address: tuple[str, int] = ("", 0)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[Exception] = []

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.address[1]

    @property
    def received(self) -> bytes:
        """Every byte of every connection."""
        return b"".join(bytes(conversation.received) for conversation in self.conversations)

    async def open(self, port: int = 0, *, window: int = 0, tls: ssl.SSLContext | None = None, path: str = "") -> None:
        """Listen on a port of the loopback address, or on a path; `window` bounds what the kernel takes unread."""
        if path:
            self._server = await asyncio.start_unix_server(self._accept, path, limit=_LIMIT, ssl=tls)
            return
        listener = _socket(window)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=window or _LIMIT, ssl=tls)
        self.address = self._server.sockets[0].getsockname()

    async def stop(self) -> None:
        """Die as a killed process does: stop listening, and reset every connection."""
        if self._server is not None:
            self._server.close()
        for conversation in self.conversations:
            conversation.reset()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for conversation in self.conversations:
            await conversation.aclose()
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    async def aclose(self) -> None:
        """Stop.

        Raises:
            Exception: What a script stumbled over.
        """
        await self.stop()
        if self._errors:
            raise self._errors[0]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        conversation = Conversation(reader, writer, self)
        self.conversations.append(conversation)
        try:
            await self.script(conversation)
        except (EOFError, ConnectionError, CutOff):
            pass  # the other end went away, which is for the test to judge
        except TimeoutError:
            pass  # a connection that stayed open and idle
        except asyncio.CancelledError:
            pass  # by `stop`; asyncio.streams complains of tasks that end so
        except Exception as error:  # noqa: BLE001 - raised again by whoever closes the upstream
            self._errors.append(error)
        finally:
            self._tasks.discard(task)
            await conversation.aclose()


@contextlib.asynccontextmanager
async def upstream(
    script: Script | bytes = OK,
    *,
    port: int = 0,
    window: int = 0,
    tls: ssl.SSLContext | None = None,
    path: str = "",
) -> AsyncGenerator[Upstream]:
    """An upstream with this script, or with one answer for everything."""
    server = Upstream(answering(script) if isinstance(script, bytes) else script)
    await server.open(port, window=window, tls=tls, path=path)
    try:
        yield server
    finally:
        await server.aclose()


@contextlib.contextmanager
def black_hole() -> Generator[int]:
    """A port to which a connection is neither made nor refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):  # a full queue: what comes after is not answered
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield listener.getsockname()[1]


def get(target: str = "/", *fields: str, version: str = "HTTP/1.1", host: str | None = "test") -> bytes:
    """A GET request."""
    return request("GET", target, *fields, version=version, host=host)


def request(
    method: str,
    target: str = "/",
    *fields: str,
    body: bytes | None = None,
    version: str = "HTTP/1.1",
    host: str | None = "test",
) -> bytes:
    """A request with a Host and, if it has a body, a Content-Length."""
    lines = [f"{method} {target} {version}", *([f"host: {host}"] if host is not None else []), *fields]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def response(status: int, *fields: str, body: bytes = b"", length: bool = True) -> bytes:
    """A response, with a Content-Length unless `length` is false."""
    lines = [f"HTTP/1.1 {status} Some Reason", *fields]
    if length:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunks(pieces: Sequence[bytes], *, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    """A chunked body."""
    parts = [b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces]
    return b"".join(parts) + b"0" + extension + b"\r\n" + trailers + b"\r\n"
