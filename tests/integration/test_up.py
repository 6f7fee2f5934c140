"""One command, a whole mesh: what a user sees and reaches, on one running mesh."""

import json
import re
import resource
import stat
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import dns.asyncresolver
import httpx
import psutil
import pytest
from toska_tests import echo_app
from toska_tests.clients import http_client
from toska_tests.dns_rig import DnsAnswer
from toska_tests.meshes import TOSKA, RunningMesh, joined_app, surroundings, toska_up
from toska_tests.ports import free_ports
from toska_tests.programs import running
from toska_tests.waiting import wait_until


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningMesh]:
    async with toska_up(tmp_path_factory.mktemp("mesh"), "--workers", "2") as started:
        yield started


@pytest.fixture
async def client() -> AsyncGenerator[httpx.AsyncClient]:
    async with http_client() as opened:
        yield opened


async def _run(mesh: RunningMesh, *arguments: str, code: int = 0) -> str:
    """Run `toska` in the folder of the mesh, and return what it prints."""
    with running([TOSKA, *arguments], mesh.folder, environment=mesh.environment) as program:
        assert await program.exit_code() == code, program.stderr
        return program.stdout if code == 0 else program.stderr


def _instance(mesh: RunningMesh, name: str) -> str:
    return next(part["url"] for part in mesh.line["parts"] if part["name"] == name)


async def test_the_ready_line_lists_every_part_and_what_it_says_works(
    mesh: RunningMesh, client: httpx.AsyncClient
) -> None:
    assert set(mesh.line["urls"]) == {
        "gateway",
        "gateway_admin",
        "discovery",
        "discovery_grpc",
        "registry",
        "router",
        "events",
        "events_grpc",
        "dns",
    }
    states = {part["name"]: part["state"] for part in mesh.line["parts"]}
    assert states == {
        "gateway": "ready",
        "gateway admin": "ready",
        "discovery": "ready",
        "discovery grpc": "ready",
        "registry": "ready",
        "router": "ready",
        "events": "ready",
        "events grpc": "ready",
        "dns": "ready",
        "payments-1": "running",
        "payments-2": "running",
        "orders": "running",
    }
    (command,) = mesh.line["try_it"]
    answer = await client.get(command.removeprefix("curl "))
    assert (answer.status_code, answer.json()["id"]) == (200, 42)
    assert mesh.program.stdout.count("\n") == 1


def megabytes(mesh: RunningMesh) -> float:
    """What all processes of the mesh have together, pages that several share counted once (PSS; only Linux tells)."""
    if sys.platform != "linux":
        pytest.skip("only Linux tells what a process has for itself of shared memory")
    family = [psutil.Process(mesh.program.pid), *mesh.program.descendants()]
    return sum(process.memory_full_info().pss for process in family) / 2**20


async def test_the_whole_mesh_with_its_examples_fits_into_256_megabytes(mesh: RunningMesh) -> None:
    assert megabytes(mesh) < 256


async def test_the_graph_shows_what_the_examples_declare_and_what_was_called_through_the_gateway(
    mesh: RunningMesh, client: httpx.AsyncClient
) -> None:
    assert (await client.get(f"{mesh.gateway}/orders/42")).status_code == 200

    async def is_seen() -> bool:
        answer = (await client.get(f"{mesh.gateway}/api/v1/services/graph?name=orders")).json()
        found = [edge for edge in answer["edges"] if (edge["caller"], edge["callee"]) == ("orders", "payments")]
        return bool(found) and found[0]["declared"] and found[0]["observed"] and found[0]["requests"] > 0

    await wait_until(is_seen, what="payments to tell who called it, with its next renewal")
    picture = (await client.get(f"{mesh.gateway}/api/v1/services/graph?format=mermaid")).text
    assert '["orders"]:::passing' in picture


async def test_a_lowered_share_reaches_the_weights_of_the_router(mesh: RunningMesh, client: httpx.AsyncClient) -> None:
    services = f"{mesh.url('discovery')}/api/v1/services"
    join = mesh.authorization("join")
    for number in (1, 2):
        sent: dict[str, Any] = {"service": "lame", "id": f"lame-{number}", "address": "127.0.0.1", "port": number}
        sent["metadata"] = {"toska-expose": "true"}
        assert (await client.post(services, json=sent, headers=join)).status_code == 201

    async def weights() -> list[int]:
        snapshot = (await client.get(f"{mesh.url('router')}/api/v1/snapshot")).json()
        pool: list[dict[str, int]] = snapshot.get("endpoints", {}).get("lame", {}).get("endpoints", [])
        return [endpoint.get("weight", 1) for endpoint in pool]

    async def has(expected: list[int]) -> bool:
        return await weights() == expected

    await wait_until(lambda: has([1, 1]), what="both endpoints")
    answer = await client.post(f"{services}/lame-2/heartbeat", json={"score": 0.1}, headers=join)
    assert answer.status_code == 200
    await wait_until(lambda: has([4, 3]), what="a lower weight of one endpoint")
    for number in (1, 2):
        await client.delete(f"{services}/lame-{number}", headers=join)


