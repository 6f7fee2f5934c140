"""Repeated, hedged and redirected requests leave nothing behind that only the collector could find."""

import asyncio
import gc
from collections import Counter
from typing import Any

import pytest
from toska_gateway.worker.caller import Caller
from toska_gateway.worker.rival import Race
from toska_tests.gateways import cluster, plane_here, route
from toska_tests.ports import free_port
from toska_tests.raw_http import OK, Conversation, ask, get, response, upstream
from toska_tests.waiting import wait_until


async def slow(conversation: Conversation) -> None:
    """Answer after a while."""
    while True:
        await conversation.request()
        await asyncio.sleep(0.06)
        await conversation.send(OK)


RETRY = {"attempts": 3, "retry_on": ["connect", "reset", "timeout", "503"], "budget": 1, "budget_floor": 10_000}
POLICIES: list[dict[str, Any]] = [
    {"retry": {**RETRY, "backoff": {"base": "10ms", "max": "10ms"}}},
    {"retry": {**RETRY, "per_try_timeout": "40ms"}},
    {"retry": RETRY, "hedge": {"after": "10ms", "attempts": 2}},
    {"retry": {**RETRY, "attempts": 1}, "fallback": {"respond": {"body": "sorry"}, "on": ["connect", "503"]}},
]


def alive() -> Counter[str]:
    """What there is of what requests are made of."""
    return Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, Caller | Race))


@pytest.mark.parametrize("policies", POLICIES)
async def test_nothing_is_left_for_the_collector(policies: dict[str, Any]) -> None:
    async with upstream(slow) as one, upstream(response(503)) as two, upstream() as three:
        members = cluster(
            one.port, two.port, three.port, free_port(), balancer="round_robin", outlier={"consecutive_failures": 1000}
        )
        document = {"clusters": {"app": members}, "routes": [route("all", policies=policies)]}
        gc.collect()
        gc.disable()
        try:
            async with plane_here(document) as (_, address):
                for _ in range(5):
                    await asyncio.gather(*(ask(address, get()) for _ in range(8)))
                await wait_until(lambda: not alive(), what="everything to be gone")
        finally:
            gc.enable()
