"""New workers in place of the old under load, and a gateway that ends: no request is lost, no caller left hanging."""

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest
from toska_gateway.errors import RenewalFailed
from toska_gateway.supervisor import Supervisor
from toska_gateway.worker_process import WorkerProcess
from toska_tests.gateways import Gateway, route, running_gateway, single, snapshot_of
from toska_tests.programs import alive
from toska_tests.raw_http import Client, Conversation, ask, chunks, connect, connected, get, request, response, upstream
from toska_tests.waiting import wait_until


@asynccontextmanager
async def two_workers(drain_s: float) -> AsyncGenerator[Gateway]:
    """A gateway of two workers, each of which has so long to leave."""
    supervisor = Supervisor("127.0.0.1", 0, 2, drain_s=drain_s)
    async with supervisor.run():
        await supervisor.apply(snapshot_of({}))
        await wait_until(lambda: states(supervisor) == ["running"] * 2)
        yield Gateway(supervisor)


@pytest.fixture
async def pair() -> AsyncGenerator[Gateway]:
    """A gateway of two workers that are let go quickly."""
    async with two_workers(3.0) as gateway:
        yield gateway


def states(supervisor: Supervisor) -> list[str]:
    """The states of all worker processes."""
    return [worker.state for worker in supervisor.workers()]


async def echoing(conversation: Conversation) -> None:
    """Answer with the target and the hash of the body, now and then slowly."""
    chance = random.Random(0)
    while True:
        message = await conversation.request()
        if chance.random() < 0.1:
            await asyncio.sleep(0.02)
        body = message.target.encode() + hashlib.sha256(message.body).digest()
        if chance.random() < 0.5:
            await conversation.send(response(200, body=body))
        else:
            await conversation.send(response(200, "transfer-encoding: chunked", length=False) + chunks([body]))


@dataclass
class Load:
    """Clients that keep their connections as long as they may, and what became of their requests."""

    address: tuple[str, int]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    outcomes: Counter[str] = field(default_factory=Counter[str])
    connections: int = 0

    async def run(self, seed: int) -> None:
        """Ask until stopped; on a new connection only where the last answer ended the one before."""
        chance = random.Random(seed)
        client = await self._connect()
        while not self.stop.is_set():
            target, body = f"/{seed}/{chance.random()}", chance.randbytes(chance.choice([0, 10, 5000]))
            message = request("POST", target, body=body) if chance.random() < 0.5 else get(target)
            expected = target.encode() + hashlib.sha256(body if message.startswith(b"POST") else b"").digest()
            try:
                answer = await client.ask(message)
            except (OSError, EOFError, Exception) as error:  # noqa: BLE001 - whatever it is, it is a loss
                self.outcomes[f"lost: {error!r}"] += 1
                break
            self.outcomes["right" if answer.body == expected else f"wrong: {answer.status}"] += 1
            if answer.value("connection") == b"close":
                await client.aclose()
                client = await self._connect()
            await asyncio.sleep(chance.choice([0, 0, 0.001, 0.05]))
        await client.aclose()

    async def _connect(self) -> Client:
        self.connections += 1
        return await connect(self.address)


async def test_no_request_is_lost_while_workers_are_renewed_under_load() -> None:
    # Idle connections are kept for a tenth of the time: on a busy machine a client may be away for a second.
    async with upstream(echoing) as app, two_workers(100.0) as pair:
        await pair.serve({**single(app.port), "routes": [route("renewed")]})
        load = Load(pair.address)
        first = pair.pids()
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            for seed in range(12):
                group.create_task(load.run(seed))
            for _ in range(3):
                before = pair.pids()
                seen = load.outcomes["right"]
                renewed = await pair.supervisor.renew()
                assert {worker.state for worker in renewed} == {"running"}
                assert not {worker.pid for worker in renewed} & set(before)
                await wait_until(lambda seen=seen: load.outcomes["right"] > seen + 300)
            load.stop.set()
        assert set(load.outcomes) == {"right"}
        assert load.outcomes["right"] > 900
        assert load.connections > 24  # (the old workers did hand theirs over)
        await wait_until(lambda: states(pair.supervisor) == ["running"] * 2, what="the old ones are gone")
        assert not set(first) & set(pair.pids())
        # What was counted by those that have left is kept to the last request.
        assert await pair.metric("requests_total", route="renewed") == load.outcomes["right"]


