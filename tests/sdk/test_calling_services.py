"""`mesh.client(...)`: who gets a call, what is tried again, what gives up at once, and what travels along."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from socket import AF_INET
from typing import TypeVar

import aiohttp
import anyio
import httpx
import pytest
from aiohttp.abc import ResolveResult
from toska_common.breaker import BreakerPolicy
from toska_common.contracts.discovery import Health
from toska_common.errors import CircuitOpen, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from toska_common.http_context import deadline
from toska_common.mesh import (
    AllCircuitsOpen,
    CallBroken,
    CallTimeout,
    ConnectFailed,
    DeadlineExceeded,
    NoEndpoints,
)
from toska_common.trace import TraceContext, current
from toska_tests.called import ANSWER, JSON, TRUNCATED, UNAVAILABLE, Services
from toska_tests.clients import http_client
from toska_tests.joined import Stage
from toska_tests.ports import free_port
from toska_tests.registries import wire_to
from toska_tests.waiting import wait_until

T = TypeVar("T")


@contextmanager
def set_to(variable: ContextVar[T], value: T) -> Generator[None]:
    """Give a context variable a value for the block."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


async def test_calls_are_shared_by_the_instances(services: Services) -> None:
    one, other = await services.start("shared"), await services.start("shared")
    client = services.mesh().client("shared")
    for _ in range(40):
        assert (await client.get("/")).text == "ok"
    assert len(one.requests) + len(other.requests) == 40
    assert min(len(one.requests), len(other.requests)) >= 5


async def test_critical_instances_are_not_called(services: Services) -> None:
    well, ill = await services.start("partly"), await services.start("partly", health=Health.CRITICAL)
    client = services.mesh().client("partly")
    for _ in range(10):
        await client.get("/")
    assert (len(well.requests), len(ill.requests)) == (10, 0)


async def test_unknown_service_is_an_error_of_the_mesh_and_of_httpx(services: Services) -> None:
    with pytest.raises(NoEndpoints, match="nobody") as caught:
        await services.mesh().client("nobody").get("/")
    assert isinstance(caught.value, httpx.ConnectError)
    assert isinstance(caught.value, UpstreamUnavailable)


async def test_instance_that_refuses_connections_is_passed_over_whatever_the_method(services: Services) -> None:
    await services.register("halfdead", free_port())
    alive = await services.start("halfdead")
    client = services.mesh().client("halfdead")
    for _ in range(10):
        assert (await client.post("/", json={})).status_code == 200
    assert len(alive.requests) == 10


async def test_instance_that_was_killed_costs_no_call_however_many_there_are(services: Services) -> None:
    """A killed instance is idle, so by load it would always be chosen, until there is no retry left to spend."""
    await services.register("halfkilled", free_port())
    await services.start("halfkilled")
    client = services.mesh().client("halfkilled")
    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(_call_often, client, 25)


async def _call_often(client: httpx.AsyncClient, count: int) -> None:
    for _ in range(count):
        assert (await client.get("/")).status_code == 200


async def test_broken_connection_is_tried_elsewhere_only_if_that_does_no_harm(services: Services) -> None:
    # However the first instance is chosen, every connection breaks: what counts is how often it was tried.
    one, other = await services.start("breaking", b""), await services.start("breaking", b"")

    async def attempts(call: Callable[[], Awaitable[object]]) -> int:
        one.requests.clear()
        other.requests.clear()
        with pytest.raises(CallBroken) as caught:
            await call()
        assert isinstance(caught.value, UpstreamError)
        assert isinstance(caught.value, httpx.TransportError)
        return len(one.requests) + len(other.requests)

    client = services.mesh(breaker=BreakerPolicy(min_requests=1000)).client("breaking")

    async def generate() -> AsyncIterator[bytes]:
        yield b"once"

    assert await attempts(lambda: client.post("/")) == 1
    assert await attempts(lambda: client.patch("/")) == 1
    assert await attempts(lambda: client.put("/", content=generate())) == 1
    assert await attempts(lambda: client.put("/", content=b"again and again")) == 3
    assert await attempts(lambda: client.post("/", headers={"idempotency-key": "1"})) == 3
    assert await attempts(lambda: client.get("/")) == 3
    assert one.requests
    assert other.requests


