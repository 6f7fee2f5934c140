"""Clients of every kind for hours of traffic: each checks every byte that it is given.

What a client may lose is only what was under way on a worker that was killed; a wrong byte is wrong at any time.
"""

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from toska_tests.soak_upstream import body_of, piece_at, read_body, read_hash, read_head

PATIENCE_S = 30.0
_RESET = struct.pack("ii", 1, 0)


@dataclass
class Book:
    """What became of everything."""

    rounds: Counter[str] = field(default_factory=Counter[str])
    requests: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    cut_by_kills: int = 0
    lost: list[str] = field(default_factory=list[str])
    wrong: list[str] = field(default_factory=list[str])
    last_kill: float = float("-inf")

    def broke(self, kind: str, error: BaseException, now: float, since: float) -> None:
        """A connection broke: forgiven if a worker was killed while it stood."""
        if self.last_kill >= since or now - self.last_kill < 0.5:
            self.cut_by_kills += 1
        else:
            self.lost.append(f"{kind}: {error!r}")


class Connection:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, book: Book) -> None:
        self.reader, self.writer, self.book = reader, writer, book
        self.closing = False

    async def send(
        self, target: str, chance: random.Random, size: int = 0, *, method: str = "", pause: float = 0
    ) -> str:
        """Send a request with a body of `size` bytes; its id."""
        identity = f"{chance.getrandbits(64):x}"
        pieces, digest = body_of(chance.getrandbits(20), size)
        chunked = size > 0 and chance.random() < 0.5
        method = method or ("POST" if size else "GET")
        framing = "transfer-encoding: chunked" if chunked else f"content-length: {size}"
        head = [f"{method} {target} HTTP/1.1", "host: soak", f"x-id: {identity}", f"x-body: {digest}", framing, "", ""]
        self.writer.write("\r\n".join(head).encode())
        for piece in pieces:
            self.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await self.writer.drain()
            await asyncio.sleep(pause)
        if chunked:
            self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()
        self.book.bytes_out += size
        return identity

    async def receive(self, identity: str, *, method: str = "GET", pause: float = 0.0) -> None:
        """Read the answer and hold it against its request."""
        head = await read_head(self.reader)
        if head.start[1] != "200":
            self.book.wrong.append(f"client: {head.start} {head.fields.get('x-toska-error')}")
        if head.fields.get("x-id") != identity:
            self.book.wrong.append("client: another request's answer")
        if method != "HEAD":
            found, size = await read_hash(self.reader, head, pause=pause)
            self.book.bytes_in += size
            if found != head.fields.get("x-body"):
                self.book.wrong.append(f"client: {size} bytes are not what was sent")
        self.book.requests += 1
        self.closing = head.fields.get("connection") == "close"


Round = Callable[[Connection, random.Random], Awaitable[None]]


@asynccontextmanager
async def connection(address: tuple[str, int], book: Book, *, window: int = 0) -> AsyncGenerator[Connection]:
    """A connection, closed in the end."""
    end = socket.socket()
    end.setblocking(False)
    if window:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    await asyncio.get_running_loop().sock_connect(end, address)
    reader, writer = await asyncio.open_connection(sock=end, limit=window or 1 << 16)
    try:
        yield Connection(reader, writer, book)
    finally:
        with contextlib.suppress(OSError):
            writer.close()
            writer.transport.abort()


async def asking(link: Connection, chance: random.Random) -> None:
    """Requests one after the other, with and without bodies of all framings."""
    for _ in range(chance.randint(1, 30)):
        kind, size = chance.choice(["length", "chunked", "close"]), chance.choice([0, 1, 100, 5000, 70_000])
        method = chance.choice(["GET", "GET", "HEAD", "POST"])
        sent = chance.choice([1, 3000, 100_000]) if method == "POST" else 0
        identity = await link.send(f"/{kind}/{size}", chance, sent, method=method)
        await link.receive(identity, method=method)
        if link.closing:
            return
        await asyncio.sleep(chance.choice([0, 0, 0.001, 0.03]))


