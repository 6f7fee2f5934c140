"""Responses that gateways share through Redis: a real one, which is killed, stopped in its tracks and lied to."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from toska_tests.gateways import Gateway, running_gateway, single
from toska_tests.raw_http import Conversation, Message, Upstream, ask, get, request, upstream
from toska_tests.redis_servers import RedisServer
from toska_tests.waiting import in_time, wait_until

pytestmark = pytest.mark.usefixtures("running_redis")

PLAIN = get()
FRESH = "cache-control: max-age=60"


class Numbered:
    """Answers with a running number and these fields, also told by the request's own."""

    def __init__(self, *fields: str) -> None:
        self.fields = fields
        self.given = 0

    async def __call__(self, conversation: Conversation) -> None:
        while True:
            message = await conversation.request()
            self.given += 1
            await conversation.send(self._answer(message))

    def _answer(self, message: Message) -> bytes:
        body = str(self.given).encode()
        lines = "".join(f"{field}\r\n" for field in (*self.fields, f"content-length: {len(body)}"))
        return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + body


@contextlib.asynccontextmanager
async def two_gateways(
    redis: RedisServer, app: Upstream, wait: str = "20s", **settings: Any
) -> AsyncGenerator[tuple[Gateway, Gateway]]:
    """Two gateways that share a Redis, and wait for it longer than they would where nothing else runs."""
    async with running_gateway(cache_url=redis.url) as one, running_gateway(cache_url=redis.url) as other:
        for gateway in (one, other):
            document = single(app.port, policies={"cache": settings})
            document["server"]["cache"] = {"shared_wait": wait}
            await gateway.serve(document)
        yield one, other


async def until_shared(redis: RedisServer, entries: int = 1) -> None:
    """Wait until so many URLs are in Redis."""

    def there() -> bool:
        return redis.command("KEYS", "toska:cache:1:*").count(b"toska:cache:1:") - _probes(redis) >= entries

    await wait_until(there, what=f"{entries} URLs in Redis")


def _probes(redis: RedisServer) -> int:
    keys = redis.command("KEYS", "toska:cache:1:*")
    return keys.count(b"toska:cache:1:probe") + keys.count(b"toska:cache:1:purges")


async def body(gateway: Gateway, message: bytes = PLAIN) -> bytes:
    return (await ask(gateway.address, message)).body


async def test_what_one_gateway_was_given_another_need_not_ask_for(redis: RedisServer) -> None:
    async with upstream(Numbered(FRESH, "age: 5", 'etag: "v1"')) as app, two_gateways(redis, app) as (one, other):
        assert await body(one) == b"1"
        await until_shared(redis)
        shared = await ask(other.address, PLAIN)
        assert (shared.body, shared.value("etag")) == (b"1", b'"v1"')
        assert (shared.value("cache-status") or b"").endswith(b"; detail=shared")
        assert int(shared.value("age") or b"0") >= 5
        again = await ask(other.address, PLAIN)
        assert b"shared" not in (again.value("cache-status") or b"")
        assert len(app.requests) == 1
        assert await other.metric("cache_shared_hits_total") == 1
        assert await one.metric("cache_shared_misses_total") == 1


async def test_variants_are_told_apart_there_too(redis: RedisServer) -> None:
    async with upstream(Numbered(FRESH, "vary: x-a")) as app, two_gateways(redis, app) as (one, other):
        assert [await body(one, get("/", f"X-A: {value}")) for value in "ab"] == [b"1", b"2"]
        await asyncio.sleep(0)
        await until_shared(redis)

        async def both() -> bool:
            return redis.command("EVAL", _FIELDS, "0") == b":3\r\n"

        await wait_until(both, what="both variants, and what they vary by, in Redis")
        assert [await body(other, get("/", f"X-A: {value}")) for value in "bac"] == [b"2", b"1", b"3"]


_FIELDS = """
local found = 0
for _, key in ipairs(redis.call('KEYS', 'toska:cache:1:*')) do
  if key ~= 'toska:cache:1:probe' and key ~= 'toska:cache:1:purges' then found = found + redis.call('HLEN', key) end
end
return found
"""


async def test_nobody_is_given_anothers_response_by_this_way_either(redis: RedisServer) -> None:
    async with upstream(Numbered(FRESH)) as app, two_gateways(redis, app) as (one, other):
        assert await body(one) == b"1"
        await until_shared(redis)
        assert await body(other, get("/", "Authorization: x")) == b"2"
        assert await body(other, get("/", "Cookie: a=1")) == b"3"
        assert await body(other) == b"1"
    async with upstream(Numbered("cache-control: private")) as app, two_gateways(redis, app) as (one, other):
        assert [await body(gateway, get("/private")) for gateway in (one, other)] == [b"1", b"2"]


async def test_users_of_a_key_have_their_own_there_too(redis: RedisServer) -> None:
    async with (
        upstream(Numbered(FRESH)) as app,
        two_gateways(redis, app, key={"cookies": ["sid"]}) as (one, other),
    ):
        assert [await body(one, get("/", f"Cookie: sid={user}")) for user in "ab"] == [b"1", b"2"]

        async def both() -> bool:
            return redis.command("EVAL", _FIELDS, "0") == b":2\r\n"

        await wait_until(both)
        assert [await body(other, get("/", f"Cookie: sid={user}")) for user in "bac"] == [b"2", b"1", b"3"]