async def test_retries_run_out_when_everything_fails(services: Services) -> None:
    upstream = await services.start("drowning", b"")
    client = services.mesh(breaker=BreakerPolicy(min_requests=1000)).client("drowning")
    for _ in range(40):
        with pytest.raises(CallBroken):
            await client.get("/")
    # 40 calls, and for each a fifth of a retry beside the ten in reserve; not three times 40.
    assert 40 < len(upstream.requests) <= 40 + 10 + 8


async def test_slow_answer_is_not_asked_for_twice(services: Services) -> None:
    upstream = await services.start("sleeping", None)
    client = services.mesh().client("sleeping", timeout=0.2)
    with pytest.raises(CallTimeout) as caught:
        await client.get("/")
    assert isinstance(caught.value, UpstreamTimeout)
    assert isinstance(caught.value, httpx.TimeoutException)
    assert len(upstream.requests) == 1


async def test_circuit_opens_on_failures_and_closes_when_the_service_is_back(services: Services) -> None:
    upstream = await services.start("failing", UNAVAILABLE)
    policy = BreakerPolicy(min_requests=5, cooldown_s=0.3, half_open_requests=1)
    client = services.mesh(breaker=policy).client("failing")
    for _ in range(5):
        assert (await client.get("/")).status_code == 503
    with pytest.raises(AllCircuitsOpen) as caught:
        await client.get("/")
    assert isinstance(caught.value, CircuitOpen)
    assert caught.value.headers == {"retry-after": "1"}
    assert len(upstream.requests) == 5
    upstream.answer = ANSWER

    with anyio.fail_after(20):
        while True:
            try:
                assert (await client.get("/")).status_code == 200
                break
            except AllCircuitsOpen:
                await anyio.sleep(0.05)


async def test_open_circuit_of_one_instance_leaves_the_others(services: Services) -> None:
    ill, well = await services.start("onesided", UNAVAILABLE), await services.start("onesided")
    client = services.mesh(breaker=BreakerPolicy(min_requests=3)).client("onesided")
    statuses = [(await client.get("/")).status_code for _ in range(60)]
    assert statuses.count(503) == len(ill.requests) == 3
    assert len(well.requests) == 57


async def test_instance_that_broke_calls_is_called_again_when_it_is_well(services: Services) -> None:
    ill, _ = await services.start("recovering", b""), await services.start("recovering")
    client = services.mesh(breaker=BreakerPolicy(min_requests=1000)).client("recovering")
    for _ in range(10):
        await client.get("/")
    ill.answer = ANSWER
    ill.requests.clear()
    for _ in range(40):
        await client.get("/")
    assert len(ill.requests) >= 5


async def test_body_that_breaks_off_is_the_upstreams_fault(services: Services) -> None:
    upstream = await services.start("truncating", TRUNCATED)
    upstream.close = True
    with pytest.raises(CallBroken):
        await services.mesh().client("truncating").get("/")


async def test_trace_deadline_and_name_of_the_caller_travel_along(services: Services) -> None:
    upstream = await services.start("told")
    client = services.mesh().client("told", timeout=60.0)
    context = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", sampled=True, tracestate="a=b")
    with set_to(current, context), set_to(deadline, time.monotonic() + 5):
        await client.get("/")
    headers = dict(line.split(": ", 1) for line in upstream.requests[0].lower().split("\r\n")[1:])
    assert headers["traceparent"] == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert headers["tracestate"] == "a=b"
    assert 4000 < int(headers["x-toska-deadline-ms"]) <= 5000
    assert headers["x-toska-caller"] == "caller"
    assert headers["host"] == "told"


async def test_call_without_a_deadline_tells_how_long_it_waits(services: Services) -> None:
    upstream = await services.start("waited")
    await services.mesh().client("waited", timeout=3.0).get("/")
    assert "x-toska-deadline-ms: 3000" in upstream.requests[0].lower()


