"""One process at a time: `toska run` and `toska gateway`."""

import asyncio
import shutil
import signal
import socket
from pathlib import Path

import psutil
import pytest
from toska_tests import echo_app
from toska_tests.clients import http_client
from toska_tests.meshes import TOSKA, answers, surroundings
from toska_tests.ports import free_port, free_ports
from toska_tests.programs import Program, alive, running
from toska_tests.waiting import wait_until

ROUTES = """
clusters:
  echo: {endpoints: [{address: 127.0.0.1, port: PORT}]}
routes:
  - {name: echo, match: {path_prefix: /api}, to: echo, strip_prefix: true}
"""


def _toska(folder: Path, *arguments: str | Path, **environment: str):
    return running([TOSKA, *arguments], folder, environment={**surroundings(folder), **environment})


async def _refusal(program: Program) -> str:
    assert await program.exit_code() == 2
    (line,) = program.stderr.splitlines()
    return line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(Path(echo_app.__file__), tmp_path)
    return tmp_path


async def test_an_app_runs_without_a_mesh_on_a_free_port(folder: Path) -> None:
    with _toska(folder, "run", "echo_app:app", TOSKA_LOG_FORMAT="json") as app:
        process = psutil.Process(app.pid)

        def ports() -> list[int]:
            connections = process.net_connections(kind="tcp")
            return [item.laddr.port for item in connections if item.status == psutil.CONN_LISTEN]

        await wait_until(lambda: bool(ports()), what=f"the app listens; it said {app.stderr}")
        (port,) = ports()
        assert await answers(f"http://127.0.0.1:{port}/pid")
        app.interrupt()
        await app.exit_code()


async def test_the_gateway_alone_serves_a_routing_file(folder: Path) -> None:
    upstream, first = free_port(), free_ports(2)
    (folder / "mesh.yaml").write_text(ROUTES.replace("PORT", str(upstream)))
    listen, admin = f"127.0.0.1:{first}", f"127.0.0.1:{first + 1}"
    command = ("gateway", "--routes", "mesh.yaml", "--listen", listen, "--admin", admin, "--workers", "2")
    with _toska(folder, "run", "echo_app:app", "--port", str(upstream)), _toska(folder, *command) as gateway:
        await wait_until(lambda: answers(f"http://{listen}/api/pid"), what=f"a 200; {gateway.stderr}")
        assert await answers(f"http://{admin}/health/ready")
        # Nothing on the data listener is reserved for the mesh.
        async with http_client() as client:
            for path in ("/docs", "/openapi.json", "/api/v1/routes"):
                assert (await client.get(f"http://{listen}{path}")).status_code == 404, path
        family = gateway.descendants()
        assert len(family) == 2
        gateway.interrupt()
        assert await gateway.exit_code() == 0
        assert not alive(family)


async def test_workers_end_when_their_gateway_is_killed(folder: Path) -> None:
    first = free_ports(2)
    (folder / "mesh.yaml").write_text(ROUTES.replace("PORT", "1"))
    listen, admin = f"127.0.0.1:{first}", f"127.0.0.1:{first + 1}"
    with _toska(folder, "gateway", "--routes", "mesh.yaml", "--listen", listen, "--admin", admin) as gateway:
        await wait_until(lambda: answers(f"http://{admin}/health/ready"), what=gateway.stderr)
        family = gateway.descendants()
        assert family
        gateway.send(signal.SIGKILL)
        await wait_until(lambda: not alive(family), what="no worker left")


