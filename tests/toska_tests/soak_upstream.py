"""An upstream for hours of traffic: keeps no bytes, hashes what it gets, and says with each answer what that was.

Every body has its SHA-256 in `x-body`, both ways; every answer carries the `x-id` of its request. The path says how to
answer: /length/N, /chunked/N, /close/N, /events/N, /tunnel.
"""

import asyncio
import contextlib
import hashlib
import random
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

PIECE = 64 * 1024
_STORE = random.Random(7).randbytes(4 * PIECE)


def piece_at(number: int, size: int) -> bytes:
    """Some bytes that differ from one number to the next."""
    start = number * 977 % (len(_STORE) - PIECE)
    return _STORE[start : start + size]


def body_of(seed: int, size: int) -> tuple[list[bytes], str]:
    """A body in pieces, with its hash."""
    digest, pieces, number = hashlib.sha256(), list[bytes](), seed
    while size > 0:
        piece = piece_at(number, min(size, PIECE))
        digest.update(piece)
        pieces.append(piece)
        size -= len(piece)
        number += 1
    return pieces, digest.hexdigest()


@dataclass
class Head:
    """A message's first line and fields; of repeated ones the last."""

    start: list[str]
    fields: dict[str, str]


async def read_head(reader: asyncio.StreamReader) -> Head:
    """Read a head.

    Raises:
        EOFError: The connection ended.
    """
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        raise EOFError(f"after {error.partial[:80]!r}") from None
    lines = raw[:-4].decode("latin-1").split("\r\n")
    fields: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    return Head(lines[0].split(" ", 2), fields)


async def read_hash(reader: asyncio.StreamReader, head: Head, *, pause: float = 0.0) -> tuple[str, int]:
    """Read a body to its end; its hash and size.

    Raises:
        EOFError: It was cut off.
    """
    digest, size = hashlib.sha256(), 0
    async for data in read_body(reader, head):
        digest.update(data)
        size += len(data)
        if pause:
            await asyncio.sleep(pause)
    return digest.hexdigest(), size


async def read_body(reader: asyncio.StreamReader, head: Head) -> AsyncGenerator[bytes]:
    """Read a body to its end, in pieces.

    Raises:
        EOFError: It was cut off.
    """
    try:
        if head.fields.get("transfer-encoding") == "chunked":
            while size := int((await reader.readuntil(b"\r\n"))[:-2], 16):
                async for data in _exactly(reader, size):
                    yield data
                if await reader.readexactly(2) != b"\r\n":
                    raise ValueError("a chunk without its end")
            if await reader.readexactly(2) != b"\r\n":
                raise ValueError("a trailer, or no end")
        elif "content-length" in head.fields:
            async for data in _exactly(reader, int(head.fields["content-length"])):
                yield data
    except asyncio.IncompleteReadError as error:
        raise EOFError("inside a body") from error


async def _exactly(reader: asyncio.StreamReader, size: int) -> AsyncGenerator[bytes]:
    while size:
        data = await reader.read(min(size, PIECE))
        if not data:
            raise EOFError(f"{size} bytes before the end of a body")
        size -= len(data)
        yield data


class SoakUpstream:
    """Serves, and counts what was wrong with what it got."""

    def __init__(self) -> None:
        self.served: Counter[str] = Counter()
        self.bytes_in = 0
        self.wrong: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[int]:
        """Serve while the context is open; gives the port."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._serve(reader, writer):
                pass
        except (EOFError, ConnectionError, RuntimeError, asyncio.CancelledError):  # (uvloop: writing after a close)
            pass
        except (ValueError, LookupError, asyncio.LimitOverrunError) as error:
            self.wrong.append(f"upstream: {error!r}")
        finally:
            self._tasks.discard(task)
            with contextlib.suppress(OSError):
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await read_head(reader)
        found, size = await read_hash(reader, head)
        self.bytes_in += size
        if found != head.fields["x-body"]:
            self.wrong.append(f"upstream: a body of {size} bytes to {head.start} is not what was sent")
        kind, _, count = head.start[1].strip("/").partition("/")
        self.served[kind] += 1
        if kind == "tunnel":
            await self._tunnel(reader, writer)
            return False
        if kind == "events":
            await self._events(writer, head, int(count))
            return True
        await self._answer(writer, head, kind, int(count))
        return kind != "close"

    async def _answer(self, writer: asyncio.StreamWriter, head: Head, kind: str, size: int) -> None:
        pieces, digest = body_of(size + self.served[kind], size)
        framing = {"length": f"content-length: {size}", "chunked": "transfer-encoding: chunked"}
        lines = [
            "HTTP/1.1 200 OK",
            f"x-id: {head.fields['x-id']}",
            f"x-body: {digest}",
            framing.get(kind, "connection: close"),
            "",
            "",
        ]
        writer.write("\r\n".join(lines).encode())
        for piece in pieces if head.start[0] != "HEAD" else []:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if kind == "chunked" else piece)
            await writer.drain()
        if kind == "chunked" and head.start[0] != "HEAD":
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _events(self, writer: asyncio.StreamWriter, head: Head, count: int) -> None:
        lines = ["HTTP/1.1 200 OK", f"x-id: {head.fields['x-id']}", "content-type: text/event-stream"]
        writer.write("\r\n".join([*lines, "transfer-encoding: chunked", "", ""]).encode())
        for number in range(count):
            event = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(b"0\r\n\r\n")

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