async def test_nothing_is_sent_when_the_time_is_over(services: Services) -> None:
    upstream = await services.start("late")
    client = services.mesh().client("late")
    await client.get("/")
    with set_to(deadline, time.monotonic() - 1), pytest.raises(DeadlineExceeded) as caught:
        await client.get("/")
    assert caught.value.status == 504
    assert len(upstream.requests) == 1


async def test_call_ends_with_the_deadline_of_the_work_it_is_for(services: Services) -> None:
    await services.start("dawdling", None)
    client = services.mesh().client("dawdling", timeout=60.0)
    with anyio.fail_after(20), set_to(deadline, time.monotonic() + 0.3), pytest.raises(DeadlineExceeded):
        await client.get("/")


async def test_clients_keep_their_cookies_apart(services: Services) -> None:
    upstream = await services.start("oven")
    await services.register("baking", upstream.port, address="localhost")  # cookies of bare addresses nobody keeps
    mesh = services.mesh()
    await mesh.client("baking").get("/")
    await mesh.client("baking").get("/")
    assert len(upstream.requests) == 2
    assert not any("cookie:" in request.lower() for request in upstream.requests)


async def test_client_calls_its_service_and_nothing_else(services: Services) -> None:
    client = services.mesh().client("narrow")
    for url in ("http://other/", "https://narrow/", "http://127.0.0.1:1/"):
        with pytest.raises(httpx.UnsupportedProtocol, match="narrow"):
            await client.get(url)


async def test_name_cannot_hide_an_address_that_nobody_may_be_sent_to(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(_self: object, host: str, port: int = 0, **_: object) -> list[ResolveResult]:
        found = ResolveResult(hostname=host, host="169.254.169.254", port=port, family=AF_INET, proto=0, flags=0)
        return [found]

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)  # as somebody's DNS may answer
    await services.register("tempting", 80, address="metadata.example")
    with anyio.fail_after(20), pytest.raises(ConnectFailed, match="must not be connected to"):
        await services.mesh().client("tempting").get("/")


async def test_response_can_be_streamed(services: Services) -> None:
    await services.start("flowing")
    async with services.mesh().client("flowing").stream("GET", "/") as response:
        assert [chunk async for chunk in response.aiter_text()] == ["ok"]


async def test_refused_everywhere_is_unavailable(services: Services) -> None:
    await services.register("gone", free_port())
    with pytest.raises(ConnectFailed) as caught:
        await services.mesh().client("gone").get("/")
    assert caught.value.status == 503


async def test_failed_call_of_a_service_is_answered_as_the_upstreams_failure(services: Services) -> None:
    await services.start("sick", b"")
    app, mesh = services.app()

    @app.get("/call/{service}")
    async def call(service: str) -> None:
        await mesh.client(service).get("/")

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://caller") as client:
        broken, missing = await client.get("/call/sick"), await client.get("/call/nothere")
    assert (broken.status_code, broken.json()["type"]) == (502, "/problems/upstream-error")
    assert (missing.status_code, missing.json()["type"]) == (503, "/problems/upstream-unavailable")


async def test_calls_of_an_app_follow_the_registry_and_go_on_without_it(stage: Stage, services: Services) -> None:
    async with wire_to(stage.registry.url) as wire:
        with stage.serve("front", environment={"TOSKA_REGISTRY_URL": wire.url}) as front:
            await stage.registry.wait_for("front", 1)
            one = await services.start("followed", JSON)
            await _call(front.url, 1)
            assert len(one.requests) == 1
            other = await services.start("followed", JSON)

            async def is_shared() -> bool:
                await _call(front.url, 5)
                return bool(other.requests)

            await wait_until(is_shared, what="the second instance gets calls")
            await wire.cut()
            one.requests.clear()
            other.requests.clear()
            await _call(front.url, 30)
            assert min(len(one.requests), len(other.requests)) >= 3
            await other.stop()
            one.requests.clear()
            await _call(front.url, 30)
            assert len(one.requests) == 30


async def _call(front: str, calls: int) -> None:
    async with http_client() as client:
        for _ in range(calls):
            answer = await client.get(f"{front}/call/followed/x")
            assert answer.status_code == 200, answer.text
