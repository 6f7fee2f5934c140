"""Worker processes under their parent: replaced when they die, drained when they end, alone with the data plane."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import psutil
import pytest
from toska_common.contracts.routing import HeaderEdits, Snapshot
from toska_common.errors import ConfigurationError
from toska_gateway import supervisor as supervisor_module
from toska_gateway import worker_process, worker_slot
from toska_gateway.errors import SnapshotRejected
from toska_gateway.supervisor import Supervisor
from toska_gateway.worker_process import WorkerProcess
from toska_tests.gateways import Gateway, cluster, route, running_gateway, single, snapshot_of
from toska_tests.ports import free_port
from toska_tests.programs import alive, running
from toska_tests.raw_http import OK, Client, Conversation, CutOff, ask, connect, connected, get, upstream
from toska_tests.waiting import unhindered_s, wait_until


@pytest.fixture(scope="module")
async def pair() -> AsyncGenerator[Gateway]:
    """A gateway of two workers, which may die one after the other without long pauses between."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_slot, "MAX_DELAY_S", 0.1)
        async with running_gateway(workers=2) as gateway:
            await until_running(gateway, 2)
            yield gateway


class Stoppable:
    """A gateway in a task of its own, so that it can be watched while it stops."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._stop = asyncio.Event()
        self._started: asyncio.Future[Gateway] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Serve until stopped."""
        async with running_gateway(self._document, workers=2) as gateway:
            await until_running(gateway, 2)  # what is queued for one that does not run yet is not accepted any more
            self._started.set_result(gateway)
            await self._stop.wait()

    async def started(self) -> Gateway:
        """The gateway once it serves."""
        return await self._started

    def stop(self) -> None:
        """Begin to stop."""
        self._stop.set()


async def until_running(gateway: Gateway, count: int, *, without: int = 0) -> None:
    """Wait until so many workers run, `without` a certain process."""

    def reached() -> bool:
        states = {worker.pid: worker.state for worker in gateway.supervisor.workers()}
        return list(states.values()).count("running") == count and without not in states

    await wait_until(reached, what=f"{count} workers run")


def connections_of(pid: int, port: int) -> int:
    """How many clients a worker has accepted."""
    found = psutil.Process(pid).net_connections(kind="tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port for one in found)


async def test_both_workers_get_connections(pair: Gateway) -> None:
    async with upstream() as app:
        await pair.serve(single(app.port))
        await pair.until_quiet()
        clients = [await connect(pair.address) for _ in range(40)]
        for client in clients:
            assert (await client.ask(get())).status == 200
        # Each worker has its own connection to the upstream.
        assert len({conversation.port for conversation in app.conversations}) >= 2
        await pair.metrics()
        shares = [worker.connections for worker in pair.supervisor.workers()]
        assert sum(shares) == 40
        assert min(shares) >= 5
        for client in clients:
            await client.aclose()


async def test_a_killed_worker_is_replaced_and_what_it_counted_is_kept(pair: Gateway) -> None:
    async with upstream() as app:
        await pair.serve({**single(app.port), "routes": [route("kept")]})
        for _ in range(20):
            assert (await ask(pair.address, get())).status == 200
        assert await pair.metric("requests_total", route="kept") == 20
        for slot in range(2):
            victim = pair.pids()[slot]
            os.kill(victim, signal.SIGKILL)
            seen = 0.0
            while victim in pair.pids() or len(pair.pids()) < 2:
                count = await pair.metric("requests_total", route="kept")
                assert count >= 20
                seen = count
                await asyncio.sleep(0)
            assert seen == 20
            await until_running(pair, 2, without=victim)
            assert await pair.metric("requests_total", route="kept") == 20
        for _ in range(20):
            assert (await ask(pair.address, get())).status == 200
        assert await pair.metric("requests_total", route="kept") == 40
        assert await pair.metric("workers") == 2


async def test_connections_that_come_while_a_worker_is_replaced_are_served(pair: Gateway) -> None:
    async with upstream() as app:
        await pair.serve(single(app.port))
        victims = pair.pids()
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(ask(pair.address, get())) for _ in range(20)]
        assert {task.result().status for task in answers} == {200}
        for victim in victims:
            await until_running(pair, 2, without=victim)


async def test_a_worker_that_is_asked_to_end_finishes_its_request_and_is_replaced(pair: Gateway) -> None:
    go_on = asyncio.Event()

    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await go_on.wait()
            await conversation.send(OK)

    async with upstream(script) as app:
        await pair.serve(single(app.port))
        victims = pair.pids()
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(ask(pair.address, get())) for _ in range(10)]
            await wait_until(lambda: len(app.requests) == 10)
            for victim in victims:
                os.kill(victim, signal.SIGTERM)
            late = [group.create_task(ask(pair.address, get())) for _ in range(10)]
            go_on.set()
        assert {task.result().status for task in (*answers, *late)} == {200}
        assert {task.result().value("connection") for task in answers} <= {None, b"close"}
        for victim in victims:
            await until_running(pair, 2, without=victim)


