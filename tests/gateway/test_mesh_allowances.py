"""Allowances in Redis: GCRA against its definition, shared by many, and never waited for longer than said."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from toska_gateway.worker import mesh_allowances
from toska_gateway.worker.mesh_allowances import WAIT_S, MeshAllowances, as_text
from toska_tests.redis_servers import RedisServer
from toska_tests.waiting import unless_late, wait_until

pytestmark = pytest.mark.usefixtures("running_redis")

HOUR = 3600.0


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """More of it than workers have: on a busy machine answers come late, which only one of these tests is about."""
    monkeypatch.setattr(mesh_allowances, "WAIT_S", 20.0)


Told = list[tuple[str, str, dict[str, Any]]]


def _teller(told: Told) -> Callable[[str, str, dict[str, Any]], None]:
    def tell(level: str, event: str, fields: dict[str, Any]) -> None:
        told.append((level, event, fields))

    return tell


@contextlib.asynccontextmanager
async def linked(url: str, told: Told | None = None, *, shared: bool = True) -> AsyncGenerator[MeshAllowances]:
    """One worker's link."""
    lines: Told = [] if told is None else told
    link = MeshAllowances(asyncio.get_running_loop(), url, _teller(lines))
    link.start(lambda: None)
    try:
        if shared:
            await wait_until(lambda: link.shared, what="Redis is connected")
        yield link
    finally:
        await link.stop()


def asking(link: MeshAllowances, key: int, interval_s: float, burst_s: float) -> "asyncio.Future[float | None]":
    """The answer to come."""
    future: asyncio.Future[float | None] = asyncio.get_running_loop().create_future()
    link.ask(key, as_text(interval_s), as_text(burst_s), future.set_result)
    return future


async def ask(link: MeshAllowances, key: int, interval_s: float, burst_s: float) -> float:
    """The slack, which somebody has to know."""
    async with asyncio.timeout(20):
        slack = await asking(link, key, interval_s, burst_s)
    assert slack is not None
    return slack


async def test_a_burst_is_served_and_the_next_has_to_wait(redis: RedisServer) -> None:
    async with linked(redis.url) as link:
        slacks = [await ask(link, 1, HOUR, 5 * HOUR) for _ in range(6)]
        assert [round(slack / HOUR, 2) for slack in slacks] == [4.0, 3.0, 2.0, 1.0, 0.0, -1.0]
        assert await ask(link, 2, HOUR, 5 * HOUR) == pytest.approx(4 * HOUR)


async def test_an_allowance_refills_evenly_by_the_clock_of_redis(redis: RedisServer) -> None:
    async with linked(redis.url) as link:
        loop, served = asyncio.get_running_loop(), 0
        started = loop.time()
        while served < 8:
            served += await ask(link, 1, 0.05, 0.05) >= 0
        assert 7 * 0.05 - 0.002 <= loop.time() - started < 20


async def test_many_gateways_take_exactly_what_there_is(redis: RedisServer) -> None:
    async with contextlib.AsyncExitStack() as stack:
        links = [await stack.enter_async_context(linked(redis.url)) for _ in range(4)]
        slacks: list[float | None] = []
        async with asyncio.timeout(20):
            for _ in range(50):  # forty at a time, which on a busy machine too are answered before their patience ends
                answers = [asking(link, 1, HOUR, 1000 * HOUR) for _ in range(10) for link in links]
                slacks += await asyncio.gather(*answers)
        assert sum(slack is not None and slack >= 0 for slack in slacks) == 1000
        left = sorted(round(slack / HOUR) for slack in slacks if slack is not None and slack >= 0)
        assert left == list(range(1000))


async def test_what_is_given_back_can_be_taken_again(redis: RedisServer) -> None:
    async with linked(redis.url) as link:
        assert await ask(link, 1, HOUR, 2 * HOUR) == pytest.approx(HOUR)
        link.give_back(1, as_text(HOUR), as_text(2 * HOUR))
        assert await ask(link, 1, HOUR, 2 * HOUR) == pytest.approx(HOUR)
        link.give_back(1, as_text(HOUR), as_text(2 * HOUR))
        link.give_back(1, as_text(HOUR), as_text(2 * HOUR))
        assert await ask(link, 1, HOUR, 2 * HOUR) == pytest.approx(HOUR)  # more than there was is never there


async def test_redis_holds_only_the_keys_that_are_in_use(redis: RedisServer) -> None:
    async with linked(redis.url) as link:
        await asyncio.gather(*(asking(link, key, 0.001, 0.01) for key in range(200)))
        await wait_until(lambda: redis.command("DBSIZE") == b":0\r\n", what="every key has expired")


async def test_a_clock_that_was_set_back_locks_nobody_out(redis: RedisServer) -> None:
    async with linked(redis.url) as link:
        redis.command("SET", "toska:limit:0000000000000001", "9e15", "PX", "3600000")
        assert await ask(link, 1, 0.05, 0.1) == pytest.approx(-0.05, abs=0.001)

        async def served() -> bool:
            return await ask(link, 1, 0.05, 0.1) >= 0

        await wait_until(served, within=20, what="the wait is that of a burst, and not until the old time")


