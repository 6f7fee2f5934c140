"""The gateway goes on serving while the router and discovery are away, also when it starts while they are."""

import shutil
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from toska_tests import echo_app
from toska_tests.apart import MeshApart
from toska_tests.meshes import answers
from toska_tests.requests import load
from toska_tests.waiting import wait_until


@pytest.fixture
def mesh(tmp_path: Path) -> MeshApart:
    shutil.copy(Path(echo_app.__file__), tmp_path)
    return MeshApart(tmp_path)


@contextmanager
def _control_plane(mesh: MeshApart) -> Generator[None]:
    """Discovery and the router, killed where the block ends."""
    with mesh.service("discovery"), mesh.service("router"):
        yield


async def test_requests_go_on_while_router_and_discovery_are_killed_and_come_back(mesh: MeshApart) -> None:
    url = f"{mesh.gateway}/echo/pid"
    with ExitStack() as stack:
        with _control_plane(mesh):
            gateway = stack.enter_context(mesh.service("gateway"))
            stack.enter_context(mesh.app("echo_app:app"))
            await wait_until(lambda: answers(url), what=f"a route to echo; gateway: {gateway.stderr}")
        async with load(url, clients=4) as before:
            await wait_until(lambda: before.total >= 200, what="requests without a control plane")
        assert before.failures == {}
        with _control_plane(mesh):
            async with load(url, clients=4) as after:
                await mesh.ready("discovery")
                await mesh.ready("router")
                # Back with an empty registry, the router must not take every route away until the apps are back too.
                await wait_until(lambda: _passes(mesh, "echo"), what="echo registers again")
                asked = after.total
                await wait_until(lambda: after.total >= asked + 100, what="requests with it")
            assert after.failures == {}


async def test_a_gateway_that_starts_alone_serves_from_its_stored_snapshot(mesh: MeshApart) -> None:
    url = f"{mesh.gateway}/echo/pid"
    with ExitStack() as stack:
        with _control_plane(mesh), mesh.service("gateway") as gateway:
            stack.enter_context(mesh.app("echo_app:app"))
            await wait_until(lambda: answers(url), what=f"a route to echo; gateway: {gateway.stderr}")
            await wait_until(lambda: _is_stored(mesh, "echo"), what="the snapshot is on disk")
        assert not await answers(url)
        with mesh.service("gateway") as gateway:
            await wait_until(lambda: answers(url), what=f"the stored snapshot; gateway: {gateway.stderr}")


async def test_a_gateway_without_a_snapshot_says_so_and_serves_once_there_is_one(mesh: MeshApart) -> None:
    with mesh.service("gateway"):
        await wait_until(lambda: answers(f"{mesh.gateway_admin}/health/live"), what="the gateway lives")
        assert not await answers(f"{mesh.gateway_admin}/health/ready")
        with _control_plane(mesh):
            await mesh.ready("gateway")


async def _passes(mesh: MeshApart, service: str) -> bool:
    return await mesh.passing(service) > 0


def _is_stored(mesh: MeshApart, service: str) -> bool:
    stored = mesh.folder / ".toska" / "gateway" / "snapshot.json"
    return stored.exists() and f'"{service}"' in stored.read_text()
