"""What `toska up` refuses to start on: one line that says what to do, exit status 2, and nothing left behind."""

import asyncio
import socket
from pathlib import Path

import psutil
from toska_tests.meshes import TOSKA, surroundings, toska_up
from toska_tests.ports import free_ports
from toska_tests.programs import alive, running


async def _refusal(folder: Path, *options: str, environment: dict[str, str] | None = None) -> str:
    """Run `toska up`, see that it refuses cleanly, and return its line."""
    command = [TOSKA, "up", "--json", *options]
    with running(command, folder, environment={**surroundings(folder), **(environment or {})}) as program:
        seen: dict[int, psutil.Process] = {}
        code = await program.exit_code()
        seen.update({process.pid: process for process in program.descendants()})
        assert not alive(list(seen.values()))
        assert (code, program.stdout) == (2, "")
        (line,) = program.stderr.splitlines()
        assert line.startswith("toska: ")
    assert not list(folder.rglob("mesh.json"))
    return line


def _folder(parent: Path, name: str) -> Path:
    """One of several, for programs that run side by side: starting is what takes long, on one processor each."""
    folder = parent / name
    folder.mkdir()
    return folder


async def test_a_port_in_use(tmp_path: Path) -> None:
    async def refused(offset: int) -> None:
        first = free_ports(20)
        with socket.create_server(("127.0.0.1", first + offset)):
            line = await _refusal(_folder(tmp_path, str(offset)), "--ports-from", str(first))
        assert f"port {first + offset} on 127.0.0.1 is in use" in line
        assert "--ports-from" in line

    await asyncio.gather(*map(refused, (0, 1, 3, 12)))


async def test_a_port_shared_with_a_stranger_that_would_let_us(tmp_path: Path) -> None:
    """SO_REUSEPORT on both sides would succeed, and split the requests between the two."""
    first = free_ports(20)
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", first))
        stranger.listen()
        assert "is in use" in await _refusal(tmp_path, "--ports-from", str(first))


async def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = await _refusal(tmp_path, "--ports-from", str(free_ports(20)), "--home", str(tmp_path / "file"))
    assert f"cannot write the state folder {tmp_path / 'file'}" in line
    assert "TOSKA_HOME" in line


async def test_a_home_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = await _refusal(tmp_path, environment={"TOSKA_HOME": str(tmp_path / "file" / "home")})
    assert "cannot write the state folder" in line


async def test_a_bad_setting_is_named_with_its_reason(tmp_path: Path) -> None:
    async def refused(variable: str, value: str, reason: str) -> None:
        line = await _refusal(_folder(tmp_path, variable), environment={variable: value})
        assert variable in line
        assert reason in line

    await asyncio.gather(
        refused("TOSKA_DISCOVERY_PORT", "eighty", "valid integer"),
        refused("TOSKA_GATEWAY_WORKERS", "0", "greater than or equal to 1"),
        refused("TOSKA_REGISTRY_URL", "ftp://here", "embedded://"),
        refused("TOSKA_DISCOVERY_LEASE_TTL", "15", "such as 15s"),
        refused("TOSKA_LOG_LEVEL", "loud", "'debug'"),
        refused("TOSKA_ALLOWED_HOSTS", "mesh.example:80", "write names without ports"),
    )


async def test_a_routing_file_for_the_gateway_alone_is_sent_to_the_router(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("routes: []")
    line = await _refusal(tmp_path, environment={"TOSKA_GATEWAY_ROUTES": str(tmp_path / "mesh.yaml")})
    assert "TOSKA_ROUTER_ROUTES" in line


async def test_a_routing_file_that_is_wrong_is_named_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("routes: [{name: a, match: {path: /a}, to: nowhere}]")
    ports = ("--ports-from", str(free_ports(20)))
    environment = {**surroundings(tmp_path), "TOSKA_ROUTER_ROUTES": str(tmp_path / "mesh.yaml")}
    with running([TOSKA, "up", *ports], tmp_path, environment=environment) as program:
        assert await program.exit_code() == 2
        assert 'line 1: routes[0].to: there is no cluster "nowhere"' in program.stderr
        assert not alive(program.descendants())


async def test_ports_that_do_not_fit(tmp_path: Path) -> None:
    assert "between 1 and" in await _refusal(tmp_path, "--ports-from", "65530")


async def test_a_home_on_which_a_mesh_runs(tmp_path: Path) -> None:
    async with toska_up(tmp_path, "--no-examples") as mesh:
        command = [TOSKA, "up", "--ports-from", str(free_ports(20))]
        with running(command, tmp_path, environment=mesh.environment) as second:
            assert await second.exit_code() == 2
            assert f"already runs on {mesh.home} (pid {mesh.program.pid})" in second.stderr
            assert "toska down" in second.stderr


async def test_a_port_of_another_mesh_names_that_mesh(tmp_path: Path) -> None:
    async with toska_up(tmp_path, "--no-examples") as mesh:
        first = mesh.gateway.rpartition(":")[2]
        command = [TOSKA, "up", "--ports-from", first, "--home", tmp_path / "other"]
        with running(command, tmp_path, environment=mesh.environment) as second:
            assert await second.exit_code() == 2
            assert f"port {first} belongs to the mesh on {mesh.home} (pid {mesh.program.pid})" in second.stderr
