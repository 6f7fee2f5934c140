"""Rate limits that several gateways share, and several limits on one route, over real connections and a real Redis."""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import anyio
import pytest
from toska_tests.gateways import Gateway, running_gateway, single
from toska_tests.raw_http import Upstream, ask, connected, get, upstream
from toska_tests.redis_servers import RedisServer
from toska_tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("running_redis")

MESH: dict[str, Any] = {"requests": 100, "per": "1h", "key": "route", "scope": "mesh"}


@contextlib.asynccontextmanager
async def two_gateways(redis: RedisServer, app: Upstream, limit: Any) -> AsyncGenerator[list[Gateway]]:
    """Two gateways that share a Redis; one of them has two workers."""
    async with (
        running_gateway(workers=2, cache_url=redis.url) as one,
        running_gateway(cache_url=redis.url) as other,
    ):
        for gateway in (one, other):
            await gateway.serve(single(app.port, policies={"rate_limit": limit}))
        yield [one, other]


async def hammer(gateway: Gateway, requests: int) -> Counter[int]:
    """The statuses of so many requests on one connection."""
    async with connected(gateway.address) as client:
        return Counter([(await client.ask(get())).status for _ in range(requests)])


async def is_shared(gateway: Gateway) -> bool:
    """Whether the next request is counted in Redis."""
    answer = await ask(gateway.address, get())
    return b"toska-scope" not in (answer.value("ratelimit-policy") or b"")


async def counted_together(
    redis: RedisServer, app: Upstream, gateways: Sequence[Gateway], attempt: Callable[[], Awaitable[None]]
) -> None:
    """Do `attempt` with nothing used yet, anew while a gateway has counted alone: an answer of Redis came late."""

    async def alone() -> float:
        return sum([await gateway.metric("rate_limits_alone_total") for gateway in gateways])

    async def together() -> bool:
        for gateway in gateways:
            await wait_until(lambda: is_shared(gateway), what="it is shared")  # noqa: B023
        await anyio.sleep(0.05)  # what was taken for a request that was refused has been given back
        redis.command("FLUSHALL")
        app.requests.clear()
        before = await alone()
        try:
            await attempt()
        except AssertionError:
            if await alone() == before:
                raise
            return False
        return await alone() == before

    await wait_until(together, what="answers of Redis that are in time")


async def test_two_gateways_admit_exactly_what_one_would(redis: RedisServer) -> None:
    async with upstream() as app, two_gateways(redis, app, MESH) as gateways:

        async def limited() -> float:
            return sum([await gateway.metric("rate_limited_total") for gateway in gateways])

        async def admit() -> None:
            before = await limited()
            counts = await asyncio.gather(*(hammer(gateway, 40) for gateway in gateways * 4))
            assert sum(counts, Counter[int]()) == {200: 100, 429: 220}
            assert await limited() == before + 220
            assert len(app.requests) == 100

        await counted_together(redis, app, gateways, admit)


async def test_clients_are_told_what_the_mesh_has_left(redis: RedisServer) -> None:
    limit = {**MESH, "requests": 3}
    async with upstream() as app, two_gateways(redis, app, limit) as gateways:

        async def tell() -> None:
            answers = [await ask(gateways[number % 2].address, get()) for number in range(4)]
            assert [answer.status for answer in answers] == [200, 200, 200, 429]
            # When all of it is there again, less the seconds that the test has taken.
            told = ("2;t=1(200|1[4-9].)", "1;t=2(400|3[4-9].)", "0;t=3(600|5[4-9].)")
            for answer, left in zip(answers, told, strict=False):
                assert re.fullmatch(f'"all";r={left}', (answer.value("ratelimit") or b"").decode())
            assert {answer.value("ratelimit-policy") for answer in answers} == {b'"all";q=3;w=3600'}
            assert answers[3].error == "rate-limited"
            assert 1140 <= int(answers[3].value("retry-after") or b"0") <= 1200

        await counted_together(redis, app, gateways, tell)


async def test_pipelined_requests_are_answered_in_their_order(redis: RedisServer) -> None:
    async with (
        upstream() as app,
        two_gateways(redis, app, {**MESH, "requests": 3}) as gateways,
        connected(gateways[0].address) as client,
    ):

        async def pipeline() -> None:
            await client.send(get("/1") + get("/2") + get("/3") + get("/4"))
            assert [(await client.response()).status for _ in range(4)] == [200, 200, 200, 429]
            assert [message.target for message in app.requests] == ["/1", "/2", "/3"]

        await counted_together(redis, app, gateways, pipeline)


async def test_a_body_waits_with_its_request(redis: RedisServer) -> None:
    body = b"x" * 300_000
    message = b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with upstream() as app, two_gateways(redis, app, MESH) as gateways:
        for _ in range(3):
            assert (await ask(gateways[0].address, message + body)).status == 200
    assert [request.body for request in app.requests] == [body] * 3


