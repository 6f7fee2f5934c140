"""A load that does not wait: requests at a constant rate over many connections, whatever the answers take.

A closed loop asks less of a server that is slow, and so never sees the queue that real clients would have formed
(coordinated omission). Here every request has its moment beforehand, and its latency runs from that moment, also while
its connection still waits for the answer before. Run as `python -m benchmarks.pace PORT REQUEST RATE CONNECTIONS
SECONDS BODY`, where REQUEST and BODY are files; prints one line of JSON.

The moments are the ticks of a kernel timer. What a tick makes due goes out at once, in turn over the connections. How
late the load itself was is part of what it tells: a load that is late measures itself.
"""

import asyncio
import gc
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import cast

import uvloop

from benchmarks import BenchError
from benchmarks.figures import Record
from benchmarks.open_loop import TICK_S, ticking

WARM_UP_S = 1.0
"""Not counted: connections are opened, on both sides of the proxy."""
_PATIENCE_S = 10.0
_CONNECT_BATCH = 100
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Paced(Record):
    """Latencies from the moment a request was due to the last byte of its answer.

    `late_p99_ms` is how late the load itself sent, `cpu_share` what it took of its core.
    """

    requests: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    longest_ms: float
    late_p99_ms: float
    cpu_share: float


class _Connection(asyncio.Protocol):
    """One keep-alive connection with one request in flight; what becomes due meanwhile waits here."""

    def __init__(self, pace: "_Pace") -> None:
        self._pace = pace
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[float] = deque()
        self._due = 0.0
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so

    def offer(self, due: float) -> None:
        """Send a request that is due, or have it wait for the answer before."""
        if self._due:
            self._waiting.append(due)
        else:
            self._send(due)

    def _send(self, due: float) -> None:
        assert self._transport is not None
        self._due = due
        self._transport.write(self._pace.next_request())

    def data_received(self, data: bytes) -> None:
        self._answer = answer = self._answer + data if self._answer else data
        if not answer.endswith(self._pace.body):
            # The body is the upstream's, whole and at the end, or the answer is not yet here.
            if _is_whole(answer):
                self._pace.failed(f"an answer was {answer[:400]!r}")
            return
        if not answer.startswith(b"HTTP/1.1 200"):
            self._pace.failed(f"an answer was {answer[:80]!r}")
        self._pace.answered(self._due)
        self._answer = b""
        self._due = 0.0
        if self._waiting:
            self._send(self._waiting.popleft())

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._pace.failed(f"a connection was closed ({exc})")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _is_whole(answer: bytes) -> bool:
    """Whether an answer with a length has come to its end."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return bool(end) and length is not None and len(body) >= int(length[1])


class _Pace:
    """One run of the load."""

    def __init__(
        self, port: int, requests: Iterator[bytes], body: bytes, rate: float, connections: int, seconds: float
    ) -> None:
        self.next_request = requests.__next__
        self.body = body
        self._port = port
        self._rate = rate
        self._count = connections
        self._ticks = round((seconds + WARM_UP_S) / TICK_S)
        self._connections: list[_Connection] = []
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._began = self._counts_from = 0.0
        self._tick = self._sent = self._answered = 0
        self._latencies: list[float] = []
        self._lateness: list[float] = []

    async def run(self) -> Paced:
        """Send everything and wait for the answers.

        Raises:
            BenchError: An answer was not what the upstream says, a connection broke, or answers are missing.
        """
        await self._connect()
        gc.collect()
        gc.freeze()
        timer = ticking(TICK_S)
        self._began = time.monotonic()
        self._counts_from = self._began + WARM_UP_S
        spent = time.process_time()
        self._loop.add_reader(timer, self._on_tick, timer)
        try:
            async with asyncio.timeout(self._ticks * TICK_S + _PATIENCE_S):
                await self._done
        except TimeoutError as error:
            raise BenchError(f"{self._sent - self._answered} of {self._sent} requests were not answered") from error
        finally:
            self._loop.remove_reader(timer)
            os.close(timer)
            for connection in self._connections:
                connection.close()
        return self._figures((time.process_time() - spent) / (time.monotonic() - self._began))

    async def _connect(self) -> None:
        while len(self._connections) < self._count:
            batch = min(_CONNECT_BATCH, self._count - len(self._connections))
            opened = await asyncio.gather(
                *(
                    self._loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
                    for _ in range(batch)
                )
            )
            self._connections += [connection for _, connection in opened]

    def _on_tick(self, timer: int) -> None:
        passed = int.from_bytes(os.read(timer, 8), sys.byteorder)
        for _ in range(passed):
            self._tick += 1
            due = self._began + self._tick * TICK_S
            until = int(min(self._tick, self._ticks) * TICK_S * self._rate)
            while self._sent < until:
                self._connections[self._sent % self._count].offer(due)
                self._sent += 1
            if due >= self._counts_from:
                self._lateness.append(time.monotonic() - due)
        if self._tick >= self._ticks:
            self._loop.remove_reader(timer)
            self._end_if_done()

    def answered(self, due: float) -> None:
        """Take the time of an answer to a request that was due then."""
        self._answered += 1
        if due >= self._counts_from:
            self._latencies.append(time.monotonic() - due)
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._answered == self._sent and self._tick >= self._ticks and not self._done.done():
            self._done.set_result(None)

    def failed(self, reason: str) -> None:
        """End the run, unless it has ended."""
        if not self._done.done():
            self._done.set_exception(BenchError(reason))

    def _figures(self, cpu_share: float) -> Paced:
        latencies = sorted(self._latencies)

        def at(share: float) -> float:
            return latencies[min(len(latencies) - 1, int(len(latencies) * share))] * 1000

        return Paced(
            requests=len(latencies),
            p50_ms=at(0.5),
            p99_ms=at(0.99),
            p999_ms=at(0.999),
            longest_ms=latencies[-1] * 1000,
            late_p99_ms=sorted(self._lateness)[int(len(self._lateness) * 0.99)] * 1000,
            cpu_share=cpu_share,
        )


async def send_paced(
    port: int, requests: Iterator[bytes], *, body: bytes, rate: float, connections: int, seconds: float
) -> Paced:
    """Send what `requests` has, without end, at `rate` a second; each answer must be a 200 that ends with `body`.

    Raises:
        BenchError: One was not, a connection broke, or answers are missing.
    """
    return await _Pace(port, requests, body, rate, connections, seconds).run()


def main(port: str, request: str, rate: str, connections: str, seconds: str, body: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        paced = runner.run(
            send_paced(
                int(port),
                repeat(Path(request).read_bytes()),
                body=Path(body).read_bytes(),
                rate=float(rate),
                connections=int(connections),
                seconds=float(seconds),
            )
        )
        print(paced.model_dump_json())


if __name__ == "__main__":
    main(*sys.argv[1:])