async def test_a_connection_that_has_just_been_made_is_served_although_its_worker_is_to_end() -> None:
    async with upstream() as app, running_gateway(single(app.port)) as gateway:

        async def served(client: Client, silent: Client) -> None:
            os.kill(gateway.pids()[0], signal.SIGTERM)
            await asyncio.sleep(0.05)  # the worker has begun to end
            answer = await client.ask(get())
            assert (answer.status, answer.value("connection")) == (200, b"close")
            assert await client.is_closed()
            assert await silent.is_closed()  # but one that says nothing is not waited for

        async def before_the_worker_gives_up() -> bool:
            await until_running(gateway, 1)
            async with connected(gateway.address) as client, connected(gateway.address) as silent:
                await wait_until_connected(gateway, 2)
                started, unhindered = time.monotonic(), unhindered_s()
                try:
                    await served(client, silent)
                except (AssertionError, OSError, EOFError, CutOff):
                    if time.monotonic() - started < 0.2:
                        raise
                    return False
                return unhindered_s() - unhindered < 1

        await wait_until(before_the_worker_gives_up, what="a request within the time that a silent client has")
        assert (await ask(gateway.address, get())).status == 200


async def wait_until_connected(gateway: Gateway, count: int) -> None:
    """Wait until so many clients are connected."""

    async def reached() -> bool:
        return await gateway.metric("connections") == count

    await wait_until(reached)


async def test_ctrl_c_in_the_terminal_is_for_the_parent_to_answer(pair: Gateway) -> None:
    pids = pair.pids()
    for pid in pids:
        os.kill(pid, signal.SIGINT)
    await pair.metrics()
    assert pair.pids() == pids
    assert all(psutil.Process(pid).is_running() for pid in pids)


async def test_a_worker_that_hangs_is_replaced(pair: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "ANSWER_TIMEOUT_S", 0.3)
    async with upstream() as app:
        victim = pair.pids()[0]
        os.kill(victim, signal.SIGSTOP)
        await pair.serve(single(app.port))  # the other one serves it by now
        monkeypatch.undo()
        await until_running(pair, 2, without=victim)
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(ask(pair.address, get())) for _ in range(20)]
        assert {task.result().status for task in answers} == {200}


async def test_a_worker_that_cannot_be_started_is_tried_again(pair: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[int] = []
    start = WorkerProcess.start

    async def failing(*args: Any) -> WorkerProcess:
        if len(failures) < 2:
            failures.append(1)
            raise BlockingIOError(11, "Resource temporarily unavailable")  # as fork says under a process limit
        return await start(*args)

    monkeypatch.setattr(WorkerProcess, "start", failing)
    victim = pair.pids()[0]
    os.kill(victim, signal.SIGKILL)
    await until_running(pair, 2, without=victim)
    assert len(failures) == 2


def unservable() -> Snapshot:
    """A snapshot that no contract would let pass, and no worker can compile."""
    snapshot = snapshot_of({"clusters": {"app": cluster(1)}, "routes": [route("bad"), route("worse", "/b")]})
    edits = HeaderEdits.model_construct(set={"x-a": "€"}, add={}, remove=())
    routes: list[Any] = []
    for item in snapshot.table.routes:
        rules = item.policies.headers.model_copy(update={"request": edits})
        routes.append(item.model_copy(update={"policies": item.policies.model_copy(update={"headers": rules})}))
    table = snapshot.table.model_copy(update={"routes": tuple(routes)})
    return snapshot.model_copy(update={"table": table, "routes_version": "unservable"})


async def test_a_snapshot_that_cannot_be_compiled_is_refused_whole(pair: Gateway) -> None:
    async with upstream() as app:
        await pair.serve(single(app.port))
        with pytest.raises(SnapshotRejected) as rejected:
            await pair.supervisor.apply(unservable())
        assert len(rejected.value.problems) == 2
        assert any("worse" in problem["reason"] for problem in rejected.value.problems)
        for _ in range(10):
            assert (await ask(pair.address, get())).status == 200
        os.kill(victim := pair.pids()[0], signal.SIGKILL)
        await until_running(pair, 2, without=victim)  # the successor starts with the good one
        for _ in range(10):
            assert (await ask(pair.address, get())).status == 200


async def test_a_first_snapshot_that_cannot_be_compiled_is_refused_as_well() -> None:
    supervisor = Supervisor("127.0.0.1", 0, 1)
    async with supervisor.run():
        with pytest.raises(SnapshotRejected) as rejected:
            await supervisor.apply(unservable())
        assert len(rejected.value.problems) == 2
        assert supervisor.workers() == []
        await supervisor.apply(snapshot_of({}))
        assert (await ask(supervisor.address, get())).status == 404


@pytest.mark.parametrize("reuse", [False, True])
def test_an_address_in_use_is_a_configuration_error(reuse: bool) -> None:
    with socket.socket() as other:
        if reuse:  # even if the other would share it
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=str(port)):
            Supervisor("127.0.0.1", port, 2)


