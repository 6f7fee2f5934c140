"""Sagas of services by the gateway's admin API: who may look, what a service is shown, and what it may answer."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from toska_common.credentials import sagas_token
from toska_tests.control import ControlMesh, control_mesh, web_server
from toska_tests.ports import free_port

BASE = "/api/v1/gateway/sagas"
SAGA = {
    "id": "a-1",
    "name": "place-order",
    "version": 1,
    "state": "stuck",
    "created_at": "2026-01-31T12:00:00Z",
    "updated_at": "2026-01-31T12:00:00Z",
    "executor": "orders/0.1",
}


class Impostor:
    """A service that anybody with the join token has registered."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []
        self.answer: tuple[int, str] = (200, json.dumps({"sagas": [SAGA]}))

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        authorization = request.headers.get("authorization", "")
        self.seen.append((request.method, str(request.rel_url), authorization))
        status, text = self.answer
        headers = {"location": "http://169.254.169.254/"} if status == 302 else {}
        return web.Response(status=status, text=text, headers={"content-type": "text/html", **headers})


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[ControlMesh]:
    async with control_mesh(tmp_path_factory.mktemp("home"), "discovery", "gateway") as mesh:
        yield mesh


@asynccontextmanager
async def joined(mesh: ControlMesh, name: str) -> AsyncGenerator[Impostor]:
    service = Impostor()
    async with web_server(service) as port:
        await mesh.register(name, port, meta={"toska-sagas": "/ours/sagas"})
        yield service
        await mesh.deregister(f"{name}-{port}")


async def ask(mesh: ControlMesh, path: str, method: str = "GET", **options: Any) -> tuple[int, Any]:
    answer = await mesh.http.request(method, mesh.admin + BASE + path, headers=mesh.bearer(), **options)
    return answer.status_code, answer.json()


async def test_reading_takes_the_admin_token_on_loopback_too(mesh: ControlMesh) -> None:
    for path in ("", "/orders", "/orders/a-1"):
        assert (await mesh.get(mesh.admin + BASE + path)).status_code == 401
        assert (await mesh.get(mesh.admin + BASE + path, headers=mesh.bearer("join"))).status_code == 403
    assert (await mesh.http.post(f"{mesh.admin}{BASE}/orders/a-1/cancel")).status_code == 401


async def test_a_service_is_shown_a_token_that_opens_its_sagas_alone(mesh: ControlMesh) -> None:
    async with joined(mesh, "orders") as service, joined(mesh, "payments"):
        assert (await ask(mesh, "?"))[1] == [
            {"service": "orders", "instances": 1},
            {"service": "payments", "instances": 1},
        ]
        status, found = await ask(mesh, "/orders?state=stuck&limit=7")
        assert (status, [one["id"] for one in found["sagas"]]) == (200, ["a-1"])
        service.answer = (202, json.dumps(SAGA))
        status, found = await ask(mesh, "/orders/a-1/cancel", "POST", json={"reason": "fraud"})
        assert (status, found["state"]) == (202, "stuck")
        token = sagas_token(mesh.credentials.admin, "orders")
        assert service.seen == [
            ("GET", "/ours/sagas?state=stuck&limit=7", f"Bearer {token}"),
            ("POST", "/ours/sagas/a-1/cancel", f"Bearer {token}"),
        ]
        assert mesh.credentials.admin not in token
        assert token != sagas_token(mesh.credentials.admin, "payments")
        assert (await mesh.get(mesh.admin + BASE, headers={"authorization": f"Bearer {token}"})).status_code == 401


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ((200, "<script>"), 502, "no JSON"),
        ((200, '{"sagas": 1}'), 502, "not as the API of sagas does"),
        ((302, ""), 502, "redirects are not followed"),
        ((401, '{"detail": "no"}'), 502, "toska sagas token orders"),
        ((404, '{"detail": "there is no saga a-1"}'), 404, "there is no saga a-1"),
        ((409, '{"detail": "saga a-1 is completed"}'), 409, "is completed"),
        ((422, '{"detail": "before: give it"}'), 422, "before: give it"),
        ((500, "{}"), 502, "status 500"),
    ],
)
async def test_what_a_service_answers_is_taken_for_what_it_should_be(
    mesh: ControlMesh, answer: tuple[int, str], status: int, said: str
) -> None:
    async with joined(mesh, "orders") as service:
        service.answer = answer
        got, told = await ask(mesh, "/orders")
        assert (got, said in told["detail"]) == (status, True), told


async def test_another_instance_is_asked_where_one_is_gone_and_nothing_is_steered_twice(mesh: ControlMesh) -> None:
    async with joined(mesh, "orders") as service:
        gone = free_port()
        await mesh.register("orders", gone, meta={"toska-sagas": "/ours/sagas"})
        assert (await ask(mesh, "/orders"))[0] == 200
        service.answer = (202, json.dumps(SAGA))
        assert (await ask(mesh, "/orders/a-1/resume", "POST"))[0] == 202
        await mesh.deregister(f"orders-{gone}")
    async with joined(mesh, "orders") as first, joined(mesh, "orders") as second:
        first.answer = second.answer = (503, "{}")
        assert (await ask(mesh, "/orders/a-1/resume", "POST"))[0] == 502
        assert len(first.seen + second.seen) == 1
        assert (await ask(mesh, "/orders/a-1"))[0] == 502
        assert len(first.seen + second.seen) == 3


async def test_the_mesh_does_not_go_to_its_own_listeners_for_sagas(mesh: ControlMesh) -> None:
    port = int(mesh.admin.rpartition(":")[2])
    await mesh.register("inward", port, meta={"toska-sagas": "/api/v1/gateway"})
    status, told = await ask(mesh, "/inward")
    assert (status, "management address" in told["detail"]) == (502, True)
    await mesh.deregister(f"inward-{port}")