async def test_services_are_found_in_dns(mesh: RunningMesh) -> None:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], int(mesh.line["urls"]["dns"].rsplit(":", 1)[1])
    answer = await resolver.resolve("payments.service.consul", "SRV")
    served = {int(value.split()[2]) for value in DnsAnswer(answer.response).values}
    assert served == {int(_instance(mesh, f"payments-{number}").rsplit(":", 1)[1]) for number in (1, 2)}


async def test_the_gateway_shares_requests_among_the_replicas(mesh: RunningMesh, client: httpx.AsyncClient) -> None:
    seen: Counter[int] = Counter()
    for _ in range(20):
        answer = await client.get(f"{mesh.gateway}/payments/fees?amount=10")
        seen[answer.json()["served_by"]["pid"]] += 1
    assert len(seen) == 2
    assert min(seen.values()) >= 5


async def test_an_order_is_paid_through_the_sdk_by_either_replica(mesh: RunningMesh, client: httpx.AsyncClient) -> None:
    ports: set[int] = set()
    for _ in range(10):
        answer = await client.post(f"{mesh.gateway}/orders/", json={"item": "tea", "amount": "3.20"})
        assert answer.status_code == 201
        ports.add(answer.json()["payment"]["served_by"]["port"])
    assert ports == {int(_instance(mesh, name).rpartition(":")[2]) for name in ("payments-1", "payments-2")}


async def test_an_app_joins_with_three_lines_and_leaves_when_it_stops(
    mesh: RunningMesh, client: httpx.AsyncClient
) -> None:
    async with joined_app(mesh, echo_app, "echo") as app:
        assert (await client.get(f"{mesh.gateway}/echo/pid")).json() == app.pid
        app.interrupt()
        assert await app.exit_code() in {0, 130, -2}

    async def is_gone() -> bool:
        return (await client.get(f"{mesh.gateway}/echo/pid")).status_code == 404

    await wait_until(is_gone, what="the route of a service without instances goes")


async def test_mesh_tokens_do_not_reach_a_users_service(mesh: RunningMesh, client: httpx.AsyncClient) -> None:
    tokens = {access: mesh.token(access) for access in ("admin", "join")}
    async with joined_app(mesh, echo_app, "echo"):
        for token in tokens.values():
            given = {"authorization": f"Bearer {token}", "x-consul-token": token, "x-user": "kept"}
            answer = await client.get(f"{mesh.gateway}/echo/headers", headers={**given, "cookie": "session=kept"})
            assert answer.status_code == 200
            received = answer.json()
            assert (received["x-user"], received["cookie"]) == ("kept", "session=kept")
            assert token not in answer.text
        theirs = {"authorization": "Bearer of-their-own"}
        answer = await client.get(f"{mesh.gateway}/echo/headers", headers=theirs)
        assert answer.json()["authorization"] == "Bearer of-their-own"


@pytest.mark.parametrize(
    ("part", "method", "path"),
    [
        ("discovery", "POST", "/api/v1/services"),
        ("discovery", "DELETE", "/api/v1/services/x"),
        ("router", "PUT", "/api/v1/routes/x"),
        ("router", "DELETE", "/api/v1/clusters/x"),
        ("gateway", "POST", "/api/v1/services"),
        ("gateway", "PUT", "/api/v1/routes/x"),
    ],
)
async def test_a_strangers_change_is_refused_as_a_problem(
    mesh: RunningMesh, client: httpx.AsyncClient, part: str, method: str, path: str
) -> None:
    answer = await client.request(method, f"{mesh.url(part)}{path}", json={})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer")
    problem = answer.json()
    assert (problem["type"], problem["status"]) == ("/problems/unauthenticated", 401)
    assert re.fullmatch("[0-9a-f]{32}", problem["trace_id"])


