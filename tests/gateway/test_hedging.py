"""Requests that are asked twice because the first answer takes long: who is heard, and what becomes of the other."""

import asyncio
import time
from typing import Any

import pytest
from toska_tests.gateways import Gateway, cluster, route
from toska_tests.ports import free_port
from toska_tests.raw_http import (
    OK,
    Conversation,
    Script,
    Upstream,
    ask,
    connect,
    get,
    request,
    response,
    silent,
    upstream,
)
from toska_tests.waiting import unless_late, wait_until

BUSY = response(503, body=b"busy")


def document(
    *ports: int, hedge: dict[str, Any] | None = None, app: dict[str, Any] | None = None, **retry: Any
) -> dict[str, Any]:
    """Everything to one cluster, in turn, with a rival after 50 ms."""
    policies = {
        "hedge": hedge or {"after": "50ms"},
        "retry": {"attempts": 1, "budget": 1, "budget_floor": 1000, **retry},
    }
    members = cluster(*ports, balancer="round_robin", outlier={"consecutive_failures": 1000}, **(app or {}))
    return {"clusters": {"app": members}, "routes": [route("all", policies=policies)]}


def slow(seconds: float, answer: bytes = OK) -> Script:
    """Answers after a while."""

    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await asyncio.sleep(seconds)
            await conversation.send(answer)

    return script


async def until_closed(app: Upstream, count: int = 1) -> None:
    """Wait until so many connections of an upstream have been closed by the gateway."""
    await wait_until(lambda: sum(one.closed for one in app.conversations) >= count, what="connections to be closed")


async def test_a_rival_answers_for_an_endpoint_that_does_not_and_the_loser_is_cancelled(gateway: Gateway) -> None:
    async with upstream(silent) as dead, upstream() as well:
        await gateway.serve(document(dead.port, well.port))
        hedges = await gateway.metric("hedges_total")
        begun = time.monotonic()
        assert [(await ask(gateway.address, get())).status for _ in range(4)] == [200] * 4
        assert time.monotonic() - begun < 20
        assert await gateway.metric("hedges_total") - hedges == len(dead.requests) >= 1
        await until_closed(dead, len(dead.requests))
        assert await gateway.active() == 0
        assert await gateway.metric("endpoint_failures_total", reason="abandoned") >= 1


async def test_who_answers_in_time_has_no_rival(gateway: Gateway) -> None:
    async with upstream(slow(0.05)) as one, upstream(slow(0.05)) as other:
        await gateway.serve(document(one.port, other.port, hedge={"after": "400ms"}))

        async def alone() -> None:
            await gateway.until_quiet()
            asked, hedges = len(one.requests) + len(other.requests), await gateway.metric("hedges_total")
            assert (await ask(gateway.address, get())).status == 200
            assert len(one.requests) + len(other.requests) == asked + 1
            assert await gateway.metric("hedges_total") == hedges

        for _ in range(10):  # for longer than that in all
            await unless_late(alone, limit_s=0.4)


async def test_the_first_attempt_may_still_win_and_its_rival_is_cancelled(gateway: Gateway) -> None:
    async with upstream(slow(0.15, response(200, body=b"first"))) as one, upstream(silent) as other:
        await gateway.serve(document(one.port, other.port))
        bodies = {(await ask(gateway.address, get())).body for _ in range(2)}
        assert bodies == {b"first"}
        await until_closed(other, len(other.requests))
        assert await gateway.active() == 0


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_what_may_not_be_done_twice_is_not(gateway: Gateway, method: str) -> None:
    async with upstream(slow(0.2)) as one, upstream(slow(0.2)) as other:
        await gateway.serve(document(one.port, other.port))
        assert (await ask(gateway.address, request(method, body=b"x"))).status == 200
        assert len(one.requests) + len(other.requests) == 1


async def test_a_rival_is_sent_the_whole_body(gateway: Gateway) -> None:
    async with upstream(silent) as one, upstream() as other:
        await gateway.serve(document(one.port, other.port))
        for _ in range(2):
            assert (await ask(gateway.address, request("PUT", body=b"hello"))).status == 200
        assert [message.body for message in other.requests] == [b"hello"] * 2


async def test_a_rival_whose_response_is_not_wanted_leaves_the_first_to_answer(gateway: Gateway) -> None:
    async with upstream(slow(0.25)) as one, upstream(BUSY) as other:
        await gateway.serve(
            document(one.port, other.port, attempts=2, retry_on=["503"], backoff={"base": "0s", "max": "0s"})
        )
        async with asyncio.timeout(20):
            for _ in range(2):
                assert (await ask(gateway.address, get())).body == b"ok"


