"""A gateway in a mesh: what it tells of itself, who may ask, and the mesh's own routes on its data listener."""

from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families
from toska_common.security import is_loopback
from toska_gateway.addresses import local_addresses
from toska_tests.control import ControlMesh, control_mesh, web_server
from toska_tests.waiting import wait_until

ROUTE = {"match": {"path_prefix": "/hello"}, "respond": {"body": "hello"}}


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[ControlMesh]:
    async with control_mesh(tmp_path_factory.mktemp("home"), "discovery", "router", "gateway") as mesh:
        await mesh.until_answered(f"{mesh.admin}/health/ready")
        yield mesh


async def test_a_route_that_an_operator_puts_through_the_data_listener_is_served_and_listed(mesh: ControlMesh) -> None:
    answer = await mesh.http.put(f"{mesh.data}/api/v1/routes/hello", json=ROUTE, headers=mesh.bearer())
    assert answer.status_code == 201, answer.text
    assert (await mesh.until_answered(f"{mesh.data}/hello")).text == "hello"
    ranked: list[dict[str, Any]] = (await mesh.get(f"{mesh.admin}/api/v1/gateway/routes")).json()
    assert [item["rank"] for item in ranked] == list(range(len(ranked)))
    origins = [item["origin"] for item in ranked]
    assert origins == sorted(origins, key=("mesh", "operator", "automatic").index)
    assert {item["route"]["name"]: item["origin"] for item in ranked}["hello"] == "operator"


async def test_the_overview_names_version_workers_and_router(mesh: ControlMesh) -> None:
    await mesh.get(f"{mesh.data}/nowhere")
    overview: dict[str, Any] = {}

    async def is_complete() -> bool:
        overview.update((await mesh.get(f"{mesh.admin}/api/v1/gateway")).json())
        newest = (await mesh.get(f"{mesh.router}/api/v1/status")).json()["version"]
        return overview["version"] == newest and overview["workers"][0]["requests"] >= 1

    await wait_until(is_complete, what="the newest snapshot is served, and the worker has reported the request")
    assert overview["source"] == "router"
    assert overview["listens_on"] == mesh.data
    assert [worker["state"] for worker in overview["workers"]] == ["running"]
    assert overview["router"] == {
        "url": mesh.router, "reachable": True, "error": "", "rejected": "", "rejected_version": "",
    }  # fmt: skip
    assert (await mesh.get(f"{mesh.data}/api/v1/gateway")).json()["version"] == overview["version"]


async def test_metrics_of_the_control_part_and_the_workers_are_one_exposition(mesh: ControlMesh) -> None:
    await mesh.get(f"{mesh.data}/nowhere")
    text = (await mesh.get(f"{mesh.admin}/metrics")).text
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    assert {"toska_http_requests", "toska_gateway_requests", "toska_gateway_workers"} <= set(names)


@pytest.mark.parametrize("path", ["/metrics", "/health/live", "/health/detailed"])
async def test_what_only_operators_watch_is_not_on_the_data_listener(mesh: ControlMesh, path: str) -> None:
    assert (await mesh.get(f"{mesh.admin}{path}")).status_code == 200
    refused = await mesh.get(f"{mesh.data}{path}")
    assert (refused.status_code, refused.headers["x-toska-error"]) == (404, "no-route")


async def test_a_change_through_the_data_listener_needs_the_admin_token(mesh: ControlMesh) -> None:
    url = f"{mesh.data}/api/v1/routes/stranger"
    route = {"match": {"path_prefix": "/stranger"}, "respond": {}}
    stranger = await mesh.http.put(url, json=route)
    joined = await mesh.http.put(url, json=route, headers=mesh.bearer("join"))
    assert (stranger.status_code, stranger.json()["type"]) == (401, "/problems/unauthenticated")
    assert (joined.status_code, joined.json()["type"]) == (403, "/problems/forbidden")
    assert (await mesh.get(f"{mesh.data}/stranger")).status_code == 404


@pytest.mark.parametrize("listener", ["data", "admin"])
async def test_a_rebound_host_name_reaches_no_management_api(mesh: ControlMesh, listener: str) -> None:
    base = {"data": mesh.data, "admin": mesh.admin}[listener]
    answer = await mesh.get(f"{base}/api/v1/gateway", headers={"host": "rebound.example"})
    assert (answer.status_code, answer.json()["type"]) == (421, "/problems/misdirected-request")


async def test_a_mesh_token_reaches_the_mesh_s_services_and_no_user_s(mesh: ControlMesh) -> None:
    seen: list[str | None] = []

    async def note(request: web.BaseRequest) -> web.Response:
        seen.append(request.headers.get("authorization"))
        return web.Response(text="ok")

    async with web_server(note) as port:
        await mesh.register("orders", port, meta={"toska-openapi": ""})
        await mesh.until_answered(f"{mesh.data}/orders/x")
        for access in ("admin", "join"):
            await mesh.http.get(f"{mesh.data}/orders/x", headers=mesh.bearer(access))
        await mesh.http.get(f"{mesh.data}/orders/x", headers={"authorization": "Bearer user"})
    assert seen[-3:] == [None, None, "Bearer user"]


async def test_it_is_registered_while_it_runs(home: Path) -> None:
    async with control_mesh(home, "discovery", "gateway") as mesh:

        async def listed() -> list[tuple[str, int]]:
            entries = (await mesh.get(f"{mesh.registry}/v1/health/service/toska-gateway?passing")).json()
            return [(entry["Service"]["Address"], entry["Service"]["Port"]) for entry in entries]

        async def is_listed() -> bool:
            return await listed() == [("127.0.0.1", mesh.first)]

        await wait_until(is_listed)
        await mesh.stop("gateway")
        assert await listed() == []


