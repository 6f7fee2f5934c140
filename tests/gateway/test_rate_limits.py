"""Rate limits over real connections: who is counted together, what clients are told, and exactness over workers."""

import asyncio
import contextlib
import os
import re
import signal
from collections import Counter
from typing import Any

import pytest
from toska_tests.gateways import Gateway, route, running_gateway, single
from toska_tests.raw_http import Client, CutOff, ask, connected, get, request, upstream
from toska_tests.waiting import wait_until

SLOW: dict[str, Any] = {"requests": 3, "per": "1h"}
"""An allowance that does not refill while a test runs."""
TOLD = rb'"all";r=2;t=1(200|19\d)', rb'"all";r=1;t=2(400|39\d)', rb'"all";r=0;t=3(600|59\d)'
"""What its first three requests are told: when all of it is there again, less the seconds that the test has taken."""


async def statuses(gateway: Gateway, *requests: bytes) -> list[int]:
    return [(await ask(gateway.address, message)).status for message in requests]


async def test_what_is_over_the_limit_is_refused_and_told_when_to_come_back(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, policies={"rate_limit": SLOW}))
        async with connected(gateway.address) as client:
            answers = [await client.ask(get()) for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    for answer, told in zip(answers, TOLD, strict=False):
        assert re.fullmatch(told, answer.value("ratelimit") or b"")
    refused = answers[3]
    assert refused.error == "rate-limited"
    assert refused.value("ratelimit-policy") == b'"all";q=3;w=3600'
    assert 1140 <= int(refused.value("retry-after") or b"0") <= 1200
    assert re.fullmatch(rb'"all";r=0;t=\d+', refused.value("ratelimit") or b"")
    assert len(app.requests) == 3


async def test_an_allowance_refills_evenly(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, policies={"rate_limit": {"requests": 20, "per": "1s", "burst": 1}}))
        loop = asyncio.get_running_loop()
        async with connected(gateway.address) as client:
            started, served = loop.time(), 0
            while served < 8:
                served += (await client.ask(get())).status == 200
            took = loop.time() - started
    assert 7 / 20 - 0.01 <= took < 20


async def test_clients_are_told_apart_by_what_trusted_proxies_say(gateway: Gateway) -> None:
    async with upstream() as app:
        document = single(app.port, policies={"rate_limit": SLOW})
        await gateway.serve({**document, "server": {"trusted_proxies": ["127.0.0.1/32"]}})
        for client in ("192.0.2.1", "192.0.2.2"):
            asked = [get("/", f"X-Forwarded-For: {client}")] * 4
            assert await statuses(gateway, *asked) == [200, 200, 200, 429]


@pytest.mark.parametrize("scope", ["worker", "machine"])
async def test_a_header_can_be_whose_allowance_it_is(gateway: Gateway, scope: str) -> None:
    async with upstream() as app:
        limit = {**SLOW, "key": "header:x-api-key", "scope": scope}
        await gateway.serve(single(app.port, policies={"rate_limit": limit}))
        for fields in (("X-Api-Key: a",), ("X-Api-Key: b",), ()):
            assert await statuses(gateway, *[get("/", *fields)] * 4) == [200, 200, 200, 429]


async def test_everybody_together_can_have_one_allowance(gateway: Gateway) -> None:
    async with upstream() as app:
        limit = {**SLOW, "key": "route"}
        document = single(app.port, policies={"rate_limit": limit})
        await gateway.serve({**document, "server": {"trusted_proxies": ["127.0.0.1/32"]}})
        asked = [get("/", f"X-Forwarded-For: 192.0.2.{number}") for number in range(4)]
        assert await statuses(gateway, *asked) == [200, 200, 200, 429]


async def test_a_refused_body_is_not_taken_for_the_next_request(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, policies={"rate_limit": {**SLOW, "requests": 1}}))
        async with connected(gateway.address) as client:
            assert (await client.ask(get())).status == 200
            answer = await client.ask(request("POST", body=b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"))
            assert answer.status == 429
            assert answer.value("connection") == b"close"
            assert await client.is_closed()
    assert [message.target for message in app.requests] == ["/"]


async def test_a_limit_lasts_through_a_change_of_routes_and_a_changed_one_begins_anew(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, policies={"rate_limit": {**SLOW, "key": "route", "per": "2h"}}))
        assert await statuses(gateway, *[get()] * 3) == [200, 200, 200]
        changed = single(app.port, policies={"rate_limit": {**SLOW, "key": "route", "per": "2h"}, "timeout": "9s"})
        await gateway.serve(changed)
        assert await statuses(gateway, get()) == [429]
        await gateway.serve(single(app.port, policies={"rate_limit": {**SLOW, "key": "route", "requests": 4}}))
        assert await statuses(gateway, *[get()] * 5) == [200, 200, 200, 200, 429]


async def test_several_workers_admit_exactly_what_one_would() -> None:
    async with upstream() as app, running_gateway(workers=2) as gateway:
        limit = {"requests": 150, "per": "1h", "key": "route"}
        document = single(app.port, policies={"rate_limit": limit})
        document["routes"].append(route("free", "/free"))
        await gateway.serve(document)
        async with contextlib.AsyncExitStack() as stack:
            clients: list[Client] = []

            async def shared_out() -> bool:
                """Whether each worker has some of the clients: one that stands still accepts none."""
                clients.extend([await stack.enter_async_context(connected(gateway.address)) for _ in range(8)])
                for client in clients[-8:]:
                    assert (await client.ask(get("/free"))).status == 200
                await gateway.metrics()
                return all(worker.requests for worker in gateway.supervisor.workers())

            await wait_until(shared_out, what="clients of every worker")

            async def hammer(client: Client) -> Counter[int]:
                return Counter([(await client.ask(get())).status for _ in range(50)])

            counts = sum(await asyncio.gather(*map(hammer, clients)), Counter[int]())
        assert counts == {200: 150, 429: 50 * len(clients) - 150}
        assert await gateway.metric("rate_limited_total") == counts[429]


async def test_a_worker_killed_under_load_neither_gives_allowances_away_nor_locks_them() -> None:
    async with upstream() as app, running_gateway(workers=2) as gateway:
        limit = {"requests": 400, "per": "1h", "key": "route"}
        await gateway.serve(single(app.port, policies={"rate_limit": limit}))
        statuses, broken, stop = Counter[int](), 0, asyncio.Event()

        async def hammer() -> None:
            nonlocal broken
            while not stop.is_set():
                try:
                    async with connected(gateway.address) as client:
                        while not stop.is_set():
                            statuses[(await client.ask(get())).status] += 1
                except (OSError, EOFError, CutOff):
                    broken += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(hammer())
            for asked in (60, 180, 300):
                await wait_until(lambda: statuses[200] >= asked, every=0, what="some are served")  # noqa: B023
                os.kill(gateway.pids()[0], signal.SIGKILL)
            await wait_until(lambda: statuses[429] >= 200, what="the allowance is used up, and refused without a lock")
            stop.set()
        # What was taken for a request that broke off is gone, and nothing else.
        assert 400 - broken <= statuses[200] <= 400
        assert 400 - broken <= len(app.requests) <= 400
        assert broken >= 1
