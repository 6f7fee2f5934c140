"""Joining: under each way to run an app, what is registered, and when it is taken back."""

import json
import shutil
import signal
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import httpx
import psutil
import pytest
import uvicorn
from fastapi import FastAPI
from structlog.testing import capture_logs
from toska_common import Mesh
from toska_common.clients.consul import ConsulClient, ServiceRegistration, TTLCheck
from toska_common.contracts.offers import decode_offer
from toska_common.errors import ConfigurationError
from toska_common.meshfile import FILE_NAME
from toska_common.routing.offers import read_offer
from toska_tests.clients import http_client
from toska_tests.joined import APPS, FASTAPI, UVICORN, Registry, Served, Stage
from toska_tests.ports import free_port
from toska_tests.registries import consul_agent, wire_to
from toska_tests.waiting import wait_until

SHORT_LEASE = {"TOSKA_LEASE_TTL": "1s"}


async def test_app_is_listed_while_uvicorn_serves_it(stage: Stage) -> None:
    with stage.serve("plain") as shop:
        [entry] = await stage.registry.wait_for("plain", 1)
        service = entry["Service"]
        assert service["ID"] == f"plain-127.0.0.1-{shop.port}"
        assert (service["Address"], service["Port"], service["Tags"]) == ("127.0.0.1", shop.port, ["test"])
        assert service["Meta"] == {
            "team": "shops",
            "toska-expose": "false",
            "toska-openapi": "/openapi.json",
            "toska-version": "1.2.3",
        }
        assert (await shop.get("/server")).json()["port"] == shop.port
        shop.program.send(signal.SIGTERM)
        await stage.registry.wait_for("plain", 0)
        assert await shop.program.exit_code() == -signal.SIGTERM


async def test_app_asks_for_routes_in_its_metadata(stage: Stage) -> None:
    with stage.serve("offering", command=(UVICORN, "offering:app")):
        [entry] = await stage.registry.wait_for("offering", 1)
        [route] = read_offer("offering", decode_offer(entry["Service"]["Meta"]))
        assert (route.name, route.match.path_prefix) == ("auto:offering:slow", "/offering/slow")


def test_routes_that_a_service_may_not_ask_for_are_refused_where_they_are_written() -> None:
    for routes in ([{"name": "all", "match": {"path_prefix": "/"}}], [{"name": "x"}], [{"name": "x", "match": {1, 2}}]):
        with pytest.raises(ConfigurationError, match=r"Mesh\(name='shop'\): routes: "):
            Mesh(FastAPI(), name="shop", routes=routes)


async def test_leaving_app_serves_on_until_its_drain_is_over_or_somebody_insists(stage: Stage) -> None:
    with stage.serve("drained", environment={"TOSKA_DRAIN_DELAY": "60s"}) as shop:
        await stage.registry.wait_for("drained", 1)
        assert (await shop.get("/health/ready")).text == "OK"
        shop.program.send(signal.SIGINT)
        await stage.registry.wait_for("drained", 0)
        assert (await shop.get("/server")).status_code == 200
        ready = await shop.get("/health/ready")
        assert (ready.status_code, ready.text) == (503, "draining")
        assert (await shop.get("/health/live")).text == "OK"
        shop.program.send(signal.SIGINT)
        await shop.program.exit_code()


async def test_workers_of_one_uvicorn_are_one_instance_with_one_set_of_metrics(stage: Stage) -> None:
    with stage.serve("pair", "--workers", "2", environment=SHORT_LEASE) as shop:
        [entry] = await stage.registry.wait_for("pair", 1)
        sales: list[int] = []

        async def both_sold() -> bool:
            async with http_client() as client:
                sales.append((await client.post(f"{shop.url}/sell")).json())
            return len(set(sales)) == 2

        await wait_until(both_sold, what="both workers sold something")
        assert {await _sales(shop) for _ in range(10)} == {(len(sales), len(sales))}

        psutil.Process(sales[0]).kill()
        await _stays_listed(stage.registry, "pair", seconds=2)  # twice its TTL
        assert (await stage.registry.instances("pair"))[0]["Service"]["ID"] == entry["Service"]["ID"]
        # What the dead had counted goes on counting.
        assert await _sales(shop) == (len(sales), len(sales))

        shop.program.send(signal.SIGTERM)
        await stage.registry.wait_for("pair", 0)
        await shop.program.exit_code()