@pytest.mark.parametrize("part", ["router", "gateway"])
async def test_the_join_token_cannot_change_a_route_and_the_admin_token_can(
    mesh: RunningMesh, client: httpx.AsyncClient, part: str
) -> None:
    cluster = f"{mesh.url(part)}/api/v1/clusters/cashiers"
    stored = await client.put(cluster, json={"service": "payments"}, headers=mesh.authorization("admin"))
    assert stored.is_success, stored.text
    url = f"{mesh.url(part)}/api/v1/routes/fees"
    route = {"name": "fees", "match": {"path": "/fees"}, "to": "cashiers"}
    refused = await client.put(url, json=route, headers=mesh.authorization("join"))
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/forbidden")
    assert (await client.get(f"{mesh.gateway}/fees?amount=10")).status_code == 404
    stored = await client.put(url, json=route, headers=mesh.authorization("admin"))
    assert stored.is_success, stored.text

    async def serves() -> bool:
        return (await client.get(f"{mesh.gateway}/fees?amount=10")).status_code == 200

    await wait_until(serves, what="the new route")
    for resource_url in (url, cluster):
        deleted = await client.delete(resource_url, headers=mesh.authorization("admin"))
        assert deleted.is_success, deleted.text

    async def is_gone() -> bool:
        return (await client.get(f"{mesh.gateway}/fees?amount=10")).status_code == 404

    await wait_until(is_gone, what="the route is gone")


async def test_consul_writes_need_a_token_and_consuls_own_words(mesh: RunningMesh, client: httpx.AsyncClient) -> None:
    url = f"{mesh.url('registry')}/v1/kv/settings/color"
    refused = await client.put(url, content="blue")
    assert (refused.status_code, refused.text.strip()) == (403, "Permission denied")
    stored = await client.put(url, content="blue", headers={"x-consul-token": mesh.token("admin")})
    assert (stored.status_code, stored.text.strip()) == (200, "true")


async def test_a_name_that_was_rebound_to_this_machine_is_not_answered(
    mesh: RunningMesh, client: httpx.AsyncClient
) -> None:
    for part in ("discovery", "events", "router", "gateway_admin"):
        answer = await client.get(f"{mesh.url(part)}/openapi.json", headers={"host": "evil.example"})
        assert answer.status_code == 421, part


async def test_one_document_describes_every_service_and_its_operations_work(
    mesh: RunningMesh, client: httpx.AsyncClient
) -> None:
    assert (await client.get(f"{mesh.gateway}/docs")).status_code == 200

    async def described() -> bool:
        paths = (await client.get(f"{mesh.gateway}/openapi.json")).json()["paths"]
        return {"/payments/fees", "/orders/{order_id}", "/api/v1/services", "/api/v1/routes"} <= set(paths)

    await wait_until(described, what="users' services and the mesh's own in one document")


async def test_every_service_answers_on_health_and_metrics(mesh: RunningMesh, client: httpx.AsyncClient) -> None:
    for part in ("discovery", "events", "router", "gateway_admin"):
        for path in ("/health/live", "/health/ready", "/health/startup", "/health/detailed"):
            assert (await client.get(mesh.url(part) + path)).status_code == 200, (part, path)
        metrics = await client.get(f"{mesh.url(part)}/metrics")
        assert metrics.headers["content-type"].startswith("text/plain")
        assert f"toska_{part.removesuffix('_admin')}_" in metrics.text


async def test_the_home_and_what_is_in_it_are_the_users_alone(mesh: RunningMesh) -> None:
    assert stat.S_IMODE(mesh.home.stat().st_mode) == 0o700
    for name in ("admin.token", "join.token", "mesh.json", "lock"):
        assert stat.S_IMODE((mesh.home / name).stat().st_mode) == 0o600, name
    assert mesh.home == mesh.folder / ".toska"