async def test_scripts_that_redis_has_forgotten_are_told_again(redis: RedisServer) -> None:
    async with linked(redis.url) as link:
        assert redis.command("SCRIPT", "FLUSH") == b"+OK\r\n"
        assert await ask(link, 1, HOUR, HOUR) == pytest.approx(0.0)


async def test_whoever_waits_when_redis_dies_counts_alone_and_it_is_shared_again_by_itself(redis: RedisServer) -> None:
    told: Told = []
    async with linked(redis.url, told) as link:
        redis.freeze()
        waiting = [asking(link, key, HOUR, HOUR) for key in range(3)]
        await asyncio.sleep(0)  # the question is on its way
        redis.kill()
        async with asyncio.timeout(20):
            assert await asyncio.gather(*waiting) == [None, None, None]
        assert not link.shared
        await redis.start()
        await wait_until(lambda: link.shared, what="it is shared again")
        assert await ask(link, 1, HOUR, HOUR) >= 0
    assert [event for _, event, _ in told] == ["rate_limits_not_shared", "rate_limits_shared_again"]
    assert told[0][0] == "warning"
    assert told[0][2]["store"] == f"127.0.0.1:{redis.port}"
    assert "hunter2" not in repr(told)


async def test_nobody_waits_longer_than_said_for_a_redis_that_hangs(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_allowances, "WAIT_S", WAIT_S)

    async def given_up() -> None:
        told: Told = []
        async with linked(redis.url, told) as link:
            redis.freeze()
            try:
                first = asking(link, 1, HOUR, HOUR)
                await asyncio.sleep(WAIT_S / 2)
                second = asking(link, 1, HOUR, HOUR)  # queued behind one that is under way
                async with asyncio.timeout(WAIT_S + 0.5):  # and not the second after which a connection is given up
                    assert (await first, await second) == (None, None)
                assert not link.shared
            finally:
                redis.thaw()
            await wait_until(lambda: link.shared, what="the late answer shows that it is there")
        assert [event for _, event, _ in told] == ["rate_limits_not_shared", "rate_limits_shared_again"]

    await unless_late(given_up, limit_s=WAIT_S + 0.5)


@contextlib.asynccontextmanager
async def stranger(*, closes: bool) -> AsyncGenerator[tuple[str, list[None]]]:
    """A server that is no Redis: it says nothing, or closes at once. With its URL and one item for each connection."""
    accepted: list[None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(None)
        if not closes:
            while await reader.read(1024):
                pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://:hunter2@127.0.0.1:{server.sockets[0].getsockname()[1]}/0", accepted


async def test_a_server_that_says_nothing_is_given_up_and_connected_to_anew() -> None:
    async with stranger(closes=False) as (url, accepted), linked(url, shared=False):
        await wait_until(lambda: len(accepted) >= 2, what="another connection")


async def test_a_server_that_is_no_redis_is_named_once_however_often_it_is_tried() -> None:
    told: Told = []
    async with stranger(closes=True) as (url, accepted), linked(url, told, shared=False) as link:
        await wait_until(lambda: len(accepted) >= 3, what="some attempts")
        assert not link.shared
    assert [event for _, event, _ in told] == ["rate_limits_not_shared"]
    assert "hunter2" not in repr(told)


@pytest.mark.parametrize(("wrong", "reason"), [("password", "password"), ("replica", "read only")])
async def test_a_redis_of_no_use_is_named_with_the_reason_and_without_secrets(
    redis: RedisServer, wrong: str, reason: str
) -> None:
    if wrong == "replica":
        redis.command("REPLICAOF", "127.0.0.1", "9")
    url = redis.url.replace("hunter2", "hunter3") if wrong == "password" else redis.url
    told: Told = []
    async with linked(url, told, shared=False) as link:
        await wait_until(lambda: bool(told), what="the first attempt has come to its end")
        assert not link.shared
    assert [event for _, event, _ in told] == ["rate_limits_not_shared"]
    assert reason in told[0][2]["reason"]
    assert "hunter" not in repr(told)


async def test_a_question_that_is_cancelled_is_answered_to_nobody(redis: RedisServer) -> None:
    async with linked(redis.url) as link:
        heard: list[float | None] = []
        link.ask(1, as_text(HOUR), as_text(2 * HOUR), heard.append).cancel()
        assert await ask(link, 1, HOUR, 2 * HOUR) == pytest.approx(0.0)
        assert heard == []


async def test_what_one_stumbles_over_does_not_keep_the_others_from_their_answers(redis: RedisServer) -> None:
    async with linked(redis.url) as link:
        loop, complaints = asyncio.get_running_loop(), list[str]()
        before = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, context: complaints.append(repr(context.get("exception"))))
        try:

            def stumble(_: float | None) -> None:
                raise RuntimeError("mine")

            link.ask(1, as_text(HOUR), as_text(HOUR), stumble)
            assert await ask(link, 2, HOUR, HOUR) == pytest.approx(0.0)
        finally:
            loop.set_exception_handler(before)
        assert complaints == ["RuntimeError('mine')"]
        assert link.shared