async def test_a_user_s_cluster_that_leads_to_a_management_listener_is_refused(mesh: ControlMesh) -> None:
    for name, port in {
        "router": mesh.first + 4,
        "admin": mesh.first + 1,
        "consul": mesh.first + 3,
        "loop": mesh.first,
    }.items():
        await mesh.http.put(
            f"{mesh.router}/api/v1/clusters/{name}",
            json={"endpoints": [{"address": "127.0.0.1", "port": port}]},
            headers=mesh.bearer(),
        )
        route = {"match": {"path_prefix": f"/to-{name}"}, "to": name, "strip_prefix": True}
        await mesh.http.put(f"{mesh.router}/api/v1/routes/{name}", json=route, headers=mesh.bearer())
        refused = await mesh.until_answered(f"{mesh.data}/to-{name}/api/v1/routes", 502)
        assert refused.headers["x-toska-error"] == "target-refused"


async def test_problem_types_are_explained_to_programs_and_people(mesh: ControlMesh) -> None:
    refused = await mesh.get(f"{mesh.data}/nowhere")
    explained = await mesh.get(f"{mesh.data}{refused.json()['type']}")
    assert explained.json()["code"] == "no-route"
    page = await mesh.get(f"{mesh.data}/problems/no-route", headers={"accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert "No route matches" in page.text
    listed = (await mesh.get(f"{mesh.data}/problems")).json()
    assert {item["type"] for item in listed} >= {refused.json()["type"], "/problems/unauthenticated"}
    assert (await mesh.get(f"{mesh.data}/problems/nothing-like-it")).status_code == 404
    assert (await mesh.get(f"{mesh.data}/problems/%3Cscript%3E", headers={"accept": "text/html"})).status_code == 404


async def test_a_stop_lets_a_request_in_flight_finish(home: Path) -> None:
    asked, answer = anyio.Event(), anyio.Event()

    async def slow(_: web.BaseRequest) -> web.Response:
        asked.set()
        await answer.wait()
        return web.Response(text="finished")

    answers: list[str] = []
    async with control_mesh(home, "discovery", "router", "gateway") as mesh, web_server(slow) as port:
        await mesh.register("slow", port, meta={"toska-openapi": ""})

        async def is_routed() -> bool:
            ranked = (await mesh.get(f"{mesh.admin}/api/v1/gateway/routes")).json()
            return ranked[-1]["route"]["name"] == "auto:slow"

        await wait_until(is_routed)

        async def ask() -> None:
            answers.append((await mesh.get(f"{mesh.data}/slow/")).text)

        async def is_stopping() -> bool:
            return not (await mesh.get(f"{mesh.registry}/v1/health/service/toska-gateway")).json()

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await asked.wait()
            group.start_soon(mesh.stop, "gateway")
            await wait_until(is_stopping)
            answer.set()
    assert answers == ["finished"]


async def test_off_loopback_a_read_needs_the_admin_token_wherever_it_is_forwarded_to(home: Path) -> None:
    elsewhere = next((address for address in local_addresses() if not is_loopback(address) and "." in address), None)
    if elsewhere is None:
        pytest.skip("this machine has no address but loopback")
    async with control_mesh(home, "discovery") as mesh:
        await mesh.start_router(allowed_hosts=(elsewhere,))
        await mesh.start_gateway(host="0.0.0.0", serve_management=True, allowed_hosts=(elsewhere,))
        base = f"http://{elsewhere}:{mesh.first}"
        await mesh.until_answered(f"{base}/api/v1/routes", 401)

        async def answers(path: str, status: int, **options: Any) -> bool:
            found = (await mesh.get(f"{base}{path}", **options)).status_code
            assert found in (status, 503)  # which is said of a part that the gateway does not yet know
            return found == status

        for path in ("/api/v1/gateway", "/openapi.json"):
            await wait_until(partial(answers, path, 401), what=f"{path} is refused")
        await wait_until(partial(answers, "/api/v1/routes", 200, headers=mesh.bearer()), what="the routes")
        paths: dict[str, Any] = {}

        async def describes_the_router() -> bool:
            if not await answers("/openapi.json", 200, headers=mesh.bearer()):
                return False
            document = await mesh.get(f"{base}/openapi.json", headers=mesh.bearer())
            paths.update(document.raise_for_status().json()["paths"])
            return "/api/v1/routes" in paths

        await wait_until(describes_the_router)
        assert paths["/api/v1/routes"]["get"]["security"] == [{"MeshToken": []}]
        assert (await mesh.get(f"{mesh.router}/api/v1/routes")).status_code == 200


async def test_off_loopback_nothing_of_the_mesh_is_on_the_data_listener_unless_asked_for(home: Path) -> None:
    async with control_mesh(home, "discovery", "router") as mesh:
        await mesh.start_gateway(host="0.0.0.0", admin_host="127.0.0.1")
        await mesh.until_answered(f"{mesh.admin}/health/ready")
        for path in ("/api/v1/routes", "/api/v1/gateway", "/docs", "/openapi.json", "/problems"):
            refused = await mesh.get(f"{mesh.data}{path}", headers=mesh.bearer())
            assert refused.headers["x-toska-error"] == "no-route"
