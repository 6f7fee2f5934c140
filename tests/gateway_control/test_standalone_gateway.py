"""A gateway that serves a routing file with no other process: nothing reserved, and a bad file changes nothing."""

import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from toska_common.errors import ConfigurationError
from toska_gateway.app import create_service
from toska_gateway.settings import Settings
from toska_tests.control import ControlMesh, control_mesh
from toska_tests.meshes import PYTHON, TOSKA
from toska_tests.ports import free_ports
from toska_tests.programs import running
from toska_tests.waiting import wait_until


def routes(**bodies: str) -> str:
    lines = [
        f"  - {{name: {name}, match: {{path_prefix: /{name}}}, respond: {{body: {body}}}}}"
        for name, body in bodies.items()
    ]
    return "\n".join(["routes:", *lines])


BAD = """\
clusters:
  shop: {service: shop}
routes:
  - {name: one, match: {path_prefix: /one}, respond: {body: "1"}}
  - {name: two, match: {path_prefix: /two}, to: nowhere}
  - {name: three, match: {path: /three}, respond: {}, polices: {}}
"""
PROBLEMS = {
    ("clusters.shop.service", 2),
    ("routes[1].to", 5),
    ("routes[2].polices", 6),
}


@pytest.fixture
async def gateway(home: Path) -> AsyncGenerator[ControlMesh]:
    (home / "mesh.yaml").write_text(routes(one="first", docs="mine", api="mine"))
    async with control_mesh(home, "gateway", routes=home / "mesh.yaml") as mesh:
        yield mesh


async def overview(gateway: ControlMesh) -> dict[str, Any]:
    return (await gateway.get(f"{gateway.admin}/api/v1/gateway")).json()


async def reload(gateway: ControlMesh) -> Any:
    return await gateway.http.post(f"{gateway.admin}/api/v1/gateway/reload", headers=gateway.bearer())


async def test_it_serves_the_file_and_reserves_nothing(gateway: ControlMesh) -> None:
    assert (await gateway.get(f"{gateway.data}/one")).text == "first"
    for path in ("/docs", "/api/v1/services"):
        assert (await gateway.get(f"{gateway.data}{path}")).text == "mine"
    for path in ("/openapi.json", "/problems", "/metrics"):
        assert (await gateway.get(f"{gateway.data}{path}")).headers["x-toska-error"] == "no-route"
    told = await overview(gateway)
    assert (told["source"], told["router"], told["file"]["problems"]) == ("file", None, [])
    assert (await gateway.get(f"{gateway.admin}/health/ready")).status_code == 200
    assert (await gateway.get(f"{gateway.admin}/docs")).status_code == 200


async def test_a_changed_file_is_served_by_itself_also_when_it_is_swapped(gateway: ControlMesh) -> None:
    file = gateway.home / "mesh.yaml"
    file.write_text(routes(one="second!"))
    await wait_until(lambda: _says(gateway, "/one", "second!"))
    (new := gateway.home / "new.yaml").write_text(routes(one="third"))
    new.replace(file)
    await wait_until(lambda: _says(gateway, "/one", "third"))


async def _says(gateway: ControlMesh, path: str, body: str) -> bool:
    return (await gateway.get(f"{gateway.data}{path}")).text == body


async def test_a_bad_file_is_refused_whole_with_every_line_and_the_last_good_one_stays(gateway: ControlMesh) -> None:
    before = await overview(gateway)
    (gateway.home / "mesh.yaml").write_text(BAD)
    refused = await reload(gateway)
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/invalid-routing")
    assert {(item["field"], item["line"]) for item in refused.json()["problems"]} == PROBLEMS
    assert (await gateway.get(f"{gateway.data}/one")).text == "first"
    told = await overview(gateway)
    assert told["version"] == before["version"]
    assert {(item["field"], item["line"]) for item in told["file"]["problems"]} == PROBLEMS

    (gateway.home / "mesh.yaml").unlink()
    assert "cannot be read" in (await reload(gateway)).json()["detail"]
    (gateway.home / "mesh.yaml").write_text(routes(one="again"))
    accepted = (await reload(gateway)).json()
    assert accepted == {"version": (await overview(gateway))["version"], "changed": True}
    assert (await reload(gateway)).json()["changed"] is False
    assert (await overview(gateway))["file"]["problems"] == []
    assert (await gateway.get(f"{gateway.data}/one")).text == "again"


