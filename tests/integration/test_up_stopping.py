"""How a mesh ends: in time, with nothing left, whatever is still open."""

import os
import signal
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import psutil
import pytest
from toska_cli.host import _WITHDRAWALS_WITHIN_S  # pyright: ignore[reportPrivateUsage]
from toska_tests import echo_app
from toska_tests.clients import http_client
from toska_tests.meshes import TOSKA, RunningMesh, joined_app, toska_up
from toska_tests.programs import alive, running
from toska_tests.requests import open_requests
from toska_tests.waiting import unhindered_s, wait_until

PROMISED_S = 3.0
STARVED_S = 1.0
"""Of that, what a mesh has at least to itself where its machine is to blame for one that does not stop in time."""
SEVERAL_S = 120.0
"""For several meshes, where a machine that stands still has one stop later than it is promised."""

pytestmark = pytest.mark.alone


def was_given_up(mesh: RunningMesh, code: int) -> bool:
    """Whether it ended what did not stop in the time that it promises; anything else is an error."""
    given_up = code == 1 and "not everything stopped within" in mesh.program.stderr
    assert code == 0 or given_up, mesh.program.stderr
    return given_up


def _family(mesh: RunningMesh) -> list[psutil.Process]:
    family = mesh.program.descendants()
    assert len(family) >= 2, "a mesh has at least its workers"
    return family


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
async def test_a_signal_stops_every_process_and_takes_mesh_json_back(tmp_path: Path, number: signal.Signals) -> None:
    async def stops() -> bool:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        async with toska_up(folder) as mesh:
            family = _family(mesh)
            assert len(list(folder.rglob("mesh.json"))) == 2
            began, unhindered = time.monotonic(), unhindered_s()
            os.killpg(mesh.program.pid, number)
            code = await mesh.program.exit_code(within=SEVERAL_S)
            took, unhindered = time.monotonic() - began, unhindered_s() - unhindered
            assert not alive(family)
            assert not list(folder.rglob("mesh.json"))
            if was_given_up(mesh, code):
                return unhindered < STARVED_S
            lines = [line for line in mesh.program.stderr.splitlines() if "no answer within" not in line]
            lines.remove("toska: stopping; again to stop at once")
            # Discovery waits only so long for the others, who then find that it has gone.
            assert not lines or took >= _WITHDRAWALS_WITHIN_S
            return unhindered < PROMISED_S

    await wait_until(stops, within=SEVERAL_S, what="a mesh that stops in time")


async def test_blocked_watchers_and_open_streams_do_not_hold_it_up(tmp_path: Path) -> None:
    async def stops() -> bool:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        async with toska_up(folder, "--no-examples") as mesh, joined_app(mesh, echo_app, "echo"):
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
                began = unhindered_s()
                mesh.program.interrupt()
                code = await mesh.program.exit_code(within=SEVERAL_S)
                took = unhindered_s() - began
                assert not alive(family)
                if was_given_up(mesh, code):
                    return took < STARVED_S
                return took < PROMISED_S

    await wait_until(stops, within=SEVERAL_S, what="a mesh that stops in time")


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async def ends_at_once() -> bool:
        async with (
            toska_up(Path(tempfile.mkdtemp(dir=tmp_path)), "--no-examples") as mesh,
            joined_app(mesh, echo_app, "echo"),
            open_requests(f"{mesh.gateway}/echo/stream", 1) as streams,
        ):
            assert b"200" in await streams[0].receive(64)
            family = _family(mesh)
            mesh.program.interrupt()
            await wait_until(lambda: "stopping; again to stop" in mesh.program.stderr, what="the first is heard")
            began = unhindered_s()
            mesh.program.interrupt()
            await wait_until(lambda: mesh.program.returncode is not None)
            took = unhindered_s() - began
            if mesh.program.returncode != 130:
                assert mesh.program.returncode == 0  # it had stopped before it heard the second
                return False
            await wait_until(lambda: not alive(family), what="nobody left")
            return took < 1

    await wait_until(ends_at_once, within=SEVERAL_S, what="a mesh that ends at once")


async def test_toska_down_stops_the_mesh_of_this_folder(tmp_path: Path) -> None:
    async with toska_up(tmp_path, "--no-examples") as mesh:
        with running([TOSKA, "down"], tmp_path, environment=mesh.environment) as down:
            assert await down.exit_code() == 0
            assert down.stdout == f"stopped the mesh on {mesh.home}\n"
        assert await mesh.program.exit_code() == 0
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
    await wait_until(lambda: not alive(family), what="nobody left")


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
