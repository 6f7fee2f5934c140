"""The load that does not wait must charge a server for what waited while it stalled."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import repeat
from typing import cast

import pytest
from toska_tests.waiting import unless_late

from benchmarks import BenchError
from benchmarks.pace import WARM_UP_S, send_paced

pytestmark = pytest.mark.alone

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = b"ok"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class _Server(asyncio.Protocol):
    """Answers each request at once, with what `answer` says."""

    def __init__(self, answer: Callable[[], bytes]) -> None:
        self._answer = answer
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        for _ in range(data.count(b"\r\n\r\n")):
            self._transport.write(self._answer())


@asynccontextmanager
async def _served(answer: Callable[[], bytes]) -> AsyncGenerator[int]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Server(answer), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def test_as_many_requests_are_sent_as_the_rate_says() -> None:
    async def paces() -> None:
        async with _served(lambda: ANSWER) as port:
            paced = await send_paced(port, repeat(REQUEST), body=BODY, rate=500, connections=20, seconds=0.5)
        assert abs(paced.requests - 250) <= 2
        assert paced.p50_ms < 100

    await unless_late(paces, limit_s=WARM_UP_S + 0.5 + 0.1)


async def test_a_stall_is_charged_to_every_request_that_was_due_meanwhile() -> None:
    """One request in five hundred waits 0.4 s for the server, but two hundred were due by the time it went on."""
    stall_s, rate, seconds = 0.4, 500, 1.0
    stalls = list[float]()
    answered = 0

    def answer() -> bytes:
        nonlocal answered
        answered += 1
        if stalls and answered > rate * (WARM_UP_S + 0.3):
            stalls.pop()
            time.sleep(stall_s)
        return ANSWER

    async def charges() -> None:
        nonlocal answered
        stalls[:], answered = [0.0], 0
        async with _served(answer) as port:
            paced = await send_paced(port, repeat(REQUEST), body=BODY, rate=rate, connections=20, seconds=seconds)
        assert paced.longest_ms >= stall_s * 1000
        # A closed loop would have seen twenty slow answers of 500: its p99 aside, none of the queue behind them.
        assert paced.p99_ms > stall_s * 1000 * 0.9
        assert abs(paced.requests - rate * seconds) <= 2

    await unless_late(charges, limit_s=WARM_UP_S + seconds + 0.1)


async def test_a_run_ends_also_when_nothing_is_due_any_more_in_its_last_moments() -> None:
    async with _served(lambda: ANSWER) as port:
        paced = await send_paced(port, repeat(REQUEST), body=BODY, rate=3, connections=1, seconds=0.5)
    assert paced.requests >= 1


async def test_an_answer_that_is_no_success_ends_the_run() -> None:
    async with _served(lambda: b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nok") as port:
        with pytest.raises(BenchError, match="503"):
            await send_paced(port, repeat(REQUEST), body=BODY, rate=100, connections=2, seconds=0.2)


async def test_a_whole_answer_with_another_body_ends_the_run_and_is_shown() -> None:
    """Waiting for more of it would end when the server closes the idle connection, and say nothing of the reason."""
    async with _served(lambda: b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]") as port:
        with pytest.raises(BenchError, match=r"\[\]"):
            await send_paced(port, repeat(REQUEST), body=b"}]", rate=100, connections=2, seconds=0.2)
