"""The process that is measured: calls an upstream with one kind of client for a while and says what that took.

Run by the bench as `python -m benchmarks.client.caller KIND URL SECONDS CONCURRENCY`; prints one line of JSON.
"""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import uvloop
from starlette.types import ASGIApp, Message

from benchmarks.figures import Record
from benchmarks.profiles import BODY

Call = Callable[[], Awaitable[bytes]]
"""One request to the upstream; returns the body of its answer."""

_WARM_UP_S = 0.5


class Called(Record):
    """What one kind of client did. Processor time is the whole process's."""

    calls: int
    seconds: float
    cpu_seconds: float
    p50_ms: float
    p99_ms: float


@asynccontextmanager
async def _aiohttp(url: str) -> AsyncGenerator[Call]:
    import aiohttp

    async with aiohttp.ClientSession(url) as session:

        async def call() -> bytes:
            async with session.get("/") as answer:
                answer.raise_for_status()
                return await answer.read()

        yield call


@asynccontextmanager
async def _httpx(url: str) -> AsyncGenerator[Call]:
    import httpx

    async with httpx.AsyncClient(base_url=url) as client:

        async def call() -> bytes:
            answer = await client.get("/")
            return answer.raise_for_status().content

        yield call


@asynccontextmanager
async def _httpx_aiohttp(url: str) -> AsyncGenerator[Call]:
    import httpx
    import httpx_aiohttp

    async with httpx.AsyncClient(base_url=url, transport=httpx_aiohttp.AiohttpTransport()) as client:

        async def call() -> bytes:
            answer = await client.get("/")
            return answer.raise_for_status().content

        yield call


@asynccontextmanager
async def _mesh(url: str) -> AsyncGenerator[Call]:
    """The SDK in a running app, as a service has it; `TOSKA_REGISTRY_URL` says where `payments` is found."""
    from fastapi import FastAPI
    from toska_common import Mesh

    app = FastAPI()
    mesh = Mesh(app, name="orders", logs=False)
    async with _started(app), mesh.client("payments") as client:

        async def call() -> bytes:
            answer = await client.get("/")
            return answer.raise_for_status().content

        yield call


@asynccontextmanager
async def _started(app: ASGIApp) -> AsyncGenerator[None]:
    """The app between the start and the end of its lifespan, without a server: nothing is registered."""
    started, stop = anyio.Event(), anyio.Event()
    messages = iter(("lifespan.startup", "lifespan.shutdown"))

    async def receive() -> Message:
        if started.is_set():
            await stop.wait()
        return {"type": next(messages)}

    async def send(message: Message) -> None:
        assert message["type"].endswith(".complete"), message
        started.set()

    async def live() -> None:
        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(live)
        await started.wait()
        yield
        stop.set()


KINDS: dict[str, Callable[[str], AbstractAsyncContextManager[Call]]] = {
    "httpx": _httpx,
    "httpx on aiohttp": _httpx_aiohttp,
    "aiohttp": _aiohttp,
    "mesh.client": _mesh,
}


async def _measure(kind: str, url: str, seconds: float, concurrency: int) -> Called:
    async with KINDS[kind](url) as call:
        await _call_for(call, _WARM_UP_S, concurrency)
        began, spent = time.perf_counter(), time.process_time()
        delays = sorted(await _call_for(call, seconds, concurrency))
        return Called(
            calls=len(delays),
            seconds=time.perf_counter() - began,
            cpu_seconds=time.process_time() - spent,
            p50_ms=delays[len(delays) // 2] * 1000,
            p99_ms=delays[len(delays) * 99 // 100] * 1000,
        )


async def _call_for(call: Call, seconds: float, concurrency: int) -> list[float]:
    """Call without a pause from this many tasks; returns the delay of each call."""
    delays: list[float] = []
    end = time.perf_counter() + seconds

    async def caller() -> None:
        now = time.perf_counter()
        while now < end:
            began = now
            body = await call()
            now = time.perf_counter()
            assert body == BODY, body[:200]
            delays.append(now - began)

    async with anyio.create_task_group() as tasks:
        for _ in range(concurrency):
            tasks.start_soon(caller)
    return delays


def main(kind: str, url: str, seconds: str, concurrency: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(_measure(kind, url, float(seconds), int(concurrency))).model_dump_json())


if __name__ == "__main__":
    main(*sys.argv[1:])
