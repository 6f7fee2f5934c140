"""How a mesh ends: in time, with nothing left, whatever is still open."""

import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import psutil
import pytest
from toska_tests import echo_app
from toska_tests.clients import http_client
from toska_tests.meshes import TOSKA, RunningMesh, joined_app, toska_up
from toska_tests.programs import alive, running
from toska_tests.requests import open_requests
from toska_tests.waiting import wait_until

PROMISED_S = 3.0

pytestmark = pytest.mark.alone


def _family(mesh: RunningMesh) -> list[psutil.Process]:
    family = mesh.program.descendants()
    assert len(family) >= 2, "a mesh has at least its workers"
    return family


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
async def test_a_signal_stops_every_process_and_takes_mesh_json_back(tmp_path: Path, number: signal.Signals) -> None:
    async with toska_up(tmp_path) as mesh:
        family = _family(mesh)
        assert len(list(tmp_path.rglob("mesh.json"))) == 2
        os.killpg(mesh.program.pid, number)
        assert await mesh.program.exit_code(within=PROMISED_S) == 0
        assert not alive(family)
        assert not list(tmp_path.rglob("mesh.json"))
        assert mesh.program.stderr == "toska: stopping; again to stop at once\n"


async def test_blocked_watchers_and_open_streams_do_not_hold_it_up(tmp_path: Path) -> None:
    async with toska_up(tmp_path, "--no-examples") as mesh, joined_app(mesh, echo_app, "echo"):
        async with http_client() as client:
            answer = await client.get(f"{mesh.url('registry')}/v1/health/service/nobody")
        index = answer.headers["x-consul-index"]
        watch = f"{mesh.url('registry')}/v1/health/service/nobody?index={index}&wait=5m"
        async with (
            open_requests(watch, 1000) as watchers,
            open_requests(f"{mesh.gateway}/echo/stream", 20) as streams,
        ):
            for stream in streams:
                assert b"200" in await stream.receive(64)
            assert len(watchers) == 1000
            family = _family(mesh)
            mesh.program.interrupt()
            assert await mesh.program.exit_code(within=PROMISED_S) == 0
            assert not alive(family)


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async with (
        toska_up(tmp_path, "--no-examples") as mesh,
        joined_app(mesh, echo_app, "echo"),
        open_requests(f"{mesh.gateway}/echo/stream", 1) as streams,
    ):
        assert b"200" in await streams[0].receive(64)
        family = _family(mesh)
        mesh.program.interrupt()
        await wait_until(lambda: "stopping; again to stop at once" in mesh.program.stderr, what="the first is heard")
        mesh.program.interrupt()
        took = await wait_until(lambda: mesh.program.returncode is not None, within=PROMISED_S)
        assert took < 1
        assert mesh.program.returncode == 130
        await wait_until(lambda: not alive(family), within=1, what="nobody left")


async def test_toska_down_stops_the_mesh_of_this_folder(tmp_path: Path) -> None:
    async with toska_up(tmp_path, "--no-examples") as mesh:
        with running([TOSKA, "down"], tmp_path, environment=mesh.environment) as down:
            assert await down.exit_code() == 0
            assert down.stdout == f"stopped the mesh on {mesh.home}\n"
        assert await mesh.program.exit_code(within=1) == 0
        with running([TOSKA, "down"], tmp_path, environment=mesh.environment) as down:
            assert await down.exit_code() == 2
            assert "no mesh runs here; start one with `toska up`" in down.stderr


# After kill -9, in this order, since the last one starts a mesh where one was killed.


@pytest.fixture(scope="module")
async def killed(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[tuple[RunningMesh, list[psutil.Process]]]:
    """A mesh whose host was killed, and who belonged to it."""
    async with toska_up(tmp_path_factory.mktemp("killed")) as mesh:
        family = _family(mesh)
        mesh.program.send(signal.SIGKILL)
        yield mesh, family


async def test_children_end_when_the_host_is_killed(killed: tuple[RunningMesh, list[psutil.Process]]) -> None:
    _, family = killed
    await wait_until(lambda: not alive(family), within=PROMISED_S, what="nobody left")


async def test_toska_down_leaves_a_stranger_alone_that_got_the_process_id_of_a_dead_mesh(
    killed: tuple[RunningMesh, list[psutil.Process]],
) -> None:
    mesh, _ = killed
    await mesh.program.exit_code()
    with running([TOSKA, "down"], mesh.folder, environment=mesh.environment) as down:
        assert await down.exit_code() == 2
        assert f"the mesh on {mesh.home} has ended" in down.stderr


async def test_a_killed_mesh_can_be_started_again_on_its_ports_and_home(
    killed: tuple[RunningMesh, list[psutil.Process]],
) -> None:
    mesh, family = killed
    await wait_until(lambda: not alive(family), what="nobody left")
    first = mesh.gateway.rpartition(":")[2]
    command = [TOSKA, "up", "--json", "--no-examples", "--ports-from", first]
    with running(command, mesh.folder, environment=mesh.environment) as again:
        assert f":{first}" in await again.line()
