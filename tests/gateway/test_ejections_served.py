"""Endpoints that answer badly: when they are left out, for how long, and how many at most."""

import time
from typing import Any

import pytest
from toska_common.contracts.routing import Cluster
from toska_tests.gateways import Gateway, cluster, route
from toska_tests.raw_http import OK, Conversation, Script, ask, connect, get, resetting, response, silent, upstream
from toska_tests.waiting import in_time, unless_late, wait_until

OUTLIER: dict[str, Any] = {"consecutive_5xx": 3, "base_ejection": "400ms", "max_ejection": "2s"}
ONCE = {"retry": {"attempts": 1}}


def document(*ports: int, policies: dict[str, Any] | None = None, **outlier: Any) -> dict[str, Any]:
    """Everything to one cluster, in turn; its endpoints are ejected for what they answer."""
    members = cluster(*ports, balancer="round_robin", outlier={**OUTLIER, **outlier})
    return {"clusters": {"app": members}, "routes": [route("all", policies=policies or ONCE)]}


@pytest.mark.parametrize("script", [response(500), response(503), resetting, silent])
async def test_an_endpoint_that_answers_badly_is_left_out(gateway: Gateway, script: Script | bytes) -> None:
    async with upstream(script) as bad, upstream() as good:
        timeout = {"retry": {"attempts": 1, "per_try_timeout": "200ms" if script is silent else "20s"}}

        async def left_out() -> None:
            bad.requests.clear()
            await gateway.serve({})
            wanted = document(bad.port, good.port, policies=timeout, base_ejection="60s", max_ejection="60s")
            await gateway.serve(wanted)
            statuses = [(await ask(gateway.address, get())).status for _ in range(20)]
            assert len(bad.requests) == 3
            assert statuses.count(200) == 17
            assert await gateway.metric("endpoint_ejected", endpoint=f"127.0.0.1:{bad.port}") == 1

        # Three tries take their whole time, and none of the other endpoint does.
        await unless_late(left_out, limit_s=4 * 0.2 if script is silent else 20)


async def test_it_is_back_after_a_while_and_stays_away_longer_if_it_has_not_changed(gateway: Gateway) -> None:
    answer = response(500)

    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await conversation.send(answer)

    async with upstream(script) as bad, upstream() as good:

        async def again(count: int) -> float:
            """Ask until the endpoint has had so many requests; tells when the last was sent."""
            sent_at = 0.0

            async def reached() -> bool:
                nonlocal sent_at
                sent_at = time.monotonic()
                await ask(gateway.address, get())
                return len(bad.requests) >= count

            await wait_until(reached, what="the endpoint has requests again")
            return sent_at

        async def longer_and_longer() -> None:
            bad.requests.clear()
            await gateway.serve({})
            await gateway.serve(document(bad.port, good.port))
            for served, away_s in ((3, 0.4), (6, 0.8)):
                left_out_at = await again(served)
                await again(served + 1)
                assert time.monotonic() - left_out_at > away_s - 0.1

        await in_time(longer_and_longer, limit_s=2.2)
        answer = OK
        await again(20)


async def test_only_gateway_errors_count_where_only_they_are_named(gateway: Gateway) -> None:
    async with upstream(response(500)) as ill, upstream() as good:
        await gateway.serve({})
        await gateway.serve(document(ill.port, good.port, consecutive_5xx=0, consecutive_gateway_errors=2))
        for _ in range(12):
            await ask(gateway.address, get())
        assert len(ill.requests) == 6


async def test_no_more_are_left_out_than_the_percentage_allows(gateway: Gateway) -> None:
    async with upstream(response(500)) as one, upstream(response(500)) as two, upstream() as good:
        await gateway.serve({})
        wanted = document(
            one.port, two.port, good.port, max_ejected_percent=34, base_ejection="60s", max_ejection="60s"
        )
        await gateway.serve(wanted)
        for _ in range(24):
            await ask(gateway.address, get())
        assert await gateway.metric("endpoint_ejected") == 1


async def test_withheld_responses_count_too(gateway: Gateway) -> None:
    async with upstream(response(503)) as bad, upstream() as good:
        await gateway.serve({})
        retry = {"retry": {"retry_on": ["503"], "backoff": {"base": "0s", "max": "0s"}, "budget_floor": 1000}}
        await gateway.serve(document(bad.port, good.port, policies=retry, base_ejection="60s", max_ejection="60s"))
        for _ in range(20):
            assert (await ask(gateway.address, get())).status == 200
        assert len(bad.requests) == 3


async def test_a_client_that_leaves_says_nothing_against_the_endpoint(gateway: Gateway) -> None:
    async with upstream(silent) as slow, upstream() as good:
        await gateway.serve({})
        await gateway.serve(document(slow.port, good.port, consecutive_5xx=1))
        for _ in range(6):
            client = await connect(gateway.address)
            seen = len(slow.requests) + len(good.requests)
            await client.send(get())
            await wait_until(lambda seen=seen: len(slow.requests) + len(good.requests) > seen)
            client.reset()
            await client.aclose()
        await gateway.until_quiet()
        assert len(slow.requests) == 3
        assert await gateway.metric("endpoint_ejected") == 0


def test_an_ejection_is_at_most_as_long_as_the_longest() -> None:
    with pytest.raises(ValueError, match="at most max_ejection"):
        Cluster.model_validate({"service": "x", "outlier": {"base_ejection": "90s"}})
