"""Bounds on connections: towards a cluster, and of clients."""

import asyncio

import pytest
from toska_tests.gateways import Gateway, cluster, route, single
from toska_tests.raw_http import (
    OK,
    Client,
    Conversation,
    Upstream,
    ask,
    black_hole,
    connect,
    connected,
    get,
    request,
    upstream,
)
from toska_tests.waiting import wait_until


def bounded(*ports: int, connections: int, pending: int, **settings: object) -> dict[str, object]:
    """A document whose only cluster has these bounds."""
    limits = {"max_connections": connections, "max_pending": pending}
    policies = {"connect_timeout": "300ms"}
    return {"clusters": {"app": cluster(*ports, limits=limits, **settings)}, "routes": [route("r", policies=policies)]}


class Gate:
    """A script whose answers wait until it is opened."""

    def __init__(self) -> None:
        self._open = asyncio.Event()

    def open(self) -> None:
        """Let all answers go."""
        self._open.set()

    async def __call__(self, conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await self._open.wait()
            await conversation.send(OK)


async def test_a_request_over_the_connection_limit_waits_for_a_connection_that_frees(gateway: Gateway) -> None:
    gate = Gate()
    async with upstream(gate) as app:
        await gateway.serve(bounded(app.port, connections=1, pending=10))
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(ask(gateway.address, get())) for _ in range(5)]
            await wait_until(lambda: len(app.requests) == 1)
            await until_waiting(gateway, 5)
            gate.open()
        assert [task.result().status for task in answers] == [200] * 5
        assert len(app.conversations) == 1


async def until_waiting(gateway: Gateway, count: int) -> None:
    """Wait until so many requests are in flight or wait."""

    async def reached() -> bool:
        return await gateway.active() == count

    await wait_until(reached, what=f"{count} requests in flight")


async def test_a_request_over_both_limits_is_refused_at_once(gateway: Gateway) -> None:
    gate = Gate()
    async with upstream(gate) as app:
        await gateway.serve(bounded(app.port, connections=1, pending=1))
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(ask(gateway.address, get())) for _ in range(2)]
            await until_waiting(gateway, 2)
            refused = await ask(gateway.address, get())
            assert (refused.status, refused.error) == (503, "upstream-overloaded")
            gate.open()
        assert [task.result().status for task in answers] == [200, 200]
        assert (await ask(gateway.address, get())).status == 200


async def test_waiting_requests_whose_clients_went_away_make_room_for_others(gateway: Gateway) -> None:
    gate = Gate()
    async with upstream(gate) as app:
        await gateway.serve(bounded(app.port, connections=1, pending=2))
        async with asyncio.TaskGroup() as group:
            first = group.create_task(ask(gateway.address, get()))
            await until_waiting(gateway, 1)
            leaving: list[Client] = []
            for number in range(2):
                leaving.append(await connect(gateway.address))
                await leaving[-1].send(get())
                await until_waiting(gateway, 2 + number)
            for client in leaving:
                client.reset()
                await client.aclose()
            await until_waiting(gateway, 1)
            others = [group.create_task(ask(gateway.address, get())) for _ in range(2)]
            await until_waiting(gateway, 3)
            gate.open()
        assert [task.result().status for task in (first, *others)] == [200, 200, 200]
        assert len(app.requests) == 3


@pytest.mark.parametrize("pending", [0, 10])
async def test_idle_connections_to_other_endpoints_do_not_stand_in_the_way(gateway: Gateway, pending: int) -> None:
    async with upstream() as one, upstream() as other:
        await gateway.serve(bounded(one.port, other.port, connections=1, pending=pending, balancer="round_robin"))
        async with asyncio.timeout(20):
            for _ in range(6):
                assert (await ask(gateway.address, get())).status == 200
        assert len(one.requests) == len(other.requests) == 3


async def test_a_waiting_request_takes_the_first_connection_that_frees_of_whatever_endpoint(gateway: Gateway) -> None:
    gates = Gate(), Gate()
    async with upstream(gates[0]) as one, upstream(gates[1]) as other:
        await gateway.serve(bounded(one.port, other.port, connections=2, pending=10, balancer="round_robin"))
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            answers = [group.create_task(ask(gateway.address, get())) for _ in range(6)]
            await until_waiting(gateway, 6)
            gates[1].open()
            await until_waiting(gateway, 1)
            gates[0].open()
        assert {task.result().status for task in answers} == {200}
        assert (len(one.requests), len(other.requests)) == (1, 5)
        for app, count in ((one, 1), (other, 5)):
            assert await gateway.metric("endpoint_requests", endpoint=f"127.0.0.1:{app.port}") == count
        assert await gateway.active() == 0


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_waiting_request_goes_on_when_the_connect_before_it_fails(gateway: Gateway, method: str) -> None:
    with black_hole() as port:
        await gateway.serve(bounded(port, connections=1, pending=10))
        async with asyncio.timeout(4), asyncio.TaskGroup() as group:
            message = request(method, body=b"x" if method == "POST" else None)
            answers = [group.create_task(ask(gateway.address, message)) for _ in range(3)]
        assert [(task.result().status, task.result().error) for task in answers] == [(504, "upstream-timeout")] * 3
    assert await gateway.active() == 0


async def test_a_waiting_request_goes_on_when_the_connection_before_it_breaks(gateway: Gateway) -> None:
    broken = asyncio.Event()

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        if len(app.conversations) == 1:
            await broken.wait()
            conversation.reset()
        else:
            await conversation.send(OK)

    app = Upstream(script)
    await app.open()
    await gateway.serve(bounded(app.port, connections=1, pending=10))
    async with asyncio.timeout(4), asyncio.TaskGroup() as group:
        first = group.create_task(ask(gateway.address, request("POST", body=b"x")))
        await until_waiting(gateway, 1)
        second = group.create_task(ask(gateway.address, request("POST", body=b"x")))
        await until_waiting(gateway, 2)
        broken.set()
    assert (first.result().status, second.result().status) == (502, 200)
    await app.aclose()


async def test_clients_over_the_listeners_limit_are_told_so_and_later_ones_served(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, limits={"connections": 3}))
        clients = [await connect(gateway.address) for _ in range(3)]
        for client in clients:
            assert (await client.ask(get())).status == 200
        async with connected(gateway.address) as late:
            answer = await late.response()
            assert (answer.status, answer.error) == (503, "too-many-connections")
            assert await late.is_closed()
        await clients[0].aclose()
        await wait_until_connections(gateway, 2)
        assert (await ask(gateway.address, get())).status == 200
        for client in clients[1:]:
            assert (await client.ask(get())).status == 200
            await client.aclose()


async def wait_until_connections(gateway: Gateway, count: int) -> None:
    """Wait until so many clients are connected."""

    async def reached() -> bool:
        return await gateway.metric("connections") == count

    await wait_until(reached, what=f"{count} connections")


async def test_one_client_address_cannot_take_all_connections(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, limits={"connections_per_client": 2}))
        clients = [await connect(gateway.address) for _ in range(2)]
        answer = await ask(gateway.address, b"")
        assert (answer.status, answer.error) == (503, "too-many-connections")
        for client in clients:
            assert (await client.ask(get())).status == 200
            await client.aclose()
        await wait_until_connections(gateway, 0)
        assert (await ask(gateway.address, get())).status == 200