async def test_a_reload_needs_the_admin_token(gateway: ControlMesh) -> None:
    url = f"{gateway.admin}/api/v1/gateway/reload"
    assert (await gateway.http.post(url)).status_code == 401
    assert (await gateway.http.post(url, headers=gateway.bearer("join"))).status_code == 403


async def test_renewing_workers_needs_the_admin_token(gateway: ControlMesh) -> None:
    url = f"{gateway.admin}/api/v1/gateway/workers/reload"
    assert (await gateway.http.post(url)).status_code == 401
    assert (await gateway.http.post(url, headers=gateway.bearer("join"))).status_code == 403
    before = {worker["pid"] for worker in (await gateway.get(f"{gateway.admin}/api/v1/gateway/workers")).json()}
    answer = await gateway.http.post(url, headers=gateway.bearer())
    assert answer.status_code == 200
    assert [worker["state"] for worker in answer.json()] == ["running"] * len(answer.json())
    assert not before & {worker["pid"] for worker in answer.json()}


async def pids(client: ControlMesh, port: int) -> set[int]:
    """The running workers of the gateway whose admin API is on this port."""
    workers = (await client.get(f"http://127.0.0.1:{port}/api/v1/gateway/workers")).json()
    return {worker["pid"] for worker in workers if worker["state"] == "running"}


async def renewed(client: ControlMesh, port: int, before: set[int]) -> bool:
    """Whether workers run, and none of those before."""
    now = await pids(client, port)
    return bool(now) and not now & before


def test_a_file_that_is_bad_at_the_start_keeps_the_gateway_from_starting_and_every_line_is_named(home: Path) -> None:
    (file := home / "mesh.yaml").write_text(BAD)
    with pytest.raises(ConfigurationError) as caught:
        create_service(Settings(home=home, routes=file))
    for field, line in PROBLEMS:
        assert f"line {line}: {field}" in str(caught.value)


async def test_as_a_process_it_reloads_on_sighup_and_ends_with_2_for_what_cannot_be(home: Path, tmp_path: Path) -> None:
    (file := tmp_path / "mesh.yaml").write_text(routes(one="first"))
    first = free_ports(2)
    environment = {
        "TOSKA_HOME": str(home),
        "TOSKA_GATEWAY_PORT": str(first),
        "TOSKA_GATEWAY_ADMIN_PORT": str(first + 1),
        "TOSKA_GATEWAY_WORKERS": "1",
        "TOSKA_GATEWAY_ROUTES": str(file),
    }
    command = [PYTHON, "-m", "toska_gateway"]
    async with control_mesh(home) as client:
        with running(command, tmp_path, environment=environment) as program:
            await client.until_answered(f"http://127.0.0.1:{first}/one")
            # Same size and time of change, so that only the signal can tell.
            stat = file.stat()
            file.write_text(routes(one="other"))
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))

            async def other() -> bool:
                program.send(signal.SIGHUP)
                return (await client.get(f"http://127.0.0.1:{first}/one")).text == "other"

            before = await pids(client, first + 1)
            await wait_until(other, every=0.1)
            await wait_until(lambda: renewed(client, first + 1, before), what="the signal renewed the workers too")
            before = await pids(client, first + 1)
            command_line = [TOSKA, "reload", "--home", str(home), "--admin", f"http://127.0.0.1:{first + 1}"]
            with running(command_line, tmp_path) as reload:
                assert await reload.exit_code() == 0
                assert reload.stdout.startswith("worker ")
            assert await renewed(client, first + 1, before)
            # The admin port differs, so that it is the data listener's that is found taken, by a part that opens late.
            with running(command, tmp_path, environment={**environment, "TOSKA_GATEWAY_ADMIN_PORT": "0"}) as second:
                assert await second.exit_code() == 2
                assert second.stderr.splitlines()[-1].startswith(f"toska-gateway: cannot listen on 127.0.0.1:{first}:")
            program.interrupt()
            assert await program.exit_code() == 0