async def test_no_request_fails_or_waits_while_redis_is_killed_and_started_under_load(redis: RedisServer) -> None:
    limit = {**MESH, "requests": 10_000_000}
    async with upstream() as app, two_gateways(redis, app, limit) as gateways:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        statuses, slowest = Counter[int](), 0.0

        async def load(gateway: Gateway) -> None:
            nonlocal slowest
            async with connected(gateway.address) as client:
                while not stop.is_set():
                    asked = loop.time()
                    statuses[(await client.ask(get())).status] += 1
                    slowest = max(slowest, loop.time() - asked)

        async with asyncio.TaskGroup() as group:
            for gateway in gateways * 4:
                group.create_task(load(gateway))
            for _ in range(3):
                before = statuses.total()
                await wait_until(lambda: statuses.total() > before + 200, what="requests while Redis is there")  # noqa: B023
                redis.kill()
                before = statuses.total()
                await wait_until(lambda: statuses.total() > before + 200, what="requests while it is away")  # noqa: B023
                await redis.start()
                for gateway in gateways * 2:
                    await wait_until(lambda: is_shared(gateway), what="it is shared again by itself")  # noqa: B023
            stop.set()
        assert set(statuses) == {200}
        assert slowest < 6  # Redis is given up after one; the rest is a busy machine's
        for gateway in gateways:
            assert await gateway.metric("rate_limits_alone_total") > 0
            await gateway.until_quiet()


async def test_while_redis_is_away_the_machine_s_workers_count_together_and_say_so(redis: RedisServer) -> None:
    async with upstream() as app, running_gateway(workers=2, cache_url=redis.url) as gateway:
        await gateway.serve(single(app.port, policies={"rate_limit": {**MESH, "requests": 20}}))
        redis.kill()
        counts = await asyncio.gather(*(hammer(gateway, 10) for _ in range(4)))
        assert sum(counts, Counter[int]()) == {200: 20, 429: 20}
        refused = await ask(gateway.address, get())
        assert refused.value("ratelimit-policy") == b'"all";q=20;w=3600;toska-scope=machine'
        assert await gateway.metric("rate_limits_alone_total") == 41


async def test_the_log_says_once_that_redis_is_away_and_once_that_it_is_back(
    redis: RedisServer, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with upstream() as app, running_gateway(cache_url=redis.url) as gateway:
        await gateway.serve(single(app.port, policies={"rate_limit": {**MESH, "requests": 1_000_000}}))
        redis.kill()
        assert await hammer(gateway, 20) == {200: 20}
        await redis.start()
        await wait_until(lambda: is_shared(gateway), what="it is shared again")
    printed = capsys.readouterr()
    log = printed.out + printed.err + caplog.text
    # Once, and not at each request; a machine that stood still makes Redis late, which is told, too.
    assert 1 <= log.count("rate_limits_not_shared") < 5
    assert log.count("rate_limits_shared_again") == log.count("rate_limits_not_shared")
    assert f"127.0.0.1:{redis.port}" in log
    assert "hunter2" not in log


async def test_a_client_that_leaves_while_redis_hangs_leaves_nothing_behind(redis: RedisServer) -> None:
    async with upstream() as app, running_gateway(cache_url=redis.url) as gateway:
        await gateway.serve(single(app.port, policies={"rate_limit": MESH}))
        redis.freeze()
        async with connected(gateway.address) as client:
            await client.send(get())
            client.reset()
        await gateway.until_quiet()
        redis.thaw()
        assert (await ask(gateway.address, get())).status == 200
    assert len(app.requests) == 1


async def test_without_a_redis_the_mesh_is_this_machine(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, policies={"rate_limit": {**MESH, "requests": 2}}))
        answers = [await ask(gateway.address, get()) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[0].value("ratelimit-policy") == b'"all";q=2;w=3600'


@pytest.mark.parametrize("scope", ["machine", "worker", "mesh"])
async def test_of_several_limits_all_have_to_allow_and_the_tightest_is_told(redis: RedisServer, scope: str) -> None:
    limits = [
        {"requests": 4, "per": "1h", "key": "route", "scope": scope},
        {"requests": 2, "per": "2h", "key": "header:x-user", "scope": scope},
    ]
    async with upstream() as app, running_gateway(cache_url=redis.url) as gateway:
        await gateway.serve(single(app.port, policies={"rate_limit": limits}))

        async def limited() -> None:
            answers = [await ask(gateway.address, get("/", f"x-user: {user}")) for user in "aaabbbc"]
            # What b's third and a's third request would have taken of everybody's went back.
            assert [answer.status for answer in answers] == [200, 200, 429, 200, 200, 429, 429]
            policies = b'"all";q=4;w=3600, "all-2";q=2;w=7200'
            assert {answer.value("ratelimit-policy") for answer in answers} == {policies}
            told = [(answer.value("ratelimit") or b"").split(b";")[:2] for answer in answers]
            assert told[0] == [b'"all-2"', b"r=1"]
            assert told[2] == [b'"all-2"', b"r=0"]
            assert told[4] == [b'"all"', b"r=0"]
            assert told[6] == [b'"all"', b"r=0"]
            longest = int(answers[5].value("retry-after") or b"0")  # that of the limit that takes longest
            assert 3540 <= longest <= 3600
            assert 840 <= int(answers[6].value("retry-after") or b"0") <= 900

        if scope == "mesh":
            await counted_together(redis, app, [gateway], limited)
        else:
            await limited()


async def test_limits_of_the_mesh_and_of_this_machine_go_together(redis: RedisServer) -> None:
    limits = [{**MESH, "requests": 3}, {**MESH, "requests": 2, "scope": "machine"}]
    async with upstream() as app:

        async def together() -> bool:
            app.requests.clear()
            redis.command("FLUSHALL")
            async with two_gateways(redis, app, limits) as gateways:
                counts = [await hammer(gateway, 4) for gateway in gateways]
                alone = sum([await gateway.metric("rate_limits_alone_total") for gateway in gateways])
            by_machine, by_mesh = {200: 2, 429: 2}, {200: 1, 429: 3}
            assert alone or (counts, len(app.requests)) == ([by_machine, by_mesh], 3)
            return not alone

        await wait_until(together, what="answers of Redis that are in time")