async def test_reloaded_app_is_listed_again(stage: Stage, tmp_path: Path) -> None:
    source = Path(shutil.copy(APPS / "shop_app.py", tmp_path / "reloaded_app.py"))
    command = [UVICORN, "reloaded_app:app", "--reload", "--reload-dir", tmp_path]
    environment = {"PYTHONPATH": str(tmp_path), "TOSKA_DRAIN_DELAY": "60s"}
    with stage.serve("reloaded", command=command, environment=environment) as shop:
        await stage.registry.wait_for("reloaded", 1)
        before = (await shop.get("/server")).json()["pid"]
        source.write_text(source.read_text().replace('"team": "shops"', '"team": "others"'))

        async def is_listed_anew() -> bool:
            found = await stage.registry.instances("reloaded")
            return [entry["Service"]["Meta"]["team"] for entry in found] == ["others"]

        await wait_until(is_listed_anew, what="the reloaded app is listed")
        assert (await shop.get("/server")).json()["pid"] != before
        shop.program.send(signal.SIGTERM)
        await stage.registry.wait_for("reloaded", 0)
        await shop.program.exit_code()


async def test_app_on_every_interface_and_any_port_gives_what_the_registry_can_use(stage: Stage) -> None:
    # `fastapi run` binds 0.0.0.0.
    with stage.serve("everywhere", command=[FASTAPI, "run", APPS / "shop_app.py"], port=0):
        [entry] = await stage.registry.wait_for("everywhere", 1)
        service = entry["Service"]
        assert service["Address"] == "127.0.0.1"
        async with http_client() as client:
            answer = await client.get(f"http://127.0.0.1:{service['Port']}/server")
        assert answer.json()["port"] == service["Port"]


async def test_app_says_what_it_was_told_to_say(stage: Stage) -> None:
    environment = {"TOSKA_ADVERTISE_ADDRESS": "shop.example", "TOSKA_ADVERTISE_PORT": "443", "TOSKA_EXPOSE": "true"}
    with stage.serve("advertised", environment=environment):
        [entry] = await stage.registry.wait_for("advertised", 1)
        service = entry["Service"]
        assert (service["ID"], service["Address"], service["Port"]) == (
            "advertised-shop.example-443",
            "shop.example",
            443,
        )
        assert service["Meta"]["toska-expose"] == "true"