async def test_nothing_listens_beyond_this_machine(mesh: RunningMesh) -> None:
    addresses = {
        connection.laddr.ip
        for process in [psutil.Process(mesh.program.pid), *mesh.program.descendants()]
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    # gRPC listens on a socket of IPv6 that takes IPv4 addresses.
    assert {address.removeprefix("::ffff:") for address in addresses} == {"127.0.0.1"}


async def test_as_many_files_may_be_open_as_the_system_allows(tmp_path: Path) -> None:
    limited = ["sh", "-c", 'ulimit -Sn 512 && exec "$@"', "sh", TOSKA, "up", "--json", "--no-examples"]
    command = [*limited, "--ports-from", str(free_ports(20))]
    with running(command, tmp_path, environment=surroundings(tmp_path)) as program:
        await program.line()
        for process in [psutil.Process(program.pid), *program.descendants()]:
            soft, hard = process.rlimit(resource.RLIMIT_NOFILE)
            assert soft == hard > 512


async def test_a_mesh_whose_routes_were_changed_keeps_within_300_megabytes(
    mesh: RunningMesh, client: httpx.AsyncClient
) -> None:
    """The first change loads what speaks to databases, 20 MiB of the control plane's process."""
    cluster = f"{mesh.url('router')}/api/v1/clusters/kept"
    stored = await client.put(cluster, json={"service": "payments"}, headers=mesh.authorization("admin"))
    assert stored.status_code == 201
    assert megabytes(mesh) < 300


async def test_examples_are_forked_from_a_process_without_threads(mesh: RunningMesh) -> None:
    children = psutil.Process(mesh.program.pid).children()
    (nursery,) = [process for process in children if len(process.children()) == 3]
    assert nursery.num_threads() == 1


async def test_open_shows_the_documentation_in_a_browser(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {shown}\n')
    browser.chmod(0o700)
    first = free_ports(20)
    command = [TOSKA, "up", "--no-examples", "--open", "--ports-from", str(first)]
    with running(command, tmp_path, environment={**surroundings(tmp_path), "BROWSER": str(browser)}):
        await wait_until(lambda: shown.exists() and bool(shown.read_text()), what="the browser is called")
    assert shown.read_text().strip() == f"http://127.0.0.1:{first}/docs"


async def test_on_every_interface_nothing_of_the_mesh_is_open(tmp_path: Path, client: httpx.AsyncClient) -> None:
    async with toska_up(tmp_path, environment={"TOSKA_HOST": "0.0.0.0"}) as exposed:
        assert exposed.line["docs"] is None
        answer = await client.get(exposed.line["try_it"][0].removeprefix("curl "))
        assert answer.status_code == 200
        for part in ("discovery", "events", "router", "gateway_admin"):
            assert (await client.get(f"{exposed.url(part)}/openapi.json")).status_code == 401, part
            allowed = await client.get(f"{exposed.url(part)}/openapi.json", headers=exposed.authorization("admin"))
            assert allowed.status_code == 200, part
        assert (await client.get(f"{exposed.url('registry')}/v1/catalog/services")).status_code == 403
        for path in ("/docs", "/openapi.json", "/api/v1/services", "/orders/42"):
            assert (await client.get(exposed.gateway + path)).status_code == 404, path


async def test_status_shows_every_part_and_service(mesh: RunningMesh) -> None:
    shown = await _run(mesh, "status")
    for name in ("gateway", "discovery", "registry", "router", "events", "payments", "2 passing", str(mesh.home)):
        assert name in shown
    document = json.loads(await _run(mesh, "status", "--json"))
    assert document["ready"] is True
    assert {part["state"] for part in document["parts"].values()} == {"ready"}
    assert {"payments": 2, "orders": 1}.items() <= {
        item["name"]: item["passing"] for item in document["services"]
    }.items()


async def test_logs_of_each_service_are_json_with_the_trace(mesh: RunningMesh, client: httpx.AsyncClient) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    await client.get(f"{mesh.gateway}/orders/42", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})

    async def is_logged() -> bool:
        lines = [json.loads(line) for line in (await _run(mesh, "logs", "--json")).splitlines()]
        return {"orders", "payments"} <= {line["service"] for line in lines if line.get("trace_id") == trace}

    await wait_until(is_logged, what="one trace over two services")
    assert "service_started" in await _run(mesh, "logs", "router")
    assert "there is no log of 'nobody'" in await _run(mesh, "logs", "nobody", code=2)


async def test_a_mesh_without_examples_is_a_mesh(tmp_path: Path, client: httpx.AsyncClient) -> None:
    async with toska_up(tmp_path, "--no-examples") as bare:
        assert {part["name"] for part in bare.line["parts"]}.isdisjoint({"orders", "payments-1"})
        answer = await client.get(bare.line["try_it"][0].removeprefix("curl "))
        assert answer.status_code == 200
        assert all(item["name"].startswith("toska-") for item in answer.json())


async def test_the_table_for_people_has_every_part_and_something_to_try(tmp_path: Path) -> None:
    first = free_ports(20)
    with running([TOSKA, "up", "--ports-from", str(first), "--home", "state"], tmp_path) as program:
        await wait_until(lambda: "Ctrl-C stops" in program.stdout, what=f"the table; {program.stderr}")
        for word in (
            "gateway",
            "discovery",
            "registry",
            "router",
            "events",
            "payments-2",
            "orders",
            "ready",
            "running",
        ):
            assert re.search(rf"\b{word}\b", program.stdout), word
        assert f"curl http://127.0.0.1:{first}/orders/42" in program.stdout
        # A machine that stands still has the gateway warn of documents that did not come in time.
        lines = [line for line in program.stderr.splitlines() if "openapi_document_unavailable" not in line]
        assert [line.split()[0] for line in lines] == ["discovery", "events", "router", "gateway"]