async def test_a_renewed_worker_finishes_what_it_has_begun_beside_its_successor(pair: Gateway) -> None:
    go_on = asyncio.Event()

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")
        await go_on.wait()
        await conversation.send(b"world")

    async with upstream(script) as app:
        await pair.serve(single(app.port))
        async with connected(pair.address) as client:
            await client.send(get())
            assert (await client.head()).status == 200
            await pair.supervisor.renew()
            assert Counter(states(pair.supervisor))["running"] == 2
            await wait_until(lambda: states(pair.supervisor).count("draining") == 1, what="the other has left")
            go_on.set()
            assert await client.exactly(10) == b"helloworld"
        await wait_until(lambda: states(pair.supervisor) == ["running"] * 2)


async def test_what_does_not_end_in_time_is_cut_off(pair: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.until_closed()

    async with upstream(script) as app:
        await pair.serve(single(app.port))
        async with connected(pair.address) as client:
            await client.send(get())
            await wait_until(lambda: bool(app.requests))
            await pair.supervisor.renew()
            assert await client.is_closed()  # after the drain timeout
        await wait_until(lambda: states(pair.supervisor) == ["running"] * 2)


async def test_new_routing_reaches_successors_and_a_renewal_waits_for_the_one_before(pair: Gateway) -> None:
    async with upstream(response(200, body=b"one")) as one, upstream(response(200, body=b"two")) as two:
        await pair.serve(single(one.port))
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(pair.supervisor.renew())
            group.create_task(pair.serve(single(two.port)))
        for _ in range(10):
            assert (await ask(pair.address, get())).body == b"two"
        await wait_until(lambda: states(pair.supervisor) == ["running"] * 2)


@pytest.mark.parametrize("failure", ["no process", "no greeting"])
async def test_workers_whose_successors_do_not_start_go_on(
    pair: Gateway, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = WorkerProcess.start

    async def failing(*args: Any) -> WorkerProcess:
        if failure == "no process":
            raise BlockingIOError(11, "Resource temporarily unavailable")
        worker = await start(*args)
        worker.kill()
        return worker

    async with upstream() as app:
        await pair.serve(single(app.port))
        before = pair.pids()
        monkeypatch.setattr(WorkerProcess, "start", failing)
        with pytest.raises(RenewalFailed):
            await pair.supervisor.renew()
        monkeypatch.undo()
        await wait_until(lambda: pair.pids() == before)
        assert states(pair.supervisor) == ["running"] * 2
        assert (await ask(pair.address, get())).status == 200
        assert len(await pair.supervisor.renew()) == 2


async def test_a_gateway_that_stops_refuses_who_comes_and_serves_who_is_there() -> None:
    go_on = asyncio.Event()

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await go_on.wait()
        await conversation.send(response(200, body=b"late"))

    refused = 0
    async with upstream(script) as app:
        async with asyncio.TaskGroup() as group, running_gateway(single(app.port), workers=2) as gateway:
            await wait_until(lambda: states(gateway.supervisor) == ["running"] * 2)
            workers = [psutil.Process(pid) for pid in gateway.pids()]
            client = await connect(gateway.address)
            await client.send(get())
            await wait_until(lambda: bool(app.requests))

            async def knock() -> None:
                nonlocal refused
                await wait_until(lambda: "running" not in states(gateway.supervisor), every=0.001)
                for _ in range(20):
                    async with asyncio.timeout(20):
                        try:
                            await ask(gateway.address, get())
                        except (ConnectionError, EOFError):
                            refused += 1
                go_on.set()

            group.create_task(knock())
        assert (await client.response()).body == b"late"
        await client.aclose()
    assert refused == 20
    assert alive(workers) == []
