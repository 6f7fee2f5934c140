"""Endpoints that come and go, break off, hang and answer badly, all at once: what callers see of it."""

import asyncio
import itertools
from collections import Counter

from toska_tests.gateways import Gateway, cluster, route, running_gateway
from toska_tests.ports import free_port
from toska_tests.raw_http import OK, Conversation, Upstream, answering, connected, get, response, upstream
from toska_tests.waiting import wait_until


async def resetting(conversation: Conversation) -> None:
    """Break off every third request."""
    for number in itertools.count():
        await conversation.request()
        if number % 3 == 2:
            conversation.reset()
            return
        await conversation.send(OK)


async def moody(conversation: Conversation) -> None:
    """Answer every fourth request with 503."""
    for number in itertools.count():
        await conversation.request()
        await conversation.send(response(503, body=b"") if number % 4 == 3 else OK)


async def hanging(conversation: Conversation) -> None:
    """Answer a few requests, and then none any more."""
    for _ in range(5):
        await conversation.request()
        await conversation.send(OK)
    await conversation.request()
    await conversation.until_closed()


class Load:
    """Clients that ask one after the other, and what they are told."""

    def __init__(self, gateway: Gateway) -> None:
        self.told = Counter[str | int]()
        self._gateway = gateway
        self._stopped = asyncio.Event()

    async def run(self, clients: int, flap: "asyncio.Task[None]") -> None:
        """Ask until `flap` is over."""
        async with asyncio.timeout(40), asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._ask())
            await flap
            self._stopped.set()

    async def _ask(self) -> None:
        async with connected(self._gateway.address) as client:
            while not self._stopped.is_set():
                answer = await client.ask(get())
                self.told[answer.error or answer.status] += 1


async def _has_grown(gateway: Gateway, before: float) -> bool:
    return await gateway.metric("connect_failures_total") > before


async def test_callers_hear_nothing_of_endpoints_that_flap_break_off_hang_and_fail() -> None:
    port = free_port()
    retry = {"attempts": 5, "retry_on": ["connect", "reset", "timeout", "5xx"], "per_try_timeout": "2s", "budget": 1}
    policies = {"retry": {**retry, "budget_floor": 1000}, "hedge": {"after": "80ms"}}
    outlier = {"base_ejection": "100ms", "max_ejection": "200ms", "consecutive_gateway_errors": 3}
    flapping = Upstream(answering(OK))

    async def flap(gateway: Gateway) -> None:
        for _ in range(5):
            await flapping.open(port)
            seen = len(flapping.requests)
            await wait_until(lambda seen=seen: len(flapping.requests) > seen, what="the endpoint is found again")
            refused = await gateway.metric("connect_failures_total")
            await flapping.stop()
            await wait_until(lambda refused=refused: _has_grown(gateway, refused), what="it is found to be away")

    async with (
        upstream() as steady,
        upstream(resetting) as breaking,
        upstream(moody) as failing,
        upstream(hanging) as stuck,
    ):
        members = cluster(steady.port, breaking.port, failing.port, stuck.port, port, outlier=outlier)
        document = {"clusters": {"app": members}, "routes": [route("all", policies=policies)]}
        async with running_gateway(document) as gateway:
            load = Load(gateway)
            await load.run(8, asyncio.create_task(flap(gateway)))  # noqa: TID251 - the test awaits it
            assert await gateway.metric("retries_total") > 0
            assert await gateway.metric("ejections_total") > 0
            await gateway.until_quiet()
    assert load.told.total() > 200
    assert set(load.told) == {200}
