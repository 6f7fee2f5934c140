"""Responses that events end: in the worker that keeps them, on their way to it, and in what gateways share."""

import asyncio
from typing import Any

import pytest
from toska_tests.cached import FRESH, PLAIN, bodies, cached, numbered, reply
from toska_tests.gateways import Gateway, cluster, route, running_gateway
from toska_tests.raw_http import Conversation, Script, ask, connected, get, upstream
from toska_tests.redis_servers import RedisServer
from toska_tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("nothing_stored")


async def end(gateway: Gateway, **names: list[str]) -> None:
    """Have workers told, and wait until they have heard it."""
    gateway.supervisor.end_responses(names)
    await gateway.supervisor.purge({"url": "http://nowhere/"})  # answered after what they were told before


def url_of(path: str) -> str:
    return f"http://test{path}"


async def test_a_group_ends_what_is_in_it_and_nothing_else(gateway: Gateway) -> None:
    async with upstream(numbered(FRESH, 'cache-groups: "shop", "p-1"')) as app:
        await gateway.serve(cached(app.port, forget_on_events=True))
        assert await bodies(gateway, get("/a"), get("/b"), get("/a")) == [b"1", b"2", b"1"]
        await end(gateway, groups=["p-2"])
        assert await bodies(gateway, get("/a"), get("/b")) == [b"1", b"2"]
        await end(gateway, groups=["p-2", "p-1"])
        assert await bodies(gateway, get("/a"), get("/b"), get("/a")) == [b"3", b"4", b"3"]


@pytest.mark.parametrize("names", [{"urls": [url_of("/")]}, {"routes": ["all"]}, {}], ids=["url", "route", "all"])
async def test_a_url_a_route_and_everything_end_in_all_variants(gateway: Gateway, names: dict[str, list[str]]) -> None:
    one, two = get("/", "X-A: 1"), get("/", "X-A: 2")
    async with upstream(numbered(FRESH, "vary: x-a")) as app:
        await gateway.serve(cached(app.port, forget_on_events=True))
        assert await bodies(gateway, one, two, one) == [b"1", b"2", b"1"]
        await end(gateway, urls=[url_of("/other")], routes=["other"])
        assert await bodies(gateway, one, two) == [b"1", b"2"]
        await end(gateway, **names)
        assert await bodies(gateway, one, two, one) == [b"3", b"4", b"3"]


async def test_a_route_that_does_not_listen_keeps_what_it_has(gateway: Gateway) -> None:
    async with upstream(numbered(FRESH, 'cache-groups: "p-1"')) as app:
        await gateway.serve(cached(app.port))
        assert await bodies(gateway, PLAIN) == [b"1"]
        for names in ({"groups": ["p-1"]}, {"urls": [url_of("/")]}, {"routes": ["all"]}, dict[str, list[str]]()):
            await end(gateway, **names)
        assert await bodies(gateway, PLAIN) == [b"1"]
        assert await gateway.supervisor.purge({}) == 1


async def test_a_route_that_comes_to_listen_begins_anew(gateway: Gateway) -> None:
    async with upstream(numbered(FRESH)) as app:
        await gateway.serve(cached(app.port))
        assert await bodies(gateway, PLAIN, PLAIN) == [b"1", b"1"]
        await gateway.serve(cached(app.port, forget_on_events=True))
        assert await bodies(gateway, PLAIN, PLAIN) == [b"2", b"2"]


async def test_groups_that_cannot_be_read_keep_a_response_from_being_kept_where_they_matter(gateway: Gateway) -> None:
    async with upstream(numbered(FRESH, "cache-groups: shop")) as app:
        await gateway.serve(cached(app.port, forget_on_events=True))
        answer = await ask(gateway.address, PLAIN)
        assert b"detail=cache-groups" in (answer.value("cache-status") or b"")
        assert answer.value("cache-groups") == b"shop"
        assert await bodies(gateway, PLAIN) == [b"2"]
        await gateway.serve(cached(app.port))
        assert await bodies(gateway, PLAIN, PLAIN) == [b"3", b"3"]


def held(go_on: asyncio.Event) -> Script:
    """A script that answers when it may."""

    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await go_on.wait()
            await conversation.send(reply(FRESH))

    return script


async def test_what_was_on_its_way_when_it_ended_is_given_and_not_kept(gateway: Gateway) -> None:
    go_on = asyncio.Event()
    async with upstream(held(go_on)) as app:
        await gateway.serve(cached(app.port, forget_on_events=True))
        async with connected(gateway.address) as client:
            await client.send(PLAIN)
            await wait_until(lambda: len(app.requests) == 1, what="the upstream is asked")
            await end(gateway, routes=["all"])
            go_on.set()
            assert (await client.response()).body == b"hello"
        assert await bodies(gateway, PLAIN) == [b"hello"]
        assert len(app.requests) == 2
        assert await bodies(gateway, PLAIN) == [b"hello"]
        assert len(app.requests) == 2


