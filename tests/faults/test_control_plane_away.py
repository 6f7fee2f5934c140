"""The gateway goes on serving while the router and discovery are away, also when it starts while they are."""

import shutil
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from toska_tests import echo_app
from toska_tests.apart import MeshApart
from toska_tests.meshes import answers
from toska_tests.requests import load
from toska_tests.waiting import wait_until


@contextmanager
def _control_plane(mesh: MeshApart) -> Generator[None]:
    """Discovery and the router, killed where the block ends."""
    with mesh.service("discovery"), mesh.service("router"):
        yield


async def test_a_gateway_waits_for_its_first_snapshot_and_needs_nobody_from_then_on(tmp_path: Path) -> None:
    shutil.copy(Path(echo_app.__file__), tmp_path)
    mesh = MeshApart(tmp_path)
    url = f"{mesh.gateway}/echo/pid"
    with ExitStack() as stack:
        with mesh.service("gateway") as gateway:
            await wait_until(lambda: answers(f"{mesh.gateway_admin}/health/live"), what="the gateway lives")
            assert not await answers(f"{mesh.gateway_admin}/health/ready")
            with _control_plane(mesh):
                await mesh.ready("gateway")
                stack.enter_context(mesh.app("echo_app:app"))
                await wait_until(lambda: answers(url), what=f"a route to echo; gateway: {gateway.stderr}")
                await wait_until(lambda: _is_stored(mesh, "echo"), what="the snapshot is on disk")
            async with load(url, clients=4) as alone:
                await wait_until(lambda: alone.total >= 200, what="requests without a control plane")
            assert alone.failures == {}
        assert not await answers(url)

        # Started alone, it serves from what it has stored.
        gateway = stack.enter_context(mesh.service("gateway"))
        await wait_until(lambda: answers(url), what=f"the stored snapshot; gateway: {gateway.stderr}")
        with _control_plane(mesh):
            async with load(url, clients=4) as again:
                await mesh.ready("discovery")
                await mesh.ready("router")
                # Back with an empty registry, the router must not take every route away until the apps are back too.
                await wait_until(lambda: _passes(mesh, "echo"), what="echo registers again")
                asked = again.total
                await wait_until(lambda: again.total >= asked + 100, what="requests with it")
            assert again.failures == {}


async def _passes(mesh: MeshApart, service: str) -> bool:
    return await mesh.passing(service) > 0


def _is_stored(mesh: MeshApart, service: str) -> bool:
    stored = mesh.folder / ".toska" / "gateway" / "snapshot.json"
    return stored.exists() and f'"{service}"' in stored.read_text()