async def pipelining(link: Connection, chance: random.Random) -> None:
    """Many requests at once, answered in their order."""
    sent = [
        await link.send(f"/length/{chance.choice([0, 10, 3000])}", chance, chance.choice([0, 50])) for _ in range(8)
    ]
    for identity in sent:
        await link.receive(identity)
        if link.closing:
            return  # the rest has to be asked again (RFC 9112 §9.3.2)


async def moving_much(link: Connection, chance: random.Random) -> None:
    """Megabytes each way."""
    size = chance.randint(1, 8) * 1_000_000 + chance.randint(0, 1000)
    await link.receive(await link.send(f"/{chance.choice(['length', 'chunked', 'close'])}/{size}", chance, size))


async def reading_slowly(link: Connection, chance: random.Random) -> None:
    """A reader that takes its time."""
    await link.receive(await link.send("/length/600000", chance), pause=0.01)


async def writing_slowly(link: Connection, chance: random.Random) -> None:
    """A writer that takes its time."""
    await link.receive(await link.send("/length/10", chance, 600_000, pause=0.05))


async def following_events(link: Connection, chance: random.Random) -> None:
    """Server-sent events, each as it is sent."""
    await link.send("/events/20", chance)
    head = await read_head(link.reader)
    text = b"".join([data async for data in read_body(link.reader, head)])
    if text != b"".join(b"data: %d\n\n" % number for number in range(20)):
        link.book.wrong.append(f"events: {text!r}")
    link.book.requests += 1


async def tunnelling(link: Connection, chance: random.Random) -> None:
    """A WebSocket's tunnel, and what goes in comes out."""
    lines = ["GET /tunnel HTTP/1.1", "host: soak", "x-body: " + body_of(0, 0)[1], "connection: upgrade"]
    link.writer.write("\r\n".join([*lines, "upgrade: websocket", "", ""]).encode())
    head = await read_head(link.reader)
    if head.start[1] != "101":
        link.book.wrong.append(f"tunnel: {head.start}")
        return
    for number in range(20):
        data = piece_at(number, chance.randint(1, 30_000))
        link.writer.write(data)
        await link.writer.drain()
        if await link.reader.readexactly(len(data)) != data:
            link.book.wrong.append("tunnel: other bytes came back")
        link.book.bytes_out += len(data)
        await asyncio.sleep(0.01)
    link.book.requests += 1


async def leaving_early(link: Connection, chance: random.Random) -> None:
    """A client that is gone in the middle of something."""
    size = chance.choice([0, 500_000])
    task = asyncio.ensure_future(link.send(f"/{chance.choice(['length', 'chunked', 'events'])}/200000", chance, size))
    await asyncio.sleep(chance.random() * 0.03)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    if chance.random() < 0.5 and not link.writer.transport.is_closing():
        link.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


KINDS: dict[str, tuple[Round, int, int]] = {
    "asking": (asking, 6, 0),
    "pipelining": (pipelining, 2, 0),
    "moving much": (moving_much, 1, 0),
    "reading slowly": (reading_slowly, 2, 4096),
    "writing slowly": (writing_slowly, 2, 0),
    "following events": (following_events, 3, 0),
    "tunnelling": (tunnelling, 3, 0),
    "leaving early": (leaving_early, 2, 0),
}
"""What clients do, how many do it at a time, and the window of those that read slowly."""


async def keep_doing(kind: str, address: tuple[str, int], book: Book, stop: asyncio.Event, seed: int) -> None:
    """Rounds of one kind, each on a connection of its own, until stopped."""
    round_, _, window = KINDS[kind]
    chance, clock = random.Random(f"{kind} {seed}"), asyncio.get_running_loop().time
    while not stop.is_set():
        started = clock()
        try:
            async with asyncio.timeout(PATIENCE_S), connection(address, book, window=window) as link:
                await round_(link, chance)
            book.rounds[kind] += 1
        except (OSError, EOFError, TimeoutError, RuntimeError) as error:  # (uvloop: writing after a close)
            if kind != "leaving early":
                book.broke(kind, error, clock(), started)
        except (ValueError, LookupError) as error:
            book.wrong.append(f"{kind}: {error!r}")