async def test_who_asks_after_an_event_does_not_wait_for_what_was_asked_for_before(gateway: Gateway) -> None:
    go_on = asyncio.Event()
    async with upstream(held(go_on)) as app:
        await gateway.serve(cached(app.port, forget_on_events=True, coalesce_timeout="10m"))
        async with connected(gateway.address) as before, connected(gateway.address) as after:
            await before.send(PLAIN)
            await wait_until(lambda: len(app.requests) == 1, what="the upstream is asked")
            await end(gateway, routes=["all"])
            await after.send(PLAIN)
            await wait_until(lambda: len(app.requests) == 2, what="the upstream is asked anew")
            go_on.set()
            assert [(await one.response()).body for one in (before, after)] == [b"hello", b"hello"]
        assert await bodies(gateway, PLAIN) == [b"hello"]
    assert len(app.requests) == 2  # what was asked for after it is kept


async def test_a_validation_that_was_under_way_does_not_keep_it_either(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    async def validated(conversation: Conversation) -> None:
        while True:
            message = await conversation.request()
            if message.value("if-none-match") is None:
                await conversation.send(reply("cache-control: no-cache", 'etag: "v1"'))
                continue
            await go_on.wait()
            await conversation.send(b'HTTP/1.1 304 Not Modified\r\ncache-control: max-age=60\r\netag: "v1"\r\n\r\n')

    async with upstream(validated) as app:
        await gateway.serve(cached(app.port, forget_on_events=True))
        assert await bodies(gateway, PLAIN) == [b"hello"]
        async with connected(gateway.address) as client:
            await client.send(PLAIN)
            await wait_until(lambda: len(app.requests) == 2, what="the upstream is asked")
            await end(gateway, routes=["all"])
            go_on.set()
            assert (await client.response()).body == b"hello"
        assert await bodies(gateway, PLAIN) == [b"hello"]
        assert len(app.requests) == 3
        assert app.requests[2].value("if-none-match") is None


async def test_more_than_is_forgotten_in_one_go_is_forgotten_too(gateway: Gateway) -> None:
    paths = [get(f"/{number}") for number in range(600)]
    async with upstream(numbered(FRESH, 'cache-groups: "p-1"')) as app:
        await gateway.serve(cached(app.port, forget_on_events=True))
        async with connected(gateway.address) as client:
            for path in paths:
                await client.ask(path)
        assert await gateway.metric("cache_entries") == len(paths)
        gateway.supervisor.end_responses({"groups": ["p-1"]})

        async def none() -> bool:
            return await gateway.metric("cache_entries") == 0

        await wait_until(none, what="all are forgotten")


async def test_all_workers_hear_of_it() -> None:
    async with upstream(numbered(FRESH, 'cache-groups: "p-1"')) as app, running_gateway(workers=2) as gateway:
        await gateway.serve(cached(app.port, forget_on_events=True))

        async def both() -> bool:
            await ask(gateway.address, PLAIN)
            return await gateway.metric("cache_entries") == 2

        await wait_until(both, what="both workers have it", every=0)
        gateway.supervisor.end_responses({"groups": ["p-1"]})

        async def none() -> bool:
            return await gateway.metric("cache_entries") == 0

        await wait_until(none, what="both workers have forgotten it")


def shared(port: int) -> dict[str, Any]:
    policies = {"cache": {"forget_on_events": True}}
    return {
        "server": {"cache": {"shared_wait": "2s"}},
        "clusters": {"app": cluster(port)},
        "routes": [route("all", policies=policies)],
    }


@pytest.mark.usefixtures("running_redis")
async def test_what_has_ended_is_not_taken_from_those_who_have_not_heard_of_it_yet(redis: RedisServer) -> None:
    async with (
        upstream(numbered(FRESH, 'cache-groups: "p-1"')) as app,
        running_gateway(cache_url=redis.url) as one,
        running_gateway(cache_url=redis.url) as other,
    ):
        for gateway in (one, other):
            await gateway.serve(shared(app.port))
        tries = 0

        async def is_shared() -> bool:
            """What was shared before a worker began may have ended unheard, so this takes two seconds."""
            nonlocal tries
            tries += 1
            await ask(one.address, get(f"/{tries}"))
            found = await ask(other.address, get(f"/{tries}"))
            return (found.value("cache-status") or b"").endswith(b"detail=shared")

        await wait_until(is_shared, what="one gateway takes what another one shared", every=0.05)
        await end(other, groups=["p-1"])
        asked = len(app.requests)
        await ask(one.address, get(f"/{tries}"))
        assert len(app.requests) == asked  # it has not heard, and still has what it shared
        await ask(other.address, get(f"/{tries}"))
        assert len(app.requests) == asked + 1
