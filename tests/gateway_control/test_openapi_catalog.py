"""One API document over all services of a real mesh: what is in it, what is not, and what happens when they change."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from toska_common.clients.consul import TTLCheck
from toska_common.contracts.discovery import Health
from toska_tests.control import ControlMesh, control_mesh, web_server
from toska_tests.waiting import wait_until

Json = dict[str, Any]


class Service:
    """A user's service with an OpenAPI document that a test can change or break."""

    def __init__(self, title: str) -> None:
        self.document: Json | None = {
            "openapi": "3.1.0",
            "info": {"title": title, "version": "1.0"},
            "paths": {
                "/items/{id}": {"get": {"operationId": "get_item", "responses": {"200": {"description": "ok"}}}},
                "/metrics": {"get": {"responses": {"200": {"description": "not for everybody"}}}},
            },
        }
        self.fetched = 0
        self.authorizations: list[str | None] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/openapi.json":
            return web.Response(text=f"served {request.path}")
        self.fetched += 1
        self.authorizations.append(request.headers.get("authorization"))
        if self.document is None:
            return web.Response(status=500)
        return web.json_response(self.document)

    def add(self, path: str) -> None:
        """Add an operation."""
        assert self.document is not None
        self.document["paths"][path] = {"get": {"responses": {"200": {"description": "ok"}}}}


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[ControlMesh]:
    async with control_mesh(tmp_path_factory.mktemp("home"), "discovery", "router", "gateway") as mesh:
        await mesh.until_answered(f"{mesh.admin}/health/ready")
        yield mesh


@asynccontextmanager
async def joined(mesh: ControlMesh, name: str, **options: Any) -> AsyncGenerator[tuple[Service, int]]:
    """A service that is registered until the block ends, and gone then for the gateway too."""
    service = Service(name.title())

    async def is_gone() -> bool:
        known = (await listed(mesh)).get(name)
        return known is None or known["state"] != "fresh"  # a service that routes name is not forgotten

    async with web_server(service) as port:
        await mesh.register(name, port, **options)
        try:
            yield service, port
        finally:
            await mesh.deregister(options.get("id", f"{name}-{port}"))
            # Or the next test takes this one's document for that of its own service.
            await wait_until(is_gone)


async def merged(mesh: ControlMesh) -> Json:
    return (await mesh.get(f"{mesh.data}/openapi.json")).raise_for_status().json()


async def listed(mesh: ControlMesh) -> dict[str, Json]:
    answer = await mesh.get(f"{mesh.data}/api/v1/openapi")
    return {item["service"]: item for item in answer.raise_for_status().json()}


async def until_paths(mesh: ControlMesh, *paths: str) -> Json:
    """Wait until the merged document has all these paths."""
    newest: Json = {}

    async def has_them() -> bool:
        answer = await mesh.get(f"{mesh.data}/openapi.json")
        if answer.status_code == 503:  # the gateway has only begun
            return False
        newest.update(answer.raise_for_status().json())
        return set(paths) <= newest["paths"].keys()

    await wait_until(has_them, what=f"{paths} are documented", every=0.1)
    return newest


async def test_services_that_join_are_merged_and_every_listed_operation_can_be_called(mesh: ControlMesh) -> None:
    async with joined(mesh, "orders") as (service, _), joined(mesh, "payments"):
        document = await until_paths(mesh, "/orders/items/{id}", "/payments/items/{id}")
        assert document["paths"]["/orders/items/{id}"]["get"]["operationId"] == "orders_get_item"
        assert (await mesh.get(f"{mesh.data}/orders/items/1")).text == "served /items/1"
        assert service.authorizations == [None]


async def test_what_no_caller_reaches_is_not_listed(mesh: ControlMesh) -> None:
    async with (
        joined(mesh, "exposed"),
        joined(mesh, "hidden", meta={"toska-expose": ""}),
        joined(mesh, "silent", meta={"toska-openapi": ""}),
    ):
        await mesh.until_answered(f"{mesh.data}/silent/items/1")
        document = await until_paths(mesh, "/exposed/items/{id}")
        assert "/exposed/metrics" not in document["paths"]
        assert not [
            path for path in document["paths"] if path.startswith(("/hidden", "/silent", "/metrics", "/health"))
        ]
        assert not {"hidden", "silent"} & (await listed(mesh)).keys()
        for service in ("hidden", "silent", "nobody"):
            assert (await mesh.get(f"{mesh.data}/api/v1/openapi/{service}")).status_code == 404


async def test_an_operator_s_route_makes_a_service_reachable_where_it_leads(mesh: ControlMesh) -> None:
    async with joined(mesh, "hidden", meta={"toska-expose": ""}):
        cluster = {"service": "hidden"}
        await mesh.http.put(f"{mesh.router}/api/v1/clusters/hidden", json=cluster, headers=mesh.bearer())
        route = {"match": {"path_prefix": "/shop"}, "to": "hidden", "strip_prefix": True}
        await mesh.http.put(f"{mesh.router}/api/v1/routes/shop", json=route, headers=mesh.bearer())
        await until_paths(mesh, "/shop/items/{id}", "/shop/metrics")


