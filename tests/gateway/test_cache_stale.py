"""Stale responses: served while they are asked for anew, and in the place of errors."""

import asyncio
import time

import pytest
from toska_tests.cached import FRESH, PLAIN, STALE, cached, reply
from toska_tests.gateways import Gateway
from toska_tests.ports import free_port
from toska_tests.raw_http import Conversation, answering, ask, connected, get, request, upstream
from toska_tests.waiting import unless_late, wait_until

pytestmark = pytest.mark.usefixtures("nothing_stored")


async def test_a_stale_response_is_served_while_it_is_asked_for_anew(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        fields = ("cache-control: max-age=60, stale-while-revalidate=60", "age: 70", 'etag: "v1"')
        await conversation.send(reply(*fields))
        await conversation.request()
        await go_on.wait()
        await conversation.send(reply(FRESH, body=b"news"))
        await conversation.until_closed()

    async with upstream(script) as app:
        await gateway.serve(cached(app.port))
        await ask(gateway.address, PLAIN)
        for _ in range(5):  # one refresh, however many are served meanwhile
            stale = await ask(gateway.address, PLAIN)
            assert stale.body == b"hello"
            assert (stale.value("cache-status") or b"").startswith(b"toska; hit; ttl=-")
        await wait_until(lambda: len(app.requests) == 2, what="the refresh has been sent")
        assert app.requests[1].value("if-none-match") == b'"v1"'
        go_on.set()

        async def renewed() -> bool:
            return (await ask(gateway.address, PLAIN)).body == b"news"

        await wait_until(renewed, what="what came anew is served")
        assert len(app.requests) == 2


async def test_a_refresh_that_fails_leaves_the_stale_response_where_it_is(gateway: Gateway) -> None:
    async with upstream(
        answering(
            reply("cache-control: max-age=60, stale-while-revalidate=60", "age: 70"),
            reply(status="500 No", body=b"no"),
        )
    ) as app:
        await gateway.serve(cached(app.port))
        for _ in range(3):
            assert (await ask(gateway.address, PLAIN)).body == b"hello"
        await wait_until(lambda: len(app.requests) >= 2)
        assert (await ask(gateway.address, PLAIN)).body == b"hello"


async def test_a_dead_upstream_is_stood_in_for(gateway: Gateway) -> None:
    port = free_port()
    async with upstream(reply("cache-control: max-age=60, stale-if-error=60", "age: 70"), port=port):
        await gateway.serve(cached(port))
        await ask(gateway.address, PLAIN)
    stale = await ask(gateway.address, PLAIN)
    assert (stale.status, stale.body, stale.error) == (200, b"hello", None)
    assert (stale.value("cache-status") or b"").startswith(b"toska; fwd=stale; ttl=-")
    head = await ask(gateway.address, request("HEAD"), to="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert (await ask(gateway.address, get("/other"))).status in (502, 503)
    assert (await ask(gateway.address, get("/", "Cache-Control: no-cache"))).status in (502, 503)


@pytest.mark.parametrize("status", ["500 No", "502 No", "503 No", "504 No"])
async def test_an_upstream_that_fails_is_stood_in_for(gateway: Gateway, status: str) -> None:
    stale = reply("cache-control: max-age=60", "age: 70", 'etag: "v1"')
    async with upstream(answering(stale, reply(status=status, body=b"no" * 50_000))) as app:
        await gateway.serve(cached(app.port, {"retry": {"attempts": 1}}, stale_if_error="60s"))
        async with connected(gateway.address) as client:
            for _ in range(3):
                assert (await client.ask(PLAIN)).body == b"hello"
            head = await client.ask(request("HEAD"), to="HEAD")
            assert head.status == 200
    assert 2 <= len(app.requests) <= 4  # those that it has failed once need not wait for it again


async def test_an_upstream_that_hangs_is_waited_for_once(gateway: Gateway) -> None:
    stale, hangs = reply("cache-control: max-age=60, stale-if-error=60", "age: 70"), asyncio.Event()

    async def script(conversation: Conversation) -> None:
        seen = [message.target for message in app.requests]
        message = await conversation.request()
        if message.target not in seen:
            await conversation.send(stale)
            await conversation.request()
        await hangs.wait()

    async def waited_for_once() -> None:
        nonlocal fills
        fills += 1
        app.requests.clear()
        plain = get(f"/{fills}")
        assert (await ask(gateway.address, plain)).body == b"hello"
        started = time.monotonic()
        assert (await ask(gateway.address, plain)).body == b"hello"
        assert time.monotonic() - started >= 0.3
        for _ in range(20):
            assert (await ask(gateway.address, plain)).body == b"hello"
        assert len(app.requests) <= 6

    fills = 0
    async with upstream(script) as app:
        await gateway.serve(cached(app.port, {"response_timeout": "300ms", "retry": {"attempts": 1}}))
        # The time of one that hangs, and of one that was to fill the cache and did not.
        await unless_late(waited_for_once, limit_s=2 * 0.3)


async def test_without_leave_an_error_is_an_error(gateway: Gateway) -> None:
    async with upstream(answering(reply(*STALE), reply(status="503 No", body=b"no"))) as app:
        await gateway.serve(cached(app.port))
        async with connected(gateway.address) as client:
            assert [(await client.ask(PLAIN)).status for _ in range(2)] == [200, 503]