async def test_app_on_a_unix_socket_serves_without_joining(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "shop.sock"
    with stage.serve("hidden", "--uds", str(path)) as shop:
        await wait_until(lambda: "mesh_not_joined" in shop.program.stderr, what="it says why it does not join")
        assert "Unix socket" in shop.program.stderr
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as client:
            assert (await client.get("http://shop/items/1")).status_code == 200
        assert await stage.registry.instances("hidden") == []


async def test_app_of_a_server_in_a_thread_joins_and_leaves(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    # No signal reaches a thread; the server is told to stop by its flag.
    monkeypatch.setenv("TOSKA_JOIN_TOKEN", stage.registry.join_token)
    app = FastAPI()
    Mesh(app, name="threaded", registry_url=stage.registry.url, drain_delay=timedelta())
    async with in_a_thread(app) as server:
        await stage.registry.wait_for("threaded", 1)
        server.should_exit = True
        await stage.registry.wait_for("threaded", 0)


async def test_app_that_is_told_not_to_join_does_not(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOSKA_JOIN", "false")
    app = FastAPI()
    Mesh(app, name="private", registry_url=stage.registry.url)
    with capture_logs() as logs:
        async with in_a_thread(app) as server, http_client() as client:
            await wait_until(lambda: bool(logs), what="it says that it does not join")
            assert [(entry["event"], entry["reason"]) for entry in logs] == [("mesh_not_joined", "TOSKA_JOIN is off")]
            port = server.servers[0].sockets[0].getsockname()[1]
            assert (await client.get(f"http://127.0.0.1:{port}/health/ready")).text == "OK"
            assert await stage.registry.instances("private") == []


@asynccontextmanager
async def in_a_thread(app: FastAPI) -> AsyncGenerator[uvicorn.Server]:
    """Serve `app` in a thread of this process until the block ends."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.should_exit = True
        with anyio.fail_after(20):
            await anyio.to_thread.run_sync(thread.join)


async def test_app_with_a_wrong_token_says_what_to_do_and_serves(stage: Stage) -> None:
    environment = {"TOSKA_JOIN_TOKEN": "toska_join_of_another_mesh_entirely"}
    with stage.serve("stranger", environment=environment) as shop:
        await wait_until(lambda: "registration_refused" in shop.program.stderr, what="it says that it was refused")
        assert "TOSKA_JOIN_TOKEN_FILE" in shop.program.stderr
        assert "of_another_mesh" not in shop.program.stderr
        assert (await shop.get("/server")).status_code == 200


async def test_app_finds_the_mesh_of_its_machine_from_any_folder_and_follows_it(stage: Stage, tmp_path: Path) -> None:
    environment = {"TOSKA_REGISTRY_URL": "", "TOSKA_JOIN_TOKEN_FILE": "", "TOSKA_HOME": "", **SHORT_LEASE}
    async with wire_to(stage.registry.url) as wire:
        _write_mesh_file(tmp_path, stage.registry, wire.url)
        with stage.serve("finder", environment=environment):
            [entry] = await stage.registry.wait_for("finder", 1)
            assert entry["Service"]["Meta"]["toska-expose"] == "true"
            await wire.cut()
            await _forget(stage.registry, entry["Service"]["ID"])
            _write_mesh_file(tmp_path, stage.registry, stage.registry.url)
            await stage.registry.wait_for("finder", 1)


async def test_app_joins_when_its_registry_comes_and_again_when_it_forgot(stage: Stage) -> None:
    async with wire_to(stage.registry.url) as wire:
        await wire.cut()
        with stage.serve("patient", environment={"TOSKA_REGISTRY_URL": wire.url, **SHORT_LEASE}) as shop:
            await wait_until(lambda: "registry_unreachable" in shop.program.stderr, what="it says that nobody is there")
            assert (await shop.get("/server")).status_code == 200
            wire.mend()
            [entry] = await stage.registry.wait_for("patient", 1)
            await wire.cut()
            assert (await shop.get("/server")).status_code == 200
            await _forget(stage.registry, entry["Service"]["ID"])
            wire.mend()
            await stage.registry.wait_for("patient", 1)
            await wire.cut()
            shop.program.send(signal.SIGTERM)
            await shop.program.exit_code()


def _write_mesh_file(folder: Path, registry: Registry, url: str) -> None:
    mesh = {
        "home": str(registry.home),
        "pid": 1,
        "started_at": "2026-01-01T00:00:00Z",
        "urls": {"registry": url},
        "expose_by_default": True,
    }
    path = folder / "state" / "toska" / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(mesh))


async def _forget(registry: Registry, instance_id: str) -> None:
    async with ConsulClient.open(registry.url, token=registry.join_token) as consul:
        await consul.deregister_service(instance_id)


async def test_app_joins_a_real_consul_in_place_of_its_predecessor_and_leaves_it(tmp_path: Path) -> None:
    with consul_agent(tmp_path) as agent:
        await agent.wait_until_ready()
        stage = Stage(tmp_path, Registry(tmp_path))
        environment = {"TOSKA_REGISTRY_URL": agent.url.replace("http:", "consul:"), **SHORT_LEASE}
        port = free_port()
        check = TTLCheck(timedelta(minutes=1))
        async with ConsulClient.open(agent.url) as consul:
            # Somebody died on this port, and its lease has not lapsed yet.
            await consul.register_service(
                ServiceRegistration(name="former", address="127.0.0.1", port=port, checks=(check,))
            )
            with stage.serve("consuled", environment=environment, port=port) as shop:
                await wait_until(lambda: _is_passing(consul, "consuled"), what="consuled is listed")
                assert set(await consul.agent_services()) == {f"consuled-127.0.0.1-{port}"}
                shop.program.send(signal.SIGTERM)
                await shop.program.exit_code()
            assert await consul.agent_services() == {}


async def _is_passing(consul: ConsulClient, service: str) -> bool:
    entries, _ = await consul.health_service(service, passing=True)
    return len(entries) == 1


async def _stays_listed(registry: Registry, service: str, *, seconds: float) -> None:
    """That it is listed for so long without a gap; one that its machine took for longer than its TTL comes back."""

    async def is_gone() -> bool:
        return await registry.instances(service) == []

    async def stays() -> bool:
        await registry.wait_for(service, 1)
        try:
            await wait_until(is_gone, within=seconds, every=0.1)
        except AssertionError:
            return True
        return False

    await wait_until(stays, what=f"{service} is listed for {seconds} s")


async def _sales(shop: Served) -> tuple[int, int]:
    lines = (await shop.get("/metrics")).text.splitlines()
    own = next(line for line in lines if line.startswith("shop_sold_total"))
    http = next(line for line in lines if line.startswith("toska_http_requests_total") and 'route="/sell"' in line)
    return int(float(own.split()[-1])), int(float(http.split()[-1]))