async def test_the_mesh_s_own_operations_are_there_and_only_they_take_the_mesh_s_token(mesh: ControlMesh) -> None:
    async with joined(mesh, "orders"):
        own = ("/api/v1/services", "/api/v1/routes/{name}", "/api/v1/gateway", "/problems/{code}")
        paths = (await until_paths(mesh, "/orders/items/{id}", *own))["paths"]
        assert paths["/api/v1/routes/{name}"]["put"]["security"] == [{"MeshToken": []}]
        guarded = {path for path, item in paths.items() for op in item.values() if "MeshToken" in json.dumps(op)}
        assert guarded
        assert not [path for path in guarded if path.startswith("/orders")]
        assert "put" not in paths["/api/v1/gateway/routes"]


async def test_one_service_s_document_has_its_own_names_and_the_gateway_s_paths(mesh: ControlMesh) -> None:
    async with joined(mesh, "orders"):
        await until_paths(mesh, "/orders/items/{id}")
        document = (await mesh.get(f"{mesh.data}/api/v1/openapi/orders")).json()
        assert document["info"]["title"] == "Orders"
        assert document["paths"]["/orders/items/{id}"]["get"]["operationId"] == "get_item"
        assert (await mesh.get(f"{mesh.data}/api/v1/openapi/ORDERS")).status_code == 422


async def test_a_new_instance_brings_its_document_and_a_broken_one_leaves_the_last(mesh: ControlMesh) -> None:
    async with joined(mesh, "orders") as (service, port):
        await until_paths(mesh, "/orders/items/{id}")
        service.add("/new")
        await mesh.register("orders", port, meta={"toska-version": "2"})
        await until_paths(mesh, "/orders/new")

        service.document = None
        await mesh.register("orders", port, meta={"toska-version": "3"})

        async def is_stale() -> bool:
            return (await listed(mesh))["orders"]["state"] == "stale"

        await wait_until(is_stale, every=0.1)
        assert "status 500" in (await listed(mesh))["orders"]["problem"]
        assert "/orders/new" in (await merged(mesh))["paths"]


async def test_an_instance_that_is_not_passing_is_not_asked(mesh: ControlMesh) -> None:
    down, check = Service("Down"), TTLCheck(timedelta(hours=1), status=Health.CRITICAL)
    async with joined(mesh, "orders") as (service, _), web_server(down) as port:
        await mesh.register("orders", port, id="orders-down", checks=(check,))
        try:
            await until_paths(mesh, "/orders/items/{id}")
            assert (service.fetched, down.fetched) == (1, 0)
        finally:
            await mesh.deregister("orders-down")


async def test_a_document_is_not_fetched_for_each_question(mesh: ControlMesh) -> None:
    async with joined(mesh, "orders") as (service, _):
        await until_paths(mesh, "/orders/items/{id}")
        for _ in range(20):
            await merged(mesh)
        assert service.fetched == 1


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"swagger": "2.0"}, "only version 3 of OpenAPI"),
        ({"openapi": "3.1.0", "info": {}, "paths": {}, "x": "x" * 4_200_000}, "more than 4194304 bytes"),
        (None, "status 500"),
    ],
    ids=["swagger 2", "huge", "error"],
)
async def test_a_service_without_a_usable_document_is_named_with_the_reason_and_harms_no_other(
    mesh: ControlMesh, document: Json | None, reason: str
) -> None:
    service = Service("Broken")
    service.document = document
    async with web_server(service) as port, joined(mesh, "orders"):
        await mesh.register("broken", port)
        try:
            await until_paths(mesh, "/orders/items/{id}")

            async def is_named() -> bool:
                return reason in (await listed(mesh)).get("broken", {}).get("problem", "")

            await wait_until(is_named, every=0.1)
            assert (await listed(mesh))["broken"]["state"] == "missing"
            answer = await mesh.get(f"{mesh.data}/api/v1/openapi/broken")
            assert (answer.status_code, reason in answer.json()["detail"]) == (404, True)
        finally:
            await mesh.deregister(f"broken-{port}")


async def test_an_instance_cannot_make_the_gateway_ask_a_management_listener(mesh: ControlMesh) -> None:
    admin_port = mesh.first + 1  # which is not registered, so the registry cannot know that it is taken
    await mesh.register("sly", admin_port, id="sly", meta={"toska-openapi": "/api/v1/gateway"})
    try:

        async def is_refused() -> bool:
            return "management address" in (await listed(mesh)).get("sly", {}).get("problem", "")

        await wait_until(is_refused, every=0.1)
    finally:
        await mesh.deregister("sly")


async def test_while_the_registry_is_away_the_documents_stay(home: Path) -> None:
    async with (
        control_mesh(home, "discovery", "router", "gateway") as mesh,
        web_server(Service("Orders")) as port,
    ):
        await mesh.register("orders", port)
        await until_paths(mesh, "/orders/items/{id}", "/api/v1/routes")
        await mesh.stop("discovery")

        async def is_stale() -> bool:
            return (await listed(mesh))["orders"]["state"] == "stale"

        await wait_until(is_stale, every=0.1)
        assert {"/orders/items/{id}", "/api/v1/routes", "/api/v1/services"} <= (await merged(mesh))["paths"].keys()