@pytest.mark.parametrize(
    ("routes", "problem"),
    [
        (
            "routes:\n  - {name: a, match: {path: /a}, to: nowhere}\n",
            'line 2: routes[0].to: there is no cluster "nowhere"',
        ),
        ("routes:\n  - {name: a, match: {path: /a}, too: b}\n", "line 2: routes[0].too"),
        ("routes: [", "line 1: not YAML"),
    ],
)
async def test_a_wrong_routing_file_is_refused_with_the_place(folder: Path, routes: str, problem: str) -> None:
    (folder / "mesh.yaml").write_text(routes)
    first = free_ports(2)
    command = (
        "gateway",
        "--routes",
        "mesh.yaml",
        "--listen",
        f"127.0.0.1:{first}",
        "--admin",
        f"127.0.0.1:{first + 1}",
    )
    with _toska(folder, *command) as gateway:
        assert await gateway.exit_code() == 2
        head, *problems = gateway.stderr.splitlines()
        assert head == f"toska: the routing file {folder / 'mesh.yaml'} cannot be used:"
        assert any(problem in line for line in problems)


async def test_a_missing_routing_file_is_named(folder: Path) -> None:
    with _toska(folder, "gateway", "--routes", "none.yaml") as gateway:
        assert "none.yaml is not a file" in await _refusal(gateway)


@pytest.mark.parametrize("taken", ["--listen", "--admin"])
async def test_a_taken_address_of_the_gateway_is_named(folder: Path, taken: str) -> None:
    first = free_ports(2)
    (folder / "mesh.yaml").write_text(ROUTES.replace("PORT", "1"))
    port = first if taken == "--listen" else first + 1
    addresses = ("--listen", f"127.0.0.1:{first}", "--admin", f"127.0.0.1:{first + 1}")
    with (
        socket.create_server(("127.0.0.1", port)),
        _toska(folder, "gateway", "--routes", "mesh.yaml", *addresses) as gw,
    ):
        line = await _refusal(gw)
        assert f"127.0.0.1:{port}" in line


async def test_what_cannot_be_run_is_refused_in_one_line(folder: Path) -> None:
    async def refused(target: str, reason: str) -> None:
        with _toska(folder, "run", target) as program:
            line = await _refusal(program)
            assert line.startswith("toska: ")
            assert reason in line

    await asyncio.gather(
        refused(
            "discoveri", "there is no service 'discoveri': say one of discovery, events, router, gateway, or module:app"
        ),
        refused("nowhere:app", 'Could not import module "nowhere"'),
        refused("echo_app:nothing", "nothing"),
    )


async def test_an_address_that_is_none_is_refused(folder: Path) -> None:
    (folder / "mesh.yaml").write_text("routes: []")

    async def refused(address: str) -> None:
        with _toska(folder, "gateway", "--routes", "mesh.yaml", "--listen", address) as program:
            assert f"--listen: {address!r}: write host:port" in await _refusal(program)

    await asyncio.gather(*map(refused, ("8080", "localhost:", ":8080", "127.0.0.1:99999")))


@pytest.mark.parametrize("service", ["discovery", "events", "router", "gateway"])
async def test_a_service_alone_refuses_a_taken_port_in_one_line(folder: Path, service: str) -> None:
    first = free_ports(5)
    ports = {
        "TOSKA_DISCOVERY_PORT": str(first),
        "TOSKA_DISCOVERY_CONSUL_PORT": str(first + 1),
        "TOSKA_DISCOVERY_DNS_PORT": "-1",
        "TOSKA_DISCOVERY_GRPC_PORT": "-1",
        "TOSKA_EVENTS_PORT": str(first),
        "TOSKA_ROUTER_PORT": str(first),
        "TOSKA_GATEWAY_PORT": str(first + 2),
        "TOSKA_GATEWAY_ADMIN_PORT": str(first),
    }
    with socket.create_server(("127.0.0.1", first)), _toska(folder, "run", service, **ports) as program:
        assert f"127.0.0.1:{first}" in await _refusal(program)


async def test_a_service_alone_refuses_a_bad_setting_in_one_line(folder: Path) -> None:
    with _toska(folder, "run", "router", TOSKA_ROUTER_PORT="x") as program:
        assert "TOSKA_ROUTER_PORT" in await _refusal(program)
