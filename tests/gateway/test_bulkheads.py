"""Limits of what one cluster may take: requests in flight, and how long one waits for a connection."""

import asyncio
import time
from typing import Any

from toska_tests.gateways import Gateway, cluster, route
from toska_tests.raw_http import OK, Conversation, ask, connect, get, upstream
from toska_tests.waiting import wait_until


def document(*ports: int, **limits: Any) -> dict[str, Any]:
    """Everything to one cluster with these limits."""
    return {"clusters": {"app": cluster(*ports, limits=limits)}, "routes": [route("all")]}


class Gate:
    """A script whose answers wait until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await self.open.wait()
            await conversation.send(OK)


async def test_a_request_over_the_limit_is_refused_at_once_and_told_when_to_come_again(gateway: Gateway) -> None:
    gate = Gate()
    async with upstream(gate) as app:
        await gateway.serve(document(app.port, max_requests=2))
        async with asyncio.TaskGroup() as group:
            first = [group.create_task(ask(gateway.address, get())) for _ in range(2)]
            await wait_until(lambda: len(app.requests) == 2)
            refused = await ask(gateway.address, get())
            assert (refused.status, refused.error) == (503, "upstream-overloaded")
            assert refused.value("retry-after") == b"1"
            gate.open.set()
        assert [task.result().status for task in first] == [200, 200]
        assert [(await ask(gateway.address, get())).status for _ in range(5)] == [200] * 5
        assert await gateway.metric("overloads_total") >= 1


async def test_requests_that_wait_for_a_connection_are_in_flight_too(gateway: Gateway) -> None:
    gate = Gate()
    async with upstream(gate) as app:
        await gateway.serve(document(app.port, max_connections=1, max_requests=3))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(gateway.address, get())) for _ in range(3)]

            async def all_there() -> bool:
                return await gateway.active() == 3

            await wait_until(all_there)
            assert (await ask(gateway.address, get())).error == "upstream-overloaded"
            gate.open.set()
        assert [task.result().status for task in tasks] == [200] * 3


async def test_clients_that_leave_make_room(gateway: Gateway) -> None:
    gate = Gate()
    async with upstream(gate) as app:
        await gateway.serve(document(app.port, max_requests=2))
        for number in range(6):
            client = await connect(gateway.address)
            await client.send(get())
            await wait_until(lambda number=number: len(app.requests) == number + 1)
            client.reset()
            await client.aclose()
            await gateway.until_quiet()
        gate.open.set()
        assert (await ask(gateway.address, get())).status == 200


async def test_limits_of_one_cluster_leave_others_alone(gateway: Gateway) -> None:
    gate = Gate()
    async with upstream(gate) as stuck, upstream() as well:
        wanted = document(stuck.port, max_requests=1)
        wanted["clusters"]["other"] = cluster(well.port)
        wanted["routes"].append(route("other", "/other", "other"))
        await gateway.serve(wanted)
        async with asyncio.TaskGroup() as group:
            group.create_task(ask(gateway.address, get()))
            await wait_until(lambda: len(stuck.requests) == 1)
            assert (await ask(gateway.address, get())).error == "upstream-overloaded"
            assert [(await ask(gateway.address, get("/other"))).status for _ in range(5)] == [200] * 5
            gate.open.set()


async def test_a_request_waits_for_a_connection_only_so_long(gateway: Gateway) -> None:
    gate = Gate()
    async with upstream(gate) as app:
        await gateway.serve(document(app.port, max_connections=1, pending_timeout="300ms"))
        async with asyncio.TaskGroup() as group:
            first = group.create_task(ask(gateway.address, get()))
            await wait_until(lambda: len(app.requests) == 1)
            begun = time.monotonic()
            refused = await ask(gateway.address, get())
            assert (refused.status, refused.error) == (503, "upstream-overloaded")
            assert refused.value("retry-after") == b"1"
            assert 0.25 < time.monotonic() - begun < 20
            gate.open.set()
        assert first.result().status == 200
        assert len(app.requests) == 1


async def test_a_limit_speaks_neither_against_endpoint_nor_circuit(gateway: Gateway) -> None:
    gate = Gate()
    async with upstream(gate) as app:
        wanted = document(app.port, max_requests=1)
        wanted["clusters"]["app"]["breaker"] = {"min_requests": 1, "failure_ratio": 0.01}
        wanted["clusters"]["app"]["outlier"] = {"consecutive_5xx": 1}
        await gateway.serve(wanted)
        async with asyncio.TaskGroup() as group:
            group.create_task(ask(gateway.address, get()))
            await wait_until(lambda: len(app.requests) == 1)
            for _ in range(5):
                assert (await ask(gateway.address, get())).error == "upstream-overloaded"
            gate.open.set()
        assert (await ask(gateway.address, get())).status == 200
