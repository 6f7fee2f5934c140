"""Faults on purpose: how many requests are hit, what they get, and that nothing is left of those that leave."""

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest
from toska_common.clock import now_utc
from toska_tests.gateways import Gateway, cluster, plane_here, route, single
from toska_tests.raw_http import ask, chunks, connected, get, request, response, upstream
from toska_tests.waiting import wait_until


async def test_an_abort_answers_for_the_upstream_and_says_so(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, policies={"fault": {"abort": {"status": 418}}}))
        before = await gateway.metric("faults_total")
        answer = await ask(gateway.address, get())
        assert (answer.status, answer.error, answer.value("x-toska-fault")) == (418, "fault-injected", b"abort")
        assert await gateway.metric("faults_total") == before + 1
    assert app.requests == []


async def test_an_abort_can_break_the_connection_off(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, policies={"fault": {"abort": {"reset": True}}}))
        async with connected(gateway.address) as client:
            await client.send(get())
            with pytest.raises(ConnectionResetError):
                await client.some()
        await gateway.until_quiet()
    assert app.requests == []


async def test_a_delayed_request_is_served_late_and_says_so(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, policies={"fault": {"delay": {"fixed": "200ms", "jitter": "50ms"}}}))
        loop = asyncio.get_running_loop()
        started = loop.time()
        answer = await ask(gateway.address, get())
        took = loop.time() - started
    assert 0.19 <= took < 20  # (a timer counts from the beginning of its turn of the loop)
    assert (answer.status, answer.body, answer.value("x-toska-fault")) == (200, b"ok", b"delay")


async def test_a_delay_and_then_an_abort_are_both_told(gateway: Gateway) -> None:
    async with upstream() as app:
        fault = {"delay": {"fixed": "10ms"}, "abort": {"status": 503}}
        await gateway.serve(single(app.port, policies={"fault": fault}))
        answer = await ask(gateway.address, get())
    assert (answer.status, answer.values("x-toska-fault")) == (503, [b"delay", b"abort"])


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_that_comes_during_the_delay_is_held_and_sent_after_it(gateway: Gateway, chunked: bool) -> None:
    body = bytes(range(256)) * 800
    message = request("POST", body=body)
    if chunked:
        message = request("POST", "/", "Transfer-Encoding: chunked") + chunks([body[:1000], body[1000:]])
    async with upstream() as app:
        await gateway.serve(single(app.port, policies={"fault": {"delay": {"fixed": "100ms"}}}))
        async with connected(gateway.address) as client:
            assert (await client.ask(message)).status == 200
            assert (await client.ask(get("/next"))).status == 200
    assert [sent.body for sent in app.requests] == [body, b""]


async def test_only_requests_with_the_header_are_hit(gateway: Gateway) -> None:
    async with upstream() as app:
        fault = {"abort": {"status": 503}, "headers": {"x-chaos": "on"}}
        await gateway.serve(single(app.port, policies={"fault": fault}))
        asked = [get(), get("/", "X-Chaos: off"), get("/", "X-Chaos: on"), get("/", "X-Chaos: on", "X-Chaos: on")]
        answers = [await ask(gateway.address, one) for one in asked]
    assert [answer.status for answer in answers] == [200, 200, 503, 200]
    assert [answer.value("x-toska-fault") for answer in answers] == [None, None, b"abort", None]


@pytest.mark.parametrize("action", [{"respond": {"body": "hello"}}, {"redirect": {"to": "/b"}}])
async def test_routes_that_answer_themselves_can_fail_too(gateway: Gateway, action: dict[str, Any]) -> None:
    policies = {"fault": {"abort": {"status": 500}}}
    await gateway.serve({"routes": [{"name": "a", "match": {"path": "/a"}, "policies": policies, **action}]})
    assert (await ask(gateway.address, get("/a"))).error == "fault-injected"


