"""What a gateway tells of its counts, and `toska top`, against a running gateway of two workers."""

import asyncio
import contextlib
import json
import os
import pty
import struct
import subprocess
import termios
from collections.abc import AsyncGenerator, Generator
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
from toska_common.child_process import start_child
from toska_common.contracts.gateway_stats import GatewayStats
from toska_tests.control import ControlMesh, control_mesh
from toska_tests.gateways import cluster, route
from toska_tests.meshes import TOSKA
from toska_tests.ports import free_port
from toska_tests.programs import finished
from toska_tests.raw_http import Upstream, response, upstream
from toska_tests.waiting import wait_until


@pytest.fixture
async def app() -> AsyncGenerator[Upstream]:
    async with upstream(response(200, body=b"12345")) as app:
        yield app


@pytest.fixture
async def gateway(home: Path, app: Upstream) -> AsyncGenerator[ControlMesh]:
    document = {
        "clusters": {"app": cluster(app.port), "dead": cluster(free_port())},
        "routes": [route("orders", "/orders"), route("broken", "/broken", "dead")],
    }
    (home / "mesh.yaml").write_text(json.dumps(document))
    async with control_mesh(home, "gateway", routes=home / "mesh.yaml", workers=2) as mesh:
        yield mesh


async def stats(gateway: ControlMesh) -> GatewayStats:
    return GatewayStats.model_validate((await gateway.get(f"{gateway.admin}/api/v1/gateway/stats")).json())


async def top(gateway: ControlMesh, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return await finished([TOSKA, "top", *arguments, "--home", str(gateway.home), "--admin", gateway.admin])


@contextlib.asynccontextmanager
async def load(gateway: ControlMesh) -> AsyncGenerator[None]:
    """Requests that succeed and requests that fail, one after the other."""

    async def ask() -> None:
        while True:
            await gateway.get(f"{gateway.data}/orders")
            await gateway.get(f"{gateway.data}/broken")

    asking = asyncio.ensure_future(ask())
    try:
        yield
    finally:
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking


async def test_the_admin_api_tells_counts_of_routes_clusters_and_endpoints(gateway: ControlMesh, app: Upstream) -> None:
    for _ in range(6):
        await gateway.get(f"{gateway.data}/orders")
    await gateway.get(f"{gateway.data}/broken")
    told = await stats(gateway)
    routes = {one.name: one for one in told.routes}
    clusters = {one.name: one for one in told.clusters}
    assert routes["orders"].statuses == {"200": 6}
    assert routes["orders"].sent_bytes == 30
    assert sum(routes["orders"].buckets) == 6
    assert len(routes["orders"].buckets) == len(told.bounds) + 1
    assert sum(routes["broken"].errors.values()) == 1
    assert clusters["app"].attempts == 6
    assert [(one.key, one.classes) for one in clusters["app"].endpoints] == [(f"127.0.0.1:{app.port}", {"2": 6})]
    assert clusters["dead"].connect_failures["refused"] >= 1
    assert told.workers == 2


async def test_top_tells_a_script_what_happened_in_one_interval(gateway: ControlMesh) -> None:
    told: dict[str, Any] = {}

    async def something_happened() -> bool:
        done = await top(gateway, "--once", "--json", "--interval", "0.5")
        assert (done.returncode, done.stderr) == (0, b"")
        told.update(json.loads(done.stdout))
        asked = {one["name"] for one in told["routes"] if one["requests_per_s"]}
        return {"orders", "broken"} <= asked

    async with load(gateway):
        await wait_until(something_happened, what="requests to both in one interval")
    routes = {one["name"]: one for one in told["routes"]}
    assert routes["orders"]["errors_per_s"] == 0
    assert routes["broken"]["errors_per_s"] == pytest.approx(routes["broken"]["requests_per_s"])
    assert 0 < routes["orders"]["latency"]["p50_ms"] <= routes["orders"]["latency"]["p99_ms"] < 10_000
    assert {one["cluster"] for one in told["clusters"]} == {"app", "dead"}
    (endpoint,) = [one for one in told["endpoints"] if one["cluster"] == "app"]
    assert endpoint["attempts_per_s"] > 0
    assert told["workers"] == 2


@pytest.mark.parametrize(("view", "shown"), [("route", "orders"), ("cluster", "dead"), ("endpoint", "app 127.0.0.1:")])
async def test_top_prints_a_table_where_there_is_no_terminal(gateway: ControlMesh, view: str, shown: str) -> None:
    async def shows() -> bool:
        done = await top(gateway, "--by", view, "--interval", "0.3")
        assert (done.returncode, done.stderr) == (0, b"")
        assert "p99 ms" in done.stdout.decode()
        return shown in done.stdout.decode()

    async with load(gateway):
        await wait_until(shows, what=f"{shown} in one interval")


async def test_top_without_a_gateway_says_so_and_fails(home: Path) -> None:
    (home / "admin.token").write_text("toska_admin_x")
    done = await finished([TOSKA, "top", "--once", "--home", str(home), "--admin", f"http://127.0.0.1:{free_port()}"])
    assert done.returncode == 1
    assert b"does not answer" in done.stderr


class Terminal:
    """A terminal with a program in it."""

    def __init__(self, master: int) -> None:
        self._master = master
        self.shown = ""

    def press(self, key: str) -> None:
        os.write(self._master, key.encode())

    async def shows(self, text: str) -> None:
        """Wait until a text is on the screen, counting only what is drawn from now on."""
        self.shown = ""

        def drawn() -> bool:
            with contextlib.suppress(BlockingIOError):
                self.shown += os.read(self._master, 65536).decode(errors="replace")
            return text in self.shown

        try:
            await wait_until(drawn)
        except AssertionError:
            raise AssertionError(f"{text} is not on the screen, but {self.shown[-2000:]!r}") from None


@contextlib.contextmanager
def terminal() -> Generator[tuple[Terminal, int]]:
    """A terminal of 30 lines, and what a program takes for it."""
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 140, 0, 0))
    os.set_blocking(master, False)
    try:
        yield Terminal(master), slave
    finally:
        os.close(master)
        os.close(slave)


async def test_top_follows_on_a_terminal_and_obeys_its_keys(gateway: ControlMesh) -> None:
    command = (TOSKA, "top", "-i", "0.3", "--home", str(gateway.home), "--admin", gateway.admin)
    with terminal() as (screen, slave):
        before = termios.tcgetattr(slave)
        async with load(gateway):
            environment = {**os.environ, "TERM": "xterm"}
            process = start_child(command, stdin=slave, stdout=slave, stderr=slave, environment=environment)
            await screen.shows("orders")
            screen.press("e")
            await screen.shows("app 127.0.0.1:")
            screen.press("c")
            await screen.shows("dead")
            screen.press("q")
            assert await asyncio.wait_for(process.wait(), 20) == 0
        assert termios.tcgetattr(slave)[3] == before[3]


async def test_top_ends_with_its_terminal(gateway: ControlMesh) -> None:
    command = (TOSKA, "top", "-i", "0.2", "--home", str(gateway.home), "--admin", gateway.admin)
    with terminal() as (screen, slave):
        environment = {**os.environ, "TERM": "xterm"}
        process = start_child(command, stdin=slave, stdout=slave, stderr=slave, environment=environment)
        await screen.shows("q quit")
    await asyncio.wait_for(process.wait(), 20)
