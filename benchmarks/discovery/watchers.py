"""A thousand blocking queries on one service, and when each of them hears of a change.

The clients are bare asyncio protocols that look for the end of an answer and nothing else, so that what is measured is
the registry and not the bench.
"""

import asyncio
import time
from typing import cast

from benchmarks import BenchError
from benchmarks.discovery.content import WATCHED, registration
from benchmarks.figures import Record

_SETTLE_S = 1.0
_PATIENCE_S = 20.0
_HEAD_END = b"\r\n\r\n"


class Told(Record):
    """Milliseconds from sending the change to the whole answer of the first, the middle and the last watcher."""

    first_ms: float
    median_ms: float
    last_ms: float


class _Connection(asyncio.Protocol):
    """One keep-alive connection with one request in flight at most; `Content-Length` and chunked answers."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[tuple[float, bytes]] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self.answer.done() and _is_complete(self._buffer):
            self.answer.set_result((time.monotonic(), bytes(self._buffer)))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc or ConnectionResetError("closed before an answer"))

    def send(self, request: bytes) -> None:
        assert self._transport is not None
        self._buffer.clear()
        self.answer = self._loop.create_future()
        self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        if self.answer.done() and not self.answer.cancelled():
            self.answer.exception()


def _is_complete(answer: bytearray) -> bool:
    head, separator, body = bytes(answer).partition(_HEAD_END)
    if not separator:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return body.endswith(b"0\r\n\r\n")


async def tell_watchers(port: int, token: str, watchers: int, revision: int) -> Told:
    """Block this many watchers on one service, change it, and time their answers.

    Raises:
        BenchError: A watcher was answered without a change, not in time, or not with success.
    """
    loop = asyncio.get_running_loop()
    connections: list[_Connection] = []
    try:
        for _ in range(watchers + 1):
            _, connection = await loop.create_connection(_Connection, "127.0.0.1", port)
            connections.append(connection)
        writer, *blocked = connections
        request = _blocking_request(await _index(writer))
        for connection in blocked:
            connection.send(request)
        await asyncio.sleep(_SETTLE_S)
        if early := sum(connection.answer.done() for connection in blocked):
            raise BenchError(f"{early} of {watchers} watchers were answered before anything changed")
        sent = time.monotonic()
        writer.send(_change_request(token, revision))
        async with asyncio.timeout(_PATIENCE_S):
            answers = await asyncio.gather(*(connection.answer for connection in blocked))
            _, written = await writer.answer
    except (OSError, TimeoutError) as error:
        raise BenchError(f"watchers: {error!r}") from error
    finally:
        for connection in connections:
            connection.close()
    for answer in (written, *(answer for _, answer in answers)):
        if not answer.startswith(b"HTTP/1.1 200"):
            raise BenchError(f"watchers: {answer[:200]!r}")
    delays = sorted((at - sent) * 1000 for at, _ in answers)
    return Told(first_ms=delays[0], median_ms=delays[len(delays) // 2], last_ms=delays[-1])


async def _index(connection: _Connection) -> int:
    connection.send(f"GET /v1/health/service/{WATCHED}?passing HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    async with asyncio.timeout(_PATIENCE_S):
        _, answer = await connection.answer
    for line in answer.partition(_HEAD_END)[0].decode().splitlines():
        name, _, value = line.partition(":")
        if name.lower() == "x-consul-index":
            return int(value)
    raise BenchError("watchers: the registry gave no X-Consul-Index")


def _blocking_request(index: int) -> bytes:
    path = f"/v1/health/service/{WATCHED}?passing&index={index}&wait=120s"
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def _change_request(token: str, revision: int) -> bytes:
    body = registration(0, revision)
    head = [
        "PUT /v1/agent/service/register HTTP/1.1",
        "Host: localhost",
        *([f"X-Consul-Token: {token}"] if token else []),
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()