async def test_as_many_requests_are_hit_as_the_share_says() -> None:
    fault = {"abort": {"status": 503, "percent": 30}, "delay": {"fixed": "1ms", "percent": 20}}
    async with upstream() as app:
        random.seed(7)
        async with (
            plane_here(single(app.port, policies={"fault": fault})) as (_, address),
            connected(address) as client,
        ):
            answers = [await client.ask(get()) for _ in range(1000)]
    told = [b",".join(answer.values("x-toska-fault")) for answer in answers]
    aborted = sum(answer.status == 503 for answer in answers)
    delayed = sum(b"delay" in one for one in told)
    both = told.count(b"delay,abort")
    # Six standard deviations each; the two are drawn independently.
    assert 213 <= aborted <= 387
    assert 124 <= delayed <= 276
    assert 15 <= both <= 105
    assert all((b"abort" in one) == (answer.status == 503) for one, answer in zip(told, answers, strict=True))


async def test_a_client_that_leaves_during_the_delay_takes_the_timer_along() -> None:
    document = single(1, policies={"fault": {"delay": {"fixed": "4m"}}})
    async with plane_here(document) as (plane, address):
        timers: list[asyncio.TimerHandle] = []
        call_later = plane.loop.call_later

        def watched(delay: float, *args: Any, **more: Any) -> asyncio.TimerHandle:
            handle = call_later(delay, *args, **more)
            if delay > 100:
                timers.append(handle)
            return handle

        plane.loop.call_later = watched  # pyright: ignore[reportAttributeAccessIssue]
        try:
            async with connected(address) as client:
                await client.send(get())
                await wait_until(lambda: len(timers) == 1, what="the delay has begun")
                assert not timers[0].cancelled()
                client.reset()
            await wait_until(lambda: not plane.downstreams, what="the client is gone")
        finally:
            plane.loop.call_later = call_later  # pyright: ignore[reportAttributeAccessIssue]
        assert timers[0].cancelled()
        assert plane.stats.route("all").statuses == {499: 1}


async def test_a_delay_is_no_failure_of_the_cluster_and_holds_no_connection(gateway: Gateway) -> None:
    breaker = {"failure_ratio": 0.1, "min_requests": 1, "window": "10s", "cooldown": "10s", "half_open_requests": 1}
    async with upstream(response(200, body=b"ok")) as app:
        document = single(app.port, policies={"fault": {"abort": {"status": 503}, "headers": {"x-chaos": "on"}}})
        document["clusters"]["app"] = cluster(app.port, breaker=breaker)
        await gateway.serve(document)
        for _ in range(5):
            assert (await ask(gateway.address, get("/", "X-Chaos: on"))).status == 503
        assert (await ask(gateway.address, get())).status == 200


async def test_faults_end_at_their_time_without_anybody_saying_so(gateway: Gateway) -> None:
    until = now_utc().replace(microsecond=0) + timedelta(seconds=2)
    async with upstream() as app:
        fault = {"abort": {"status": 503}, "until": until.isoformat()}
        await gateway.serve(single(app.port, policies={"fault": fault}))
        assert (await ask(gateway.address, get())).status == 503

        async def is_over() -> bool:
            return (await ask(gateway.address, get())).status == 200

        await wait_until(is_over)
        assert now_utc() >= until


async def test_faults_last_no_longer_when_the_clock_on_the_wall_is_put_back() -> None:
    until = now_utc().replace(microsecond=0) + timedelta(hours=1, seconds=2)
    async with upstream() as app:
        document = single(app.port, policies={"fault": {"abort": {"status": 503}, "until": until.isoformat()}})
        async with plane_here(document, ahead_s=3600) as (_, address):
            assert (await ask(address, get())).status == 503

            async def is_over() -> bool:
                return (await ask(address, get())).status == 200

            await wait_until(is_over, within=20, what="the fault ends")


async def test_only_requests_that_go_to_the_cluster_are_hit(gateway: Gateway) -> None:
    async with upstream() as old, upstream() as new:
        to = [{"cluster": "old", "weight": 1}, {"cluster": "new", "weight": 1}]
        policies = {"fault": {"abort": {"status": 503}, "clusters": ["new"]}}
        clusters = {"old": cluster(old.port), "new": cluster(new.port)}
        await gateway.serve({"clusters": clusters, "routes": [route("split", to=to, policies=policies)]})
        answers = [(await ask(gateway.address, get())).status for _ in range(40)]
    assert 0 < answers.count(503) < 40
    assert len(old.requests) == answers.count(200)
    assert new.requests == []
