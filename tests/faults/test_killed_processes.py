"""A replica or a worker is killed under load, and nobody notices."""

from collections.abc import AsyncGenerator

import psutil
import pytest
from toska_tests.clients import http_client
from toska_tests.meshes import RunningMesh, listener_of, toska_up
from toska_tests.requests import Load, load
from toska_tests.waiting import wait_until


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningMesh]:
    async with toska_up(tmp_path_factory.mktemp("mesh"), "--workers", "2") as started:
        yield started


def _replica(mesh: RunningMesh, name: str) -> psutil.Process:
    url = next(part["url"] for part in mesh.line["parts"] if part["name"] == name)
    return listener_of(mesh.program.descendants(), int(url.rpartition(":")[2]))


async def _more(load: Load, count: int) -> None:
    wanted = load.total + count
    await wait_until(lambda: load.total >= wanted, what=f"{count} more requests; so far {load.outcomes}")


@pytest.mark.parametrize(
    "path", ["/payments/fees?amount=10", "/orders/42"], ids=["behind the gateway", "behind the SDK"]
)
async def test_a_killed_replica_costs_no_client_an_error(mesh: RunningMesh, path: str) -> None:
    async with load(mesh.gateway + path, clients=8) as result:
        await _more(result, 100)
        killed = _replica(mesh, "payments-1")
        killed.kill()
        await _more(result, 100)
        await wait_until(lambda: _is_back(mesh, killed.pid), what="the replica is started again")
        await _more(result, 100)
    assert result.failures == {}


async def test_a_killed_worker_is_replaced(mesh: RunningMesh) -> None:
    workers = await _workers(mesh)
    assert len(workers) == 2
    psutil.Process(workers[0]).kill()

    async def is_replaced() -> bool:
        now = await _workers(mesh)
        return len(now) == 2 and workers[0] not in now and workers[1] in now

    await wait_until(is_replaced, what="a new worker beside the old one")
    async with load(f"{mesh.gateway}/payments/fees?amount=10") as result:
        await _more(result, 100)
    assert result.failures == {}


async def _workers(mesh: RunningMesh) -> list[int]:
    async with http_client() as client:
        answer = await client.get(f"{mesh.url('gateway_admin')}/api/v1/gateway")
    return [worker["pid"] for worker in answer.json()["workers"] if worker["state"] == "running"]


def _is_back(mesh: RunningMesh, old: int) -> bool:
    try:
        return _replica(mesh, "payments-1").pid != old
    except AssertionError:
        return False