async def test_when_the_first_attempt_fails_its_rival_goes_on(gateway: Gateway) -> None:
    resets = 0

    async def resetting(conversation: Conversation) -> None:
        nonlocal resets
        await conversation.request()
        await wait_until(lambda: len(other.requests) == len(one.requests), what="its rival")
        conversation.reset()
        resets += 1

    async def after_it(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await wait_until(lambda: resets == len(other.requests), what="the other's failure")
            await asyncio.sleep(0.05)  # which the gateway sees before this
            await conversation.send(OK)

    async with upstream(resetting) as one, upstream(after_it) as other:
        await gateway.serve(document(one.port, other.port))
        assert [(await ask(gateway.address, get())).status for _ in range(4)] == [200] * 4
        assert await gateway.active() == 0


async def test_when_all_attempts_fail_the_last_failure_is_told(gateway: Gateway) -> None:
    async def resetting(conversation: Conversation) -> None:
        await conversation.request()
        await wait_until(lambda: len(one.requests) == len(other.requests), what="its rival")
        conversation.reset()

    async with upstream(resetting) as one, upstream(resetting) as other:
        await gateway.serve(document(one.port, other.port))
        answer = await ask(gateway.address, get())
        assert (answer.status, answer.error) == (502, "upstream-reset")
        assert len(one.requests) == len(other.requests) == 1
        assert await gateway.active() == 0


async def test_a_rival_that_cannot_be_connected_to_does_no_harm(gateway: Gateway) -> None:
    async with upstream(slow(0.2)) as one:
        await gateway.serve(document(one.port, free_port(), retry_on=["connect"], attempts=2))
        assert [(await ask(gateway.address, get())).status for _ in range(4)] == [200] * 4


async def test_several_rivals_go_to_several_endpoints(gateway: Gateway) -> None:
    async with upstream(silent) as one, upstream(silent) as two, upstream() as three:
        await gateway.serve(document(one.port, two.port, three.port, hedge={"after": "40ms", "attempts": 2}))
        for _ in range(6):
            assert (await ask(gateway.address, get())).status == 200
        await until_closed(one, len(one.requests))
        await until_closed(two, len(two.requests))
        assert await gateway.active() == 0


async def test_the_only_endpoint_has_no_rival(gateway: Gateway) -> None:
    async with upstream(slow(0.15)) as one:
        await gateway.serve(document(one.port))
        assert (await ask(gateway.address, get())).status == 200
        assert len(one.requests) == 1


async def test_hedges_count_against_the_budget(gateway: Gateway) -> None:
    async with upstream(slow(0.2)) as one, upstream(slow(0.2)) as other:
        await gateway.serve({})  # a cluster of its own, of which nothing has been spent yet
        await gateway.serve(document(one.port, other.port, budget=0.1, budget_floor=0))
        async with asyncio.timeout(20):
            answers = await asyncio.gather(*(ask(gateway.address, get()) for _ in range(100)))
        assert {answer.status for answer in answers} == {200}
        assert 100 < len(one.requests) + len(other.requests) <= 112


async def test_a_cancelled_attempt_is_no_failure_of_endpoint_or_cluster(gateway: Gateway) -> None:
    app = {"breaker": {"min_requests": 2, "failure_ratio": 0.1, "cooldown": "60s"}}
    async with upstream(silent) as dead, upstream() as well:
        wanted = document(dead.port, well.port, app=app)
        wanted["clusters"]["app"]["outlier"] = {"consecutive_5xx": 1, "base_ejection": "60s", "max_ejection": "60s"}
        await gateway.serve(wanted)
        for _ in range(8):
            assert (await ask(gateway.address, get())).status == 200
        assert len(dead.requests) >= 3
        assert await gateway.metric("endpoint_ejected") == 0


async def test_a_client_that_leaves_ends_the_whole_race(gateway: Gateway) -> None:
    async with upstream(silent) as one, upstream(silent) as other:
        await gateway.serve(document(one.port, other.port))
        client = await connect(gateway.address)
        await client.send(get())
        await wait_until(lambda: len(one.requests) == len(other.requests) == 1)
        client.reset()
        await client.aclose()
        await gateway.until_quiet()
        await until_closed(one)
        await until_closed(other)


async def test_hedging_cuts_the_tail_of_a_cluster_with_one_slow_endpoint(gateway: Gateway) -> None:
    async def percentile(share: float) -> float:
        async def took() -> float:
            begun = time.monotonic()
            assert (await ask(gateway.address, get())).status == 200
            return time.monotonic() - begun

        times: list[float] = []
        for _ in range(10):
            times += await asyncio.gather(*(took() for _ in range(12)))
        return sorted(times)[int(share * len(times))]

    async with upstream(slow(0.4)) as lame, upstream() as one, upstream() as two:
        plain = document(lame.port, one.port, two.port)
        del plain["routes"][0]["policies"]["hedge"]
        await gateway.serve(plain)
        assert await percentile(0.9) > 0.39
        await gateway.serve(document(lame.port, one.port, two.port))

        async def cut() -> bool:
            return await percentile(0.95) < 0.3

        await wait_until(cut, what="a machine that leaves the others' answers in time")