async def test_a_change_ends_what_is_shared(redis: RedisServer) -> None:
    async with upstream(Numbered(FRESH)) as app, two_gateways(redis, app) as (one, other):
        await body(one)
        await until_shared(redis)
        await ask(one.address, request("POST"))

        async def gone() -> bool:
            return redis.command("EVAL", _FIELDS, "0") == b":0\r\n"

        await wait_until(gone, what="the URL is gone from Redis")
        assert await body(other) == b"3"


@pytest.mark.parametrize("what", [{"url": "http://test/"}, {"route": "all"}, {}])
async def test_a_purge_ends_what_is_shared(redis: RedisServer, what: dict[str, str]) -> None:
    async with upstream(Numbered(FRESH)) as app, two_gateways(redis, app) as (one, other):
        await body(one)
        await until_shared(redis)
        await one.supervisor.purge(what)

        async def told() -> bool:
            kept = redis.command("EVAL", _FIELDS, "0")
            return kept == b":0\r\n" or redis.command("EXISTS", "toska:cache:1:purges") == b":1\r\n"

        await wait_until(told, what="Redis knows of the purge")
        assert await body(other) == b"2"
        assert await body(one) != b"1"


async def test_a_dead_redis_costs_nothing_and_is_said(
    redis: RedisServer, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with upstream(Numbered(FRESH)) as app, two_gateways(redis, app) as (one, other):
        redis.kill()
        assert [await body(gateway) for gateway in (one, other, one, other)] == [b"1", b"2", b"1", b"2"]
        await redis.start()

        async def shared_again() -> bool:
            return await _is_shared(one, other)

        await wait_until(shared_again, what="both share again")
    said = capsys.readouterr().out + caplog.text
    assert "cache_not_shared" in said
    assert "cache_shared_again" in said
    assert "hunter2" not in said


_asked = 0


async def _is_shared(one: Gateway, other: Gateway) -> bool:
    global _asked
    _asked += 1
    target = get(f"/again-{_asked}")
    await ask(one.address, target)
    before = await other.metric("cache_shared_hits_total")
    await ask(other.address, target)
    return await other.metric("cache_shared_hits_total") > before


async def test_a_redis_that_hangs_is_not_waited_for(redis: RedisServer) -> None:
    async with upstream(Numbered(FRESH)) as app, two_gateways(redis, app, "10ms") as (one, _):
        asked = 0

        async def not_waited_for() -> None:
            nonlocal asked
            for _ in range(5):
                asked += 1
                assert await body(one, get(f"/{asked}")) == b"%d" % asked

        redis.freeze()
        await in_time(not_waited_for, limit_s=2)
        assert await one.metric("cache_shared_late_total") >= 1
        redis.thaw()


async def test_what_is_no_response_is_asked_for_anew(redis: RedisServer) -> None:
    async with upstream(Numbered(FRESH)) as app, two_gateways(redis, app) as (one, other):
        await body(one)
        await until_shared(redis)
        spoil = """
        for _, key in ipairs(redis.call('KEYS', 'toska:cache:1:*')) do
          for _, field in ipairs(redis.call('TYPE', key).ok == 'hash' and redis.call('HKEYS', key) or {}) do
            local value = redis.call('HGET', key, field)
            redis.call('HSET', key, field, string.sub(value, 1, -2) .. 'X')
          end
        end
        """
        redis.command("EVAL", spoil, "0")
        assert await body(other) == b"2"
        assert await other.metric("cache_shared_damaged_total") == 1


async def test_a_response_that_was_put_in_anothers_place_is_not_taken(redis: RedisServer) -> None:
    async with upstream(Numbered(FRESH)) as app, two_gateways(redis, app) as (one, other):
        await body(one, get("/a"))
        await until_shared(redis)
        await body(one, get("/b"))
        await until_shared(redis, 2)
        swap = """
        local places = {}
        for _, key in ipairs(redis.call('KEYS', 'toska:cache:1:*')) do
          if key ~= 'toska:cache:1:probe' then places[#places + 1] = {key, redis.call('HKEYS', key)[1]} end
        end
        local one = redis.call('HGET', places[1][1], places[1][2])
        local two = redis.call('HGET', places[2][1], places[2][2])
        redis.call('HSET', places[1][1], places[1][2], two)
        redis.call('HSET', places[2][1], places[2][2], one)
        """
        redis.command("EVAL", swap, "0")
        assert await body(other, get("/a")) == b"3"
        assert await other.metric("cache_shared_damaged_total") == 1


async def test_what_is_stored_there_ends_with_its_use(redis: RedisServer) -> None:
    fields = "cache-control: max-age=60, stale-if-error=40"
    async with upstream(Numbered(fields)) as app, two_gateways(redis, app) as (one, _):
        await body(one)
        await until_shared(redis)
    lives = """
    local longest = 0
    for _, key in ipairs(redis.call('KEYS', 'toska:cache:1:*')) do
      longest = math.max(longest, redis.call('PTTL', key))
    end
    return longest
    """
    assert 90_000 < int(redis.command("EVAL", lives, "0")[1:-2]) <= 100_000
