"""Requests for the same at the same time: one goes to the upstream, the others wait for it, and not for ever."""

import asyncio
from collections.abc import Callable

import pytest
from toska_tests.cached import FRESH, PLAIN, cached, reply
from toska_tests.gateways import Gateway
from toska_tests.raw_http import Conversation, Message, Script, Upstream, ask, connected, get, upstream
from toska_tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("nothing_stored")


def slowly(go_on: asyncio.Event, answer: Callable[[Message], bytes]) -> Script:
    async def script(conversation: Conversation) -> None:
        while True:
            message = await conversation.request()
            await go_on.wait()
            await conversation.send(answer(message))

    return script


async def until_asked(app: Upstream, count: int, gateway: Gateway, clients: int) -> None:
    async def all_in() -> bool:
        return len(app.requests) >= count and await gateway.metric("connections") >= clients

    await wait_until(all_in, what=f"{count} requests upstream of {clients} clients")


async def at_once(
    gateway: Gateway, app: Upstream, go_on: asyncio.Event, requests: list[bytes], asked: int = 1
) -> list[Message]:
    """Answers to requests of clients of their own, all there before the upstream, `asked` so often, goes on."""
    answers = [asyncio.ensure_future(ask(gateway.address, message)) for message in requests]
    await until_asked(app, asked, gateway, len(requests))
    go_on.set()
    return list(await asyncio.gather(*answers))


async def test_many_requests_for_the_same_are_one_for_the_upstream(gateway: Gateway) -> None:
    go_on = asyncio.Event()
    async with upstream(slowly(go_on, lambda _: reply(FRESH))) as app:
        await gateway.serve(cached(app.port))
        answers = await at_once(gateway, app, go_on, [PLAIN] * 30)
    assert {answer.body for answer in answers} == {b"hello"}
    assert len(app.requests) == 1
    collapsed = [answer for answer in answers if b"collapsed" in (answer.value("cache-status") or b"")]
    assert len(collapsed) == 29


async def test_requests_do_not_queue_for_what_cannot_be_shared(gateway: Gateway) -> None:
    """The first one finds out; then all go at once, and later ones do not wait at all."""
    go_on, in_flight, most = asyncio.Event(), 0, 0

    async def script(conversation: Conversation) -> None:
        nonlocal in_flight, most
        while True:
            await conversation.request()
            in_flight += 1
            most = max(most, in_flight)
            await go_on.wait()
            in_flight -= 1
            await conversation.send(reply("cache-control: private"))

    async with upstream(script) as app:
        await gateway.serve(cached(app.port))
        await at_once(gateway, app, go_on, [PLAIN] * 10)
        assert len(app.requests) == 10
        go_on.clear()
        await at_once(gateway, app, go_on, [PLAIN] * 10, asked=20)
    assert most == 10


async def test_variants_are_asked_for_once_each(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    def say(message: Message) -> bytes:
        return reply(FRESH, "vary: x-a", body=message.value("x-a") or b"")

    async with upstream(slowly(go_on, say)) as app:
        await gateway.serve(cached(app.port))
        answers = await at_once(gateway, app, go_on, [get("/", f"X-A: {at % 2}") for at in range(20)])
    assert [answer.body for answer in answers] == [b"0", b"1"] * 10
    assert len(app.requests) == 2


async def test_a_request_waits_only_so_long(gateway: Gateway) -> None:
    go_on, asked = asyncio.Event(), 0

    async def script(conversation: Conversation) -> None:
        nonlocal asked
        await conversation.request()
        asked += 1
        if asked == 1:
            await go_on.wait()
        await conversation.send(reply("cache-control: private", body=b"own"))
        await conversation.until_closed()

    async with upstream(script) as app:
        await gateway.serve(cached(app.port, coalesce_timeout="50ms"))
        async with connected(gateway.address) as slow:
            await slow.send(PLAIN)
            await wait_until(lambda: len(app.requests) == 1)
            assert (await ask(gateway.address, PLAIN)).body == b"own"
            go_on.set()
            assert (await slow.response()).body == b"own"


async def test_those_who_wait_do_not_suffer_from_one_who_goes_away(gateway: Gateway) -> None:
    go_on = asyncio.Event()
    async with upstream(slowly(go_on, lambda _: reply(FRESH))) as app:
        await gateway.serve(cached(app.port))
        async with connected(gateway.address) as leaving:
            await leaving.send(PLAIN)
            await wait_until(lambda: len(app.requests) == 1)
            waiting = [asyncio.ensure_future(ask(gateway.address, PLAIN)) for _ in range(5)]
            await until_asked(app, 1, gateway, 6)
            leaving.reset()
        await wait_until(lambda: len(app.requests) == 2, what="the next one asks")
        go_on.set()
        assert {answer.body for answer in await asyncio.gather(*waiting)} == {b"hello"}
    assert len(app.requests) == 2


async def test_who_waits_and_goes_away_leaves_nothing_behind(gateway: Gateway) -> None:
    go_on = asyncio.Event()
    async with upstream(slowly(go_on, lambda _: reply(FRESH))) as app:
        await gateway.serve(cached(app.port))
        async with connected(gateway.address) as first:
            await first.send(PLAIN)
            await wait_until(lambda: len(app.requests) == 1)
            async with connected(gateway.address) as second:
                await second.send(PLAIN)
                await until_asked(app, 1, gateway, 2)
                second.reset()
            go_on.set()
            assert (await first.response()).body == b"hello"
        await gateway.until_quiet()


async def test_credentials_do_not_wait_for_strangers(gateway: Gateway) -> None:
    go_on = asyncio.Event()
    async with upstream(
        slowly(go_on, lambda message: reply(FRESH, body=message.value("authorization") or b"-"))
    ) as app:
        await gateway.serve(cached(app.port))
        asked = [PLAIN, get("/", "Authorization: a"), get("/", "Cookie: a=1")]

        answers = await at_once(gateway, app, go_on, asked, asked=3)
    assert [answer.body for answer in answers] == [b"-", b"a", b"-"]


async def test_a_dead_upstream_fails_those_who_wait_as_well(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        conversation.reset()

    async with upstream(script) as app:
        await gateway.serve(cached(app.port, {"retry": {"attempts": 1}}))
        answers = await asyncio.gather(*(ask(gateway.address, PLAIN) for _ in range(10)))
    assert {answer.error for answer in answers} == {"upstream-reset"}