async def test_a_gateway_that_stops_finishes_what_is_in_flight_and_ends_its_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor_module, "DRAIN_S", 10.0)  # a tenth of which idle connections are kept
    go_on = asyncio.Event()

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")
        await go_on.wait()
        await conversation.send(b"world")

    async with upstream(script) as app, asyncio.TaskGroup() as group:
        host = Stoppable(single(app.port))
        running_task = group.create_task(host.run())
        gateway = await host.started()
        workers = [psutil.Process(pid) for pid in gateway.pids()]
        async with connected(gateway.address) as idle, connected(gateway.address) as busy:
            await busy.send(get())
            assert (await busy.head()).status == 200
            started = time.monotonic()
            host.stop()
            assert await idle.is_closed()
            go_on.set()
            assert await busy.exactly(10) == b"helloworld"
            await running_task
            assert time.monotonic() - started < 8
        assert alive(workers) == []


async def test_a_gateway_that_stops_lets_a_slow_reader_have_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "DRAIN_S", 8.0)
    body = b"x" * 200_000
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    async with upstream(answer) as app, asyncio.TaskGroup() as group:
        host = Stoppable(single(app.port))
        group.create_task(host.run())
        gateway = await host.started()
        async with connected(gateway.address, window=4096) as client:
            await client.send(get("/", "connection: close"))
            assert (await client.head()).status == 200
            host.stop()
            await asyncio.sleep(1)  # longer than idle connections are waited for
            assert len(await client.exactly(len(body))) == len(body)


async def test_requests_that_do_not_end_do_not_hold_up_the_end_of_a_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "DRAIN_S", 0.3)

    async def script(conversation: Conversation) -> None:
        await conversation.until_closed()

    async def at_once() -> bool:
        async with upstream(script) as app:
            async with running_gateway(single(app.port)) as gateway:
                workers = [psutil.Process(pid) for pid in gateway.pids()]
                client = await connect(gateway.address)
                await client.send(get())
                await wait_until(lambda: bool(app.conversations))
                started = unhindered_s()
            took = unhindered_s() - started
            assert alive(workers) == []
            await client.aclose()
            return took < 1.5

    await wait_until(at_once, what="a gateway that ends although a request does not")


PARENT = """
import asyncio, json, sys
import uvloop
from toska_gateway.supervisor import Supervisor
from toska_tests.gateways import snapshot_of

async def main():
    supervisor = Supervisor("127.0.0.1", int(sys.argv[1]), 2)
    async with supervisor.run():
        await supervisor.apply(snapshot_of({}))
        while len([w for w in supervisor.workers() if w.state == "running"]) < 2:
            await asyncio.sleep(0.01)
        print(json.dumps([w.pid for w in supervisor.workers()]), flush=True)
        await asyncio.sleep(60)

uvloop.run(main())
"""


async def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    port = free_port()
    script = tmp_path / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    path = os.pathsep.join([str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    with running([sys.executable, script, str(port)], tmp_path, environment={"PYTHONPATH": path}) as parent:
        line = next(line for line in (await lines(parent)) if line.startswith("["))
        workers = [psutil.Process(pid) for pid in json.loads(line)]
        assert len(alive(workers)) == 2
        assert (await ask(("127.0.0.1", port), get())).status == 404
        parent.send(signal.SIGKILL)
        await wait_until(lambda: alive(workers) == [])
        with pytest.raises(ConnectionRefusedError):
            await ask(("127.0.0.1", port), get())


async def lines(parent: Any) -> list[str]:
    """The parent's output once it has said which processes its workers are."""
    await wait_until(lambda: "\n[" in "\n" + parent.stdout and parent.stdout.endswith("\n"), what="the parent speaks")
    return parent.stdout.splitlines()


async def test_a_worker_loads_no_framework(tmp_path: Path) -> None:
    program = (
        "import sys, time\nstarted = time.process_time()\nimport toska_gateway.worker.process\n"
        "spent = time.process_time() - started\n"
        "heavy = {'pydantic', 'fastapi', 'starlette', 'structlog', 'ruamel', 'anyio', 'httpx', 'aiohttp', 'yaml'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}), spent < 1)\n"
    )
    with running([sys.executable, "-c", program], tmp_path) as worker:
        assert await worker.exit_code() == 0
        assert worker.stdout == "[] True\n"
